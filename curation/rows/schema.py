"""The records of a dataset: every column with its type, unit and meaning, declared here and nowhere else.

A row is a plain dict; between stages it is one record of `CLIPS`. The Arrow schemas, blank rows, the features
for Hugging Face `datasets`, what an older file lacks and the table in docs/dataset.md follow from these
declarations (`curation.rows.columns`).

Conventions:
* a box is `[x0, y0, x1, y1]` in pixels of the *clip's* frames, right and bottom edges exclusive;
* a mask is COCO run-length encoding, `size = [height, width]` of the clip's frames;
* frame numbers count decoded frames of the *source* video from 0; an end is exclusive;
* times are seconds from the first frame of the source video;
* shares are 0..1; `null` means "not measured", never "zero".
"""

from __future__ import annotations

from typing import Annotated, TypedDict

import pyarrow as pa

from curation.rows.columns import Column, Int32, derive_fields
from curation.rows.huggingface import encode_features

SCHEMA_VERSION = "4"


class EncodedImage(TypedDict):
    """An encoded picture (JPEG, WebP where there is transparency), as Hugging Face `datasets` stores it."""

    bytes: Annotated[bytes | None, Column("the encoded file")]
    path: Annotated[
        str | None, Column("always null here; the library uses it for pictures that lie in files")
    ]


class EncodedMask(TypedDict):
    """A mask in COCO run-length encoding."""

    size: Annotated[list[Int32], Column("[height, width], px")]
    counts: Annotated[str, Column("COCO run-length encoding, compressed, ASCII")]


class StopReason(TypedDict):
    """Where and why a row stopped being worked on."""

    stage: Annotated[str, Column("name of the stage")]
    reason: Annotated[str, Column("the threshold that was missed, or a sentence")]
    value: Annotated[float | None, Column("what was measured")]
    threshold: Annotated[float | None, Column("the threshold that it was compared with")]


class FrameRow(TypedDict):
    """A sampled frame of a clip."""

    index: Annotated[int, Column("source frame number")]
    time_s: Annotated[float, Column("s from the source's first frame")]
    image: Annotated[EncodedImage | None, Column("JPEG of the clip's size")]
    motion: Annotated[
        EncodedImage | None, Column("residual motion, grey PNG, 255 = `motion_scale`; freed by `filter`")
    ]


class Scores(TypedDict, total=False):
    """What the stages measured of one subject. Missing or null: not measured."""

    grounding: Annotated[float | None, Column("detector's confidence that something is there, 0..1")]
    label: Annotated[
        float | None,
        Column("confidence that it is what this phrase names and not what another phrase names, 0..1"),
    ]
    segment: Annotated[float | None, Column("segmenter's own estimate of mask quality, 0..1")]
    area_share: Annotated[float | None, Column("mask pixels / frame pixels, 0..1")]
    border_share: Annotated[float | None, Column("share of the frame's border covered by the mask, 0..1")]
    overlap_iou: Annotated[
        float | None, Column("highest mask IoU with a larger subject of the same frame, 0..1")
    ]
    overlap_containment: Annotated[
        float | None, Column("largest share of this mask inside a larger subject's mask, 0..1")
    ]
    clip_category: Annotated[
        float | None, Column("probability of its own category among all of the taxonomy, 0..1")
    ]
    clip_margin: Annotated[float | None, Column("that probability minus the best other one, -1..1")]
    visible_share: Annotated[
        float | None, Column("share of the sampled frames in which the tracker sees it, 0..1", since=2)
    ]
    flow_foreground: Annotated[
        float | None, Column("mean length of optical flow on it, px of a frame 720 px long", since=2)
    ]
    flow_background: Annotated[
        float | None,
        Column("mean length of optical flow beside all subjects, px of a frame 720 px long", since=2),
    ]
    brightness: Annotated[float | None, Column("mean luma under the mask, 0..255")]
    clipped_share: Annotated[
        float | None, Column("share of masked pixels at the ends of the luma range, 0..1")
    ]
    sharpness: Annotated[
        float | None, Column("variance of the Laplacian of blurred luma, subject's longer side at 256 px")
    ]
    face_count: Annotated[float | None, Column("faces inside the subject")]
    face_share: Annotated[float | None, Column("area of the largest face / area of the subject's box")]
    face_score: Annotated[float | None, Column("detector's confidence in it, 0..1")]
    face_frontality: Annotated[float | None, Column("1 = looks at the camera, 0 = profile or away")]


class Verdict(TypedDict):
    """Whether a subject is kept, and why not."""

    kept: Annotated[bool, Column("no threshold was missed")]
    reason: Annotated[str | None, Column("first threshold that was missed")]
    value: Annotated[float | None, Column("what was measured there")]
    threshold: Annotated[float | None, Column("the threshold that it was compared with")]
    failures: Annotated[list[str], Column("every threshold that was missed")]
    unmeasured: Annotated[list[str], Column("thresholds that could not be applied")]


class TrackPoint(TypedDict):
    """A tracked subject in one sampled frame."""

    index: Annotated[int, Column("source frame number of a sampled frame")]
    box: Annotated[list[float] | None, Column("tight around the mask, px; null: not seen there")]
    mask: Annotated[EncodedMask | None, Column("null: not seen there")]
    presence: Annotated[float, Column("tracker's own estimate that it is there, 0..1")]


class ReferenceFrame(TypedDict):
    """A frame from which references of a subject are made."""

    index: Annotated[int, Column("source frame number")]
    quality: Annotated[
        float, Column("quality among the frames of its track, 0..1: size, sharpness, wholeness, presence")
    ]
    difference: Annotated[
        float, Column("difference in pose from the nearest frame before it in this list; 0 for the first")
    ]
    identity: Annotated[
        float | None, Column("similarity of its cut-out with the first one's, -1..1; null: no embedder")
    ]


class Reference(TypedDict):
    """A picture of a subject that a model is conditioned on."""

    reference_id: Annotated[str, Column("subject_id, variant and a number")]
    variant: Annotated[str, Column("crop | segment | inpaint | redux | crosspair | retrieved")]
    image: Annotated[EncodedImage, Column("JPEG; WebP with transparency for segment and redux")]
    width: Annotated[Int32, Column("px")]
    height: Annotated[Int32, Column("px")]
    model: Annotated[str, Column("name of the model that made it")]
    revision: Annotated[str, Column("revision of that model")]
    sha256: Annotated[str | None, Column("SHA-256 of the model's checkpoint; null: it has none", since=2)]
    frame_index: Annotated[
        int | None, Column("source frame number that shows the subject; null for retrieved", since=2)
    ]
    prompt: Annotated[str | None, Column("prompt given to the model")]
    seed: Annotated[int | None, Column("seed of the random numbers that made it")]
    donor_clip_id: Annotated[
        str | None, Column("crosspair: clip of the background; retrieved: clip of the picture")
    ]
    donor_frame_index: Annotated[int | None, Column("source frame number of the donor's picture")]
    identity: Annotated[float | None, Column("similarity with the subject it stands for, -1..1")]
    face_identity: Annotated[float | None, Column("similarity of the two faces, -1..1; humans only")]
    kept: Annotated[bool, Column("no threshold was missed")]
    reason: Annotated[str | None, Column("first threshold that was missed")]


class SubjectRow(TypedDict):
    """A candidate subject of a clip."""

    subject_id: Annotated[str, Column("clip_id and a hash of where the caption names it")]
    category: Annotated[str, Column("taxonomy category")]
    group: Annotated[str, Column("taxonomy group")]
    name: Annotated[str, Column("taxonomy name that matched")]
    phrase: Annotated[str, Column("words of the caption, which grounding searches for")]
    count: Annotated[Int32 | None, Column("how many the caption speaks of; null: several, unknown")]
    instance: Annotated[Int32, Column("0, 1, ... among the boxes of one phrase", blank=0)]
    found_index: Annotated[
        int | None, Column("source frame number in which the detector found it; null: never found", since=2)
    ]
    found_box: Annotated[list[float] | None, Column("the detector's box there, px", since=2)]
    frame_index: Annotated[int | None, Column("source frame number that shows it best; null: never found")]
    box: Annotated[list[float] | None, Column("[x0, y0, x1, y1] there, px")]
    mask: Annotated[EncodedMask | None, Column("mask there; null: never found, or empty")]
    track: Annotated[
        list[TrackPoint] | None,
        Column("where it is in every sampled frame, in time order; null: not tracked", since=2),
    ]
    reference_frames: Annotated[
        list[ReferenceFrame] | None,
        Column("frames from which its references are made, best first", since=2),
    ]
    scores: Annotated[Scores, Column("what was measured")]
    verdict: Annotated[Verdict | None, Column("null: not decided")]
    made_by: Annotated[
        str | None, Column('JSON: role -> "backend@revision#sha256=..." of its checkpoint, if it has one')
    ]
    references: Annotated[list[Reference], Column("its references")]


class ClipRow(TypedDict):
    """A clip, or a video that gave none."""

    clip_id: Annotated[str, Column("video_id, frame span and slicing config")]
    video_id: Annotated[str | None, Column("hash of the bytes; null: they could not be read")]
    source_path: Annotated[str, Column("path or address of the video")]
    source_key: Annotated[
        str, Column("path, size and modification stamp, by which a run knows finished videos")
    ]
    extra: Annotated[str | None, Column("JSON: further columns of the input manifest")]
    license: Annotated[str | None, Column("as the input manifest states it")]
    clip_path: Annotated[str | None, Column("MP4 below the dataset; null for a video that gave no clip")]
    clip_bytes: Annotated[int | None, Column("size of the MP4, bytes", since=4)]
    clip_blake2b: Annotated[str | None, Column("BLAKE2b of the MP4, 128 bits, as `b2sum -l 128`", since=4)]
    clip_index: Annotated[Int32, Column("0, 1, ... within the video", blank=0)]
    clip_count: Annotated[
        Int32, Column("in a video's last row: number of its rows, stopped ones included; else 0", blank=0)
    ]
    start_frame: Annotated[int | None, Column("source frame number; null for a video that gave no clip")]
    end_frame: Annotated[int | None, Column("end of the span, exclusive")]
    start_s: Annotated[float | None, Column("time of the first frame, s")]
    end_s: Annotated[float | None, Column("end of the span, s, exclusive")]
    num_frames: Annotated[int | None, Column("number of frames: end_frame - start_frame")]
    fps: Annotated[float | None, Column("frames per second")]
    width: Annotated[Int32 | None, Column("px")]
    height: Annotated[Int32 | None, Column("px")]
    cut: Annotated[str | None, Column("copy (bit-exact packets) | encode")]
    source_codec: Annotated[str | None, Column("FFmpeg's name of the source's codec")]
    source_transfer: Annotated[
        str | None, Column("how the source codes light: sdr | hlg | pq; clips are always sdr", since=3)
    ]
    source_interlaced: Annotated[
        bool | None, Column("whether frames of the source were interlaced; clips never are", since=3)
    ]
    motion: Annotated[float | None, Column("mean residual motion, share of the frame's diagonal per second")]
    camera_motion: Annotated[
        float | None, Column("mean camera motion, share of the frame's diagonal per second")
    ]
    flow_foreground: Annotated[
        float | None,
        Column("mean length of optical flow on its subjects, px of a frame 720 px long", since=2),
    ]
    flow_background: Annotated[
        float | None, Column("mean length of optical flow beside them, px of a frame 720 px long", since=2)
    ]
    motion_scale: Annotated[float | None, Column("residual motion that grey level 255 of a motion map means")]
    caption: Annotated[str | None, Column("one sentence or more")]
    caption_source: Annotated[
        str | None, Column("manifest | sidecar | backend@revision#sha256=... that wrote it")
    ]
    status: Annotated[str, Column("open | kept | rejected | failed", blank="open")]
    stop: Annotated[StopReason | None, Column("null: kept, or still open")]
    frames: Annotated[list[FrameRow], Column("sampled frames that are still needed")]
    subjects: Annotated[list[SubjectRow], Column("candidate subjects that the caption names")]
    config_hash: Annotated[
        str, Column("digest of the config and the model revisions that made the row", blank="")
    ]
    payload_bytes: Annotated[int, Column("bytes of all pictures in the row", blank=0)]


class VideoRow(TypedDict):
    """One input of a run, before anything was opened."""

    source_path: Annotated[str, Column("path or address of the video")]
    source_key: Annotated[str, Column("path, size and modification stamp")]
    size: Annotated[int, Column("bytes; -1: it could not be read")]
    caption: Annotated[str | None, Column("caption that came with the video")]
    caption_source: Annotated[str | None, Column("manifest | sidecar")]
    license: Annotated[str | None, Column("as the input manifest states it")]
    extra: Annotated[str | None, Column("JSON: further columns of the input manifest")]
    problem: Annotated[str | None, Column("why it cannot be opened: missing, unreadable, a duplicate")]
    skip_clip_ids: Annotated[list[str], Column("its clips that an interrupted run finished")]


_CLIP_FIELDS = derive_fields(ClipRow)

CLIPS: pa.Schema = pa.schema(
    _CLIP_FIELDS,
    metadata={
        b"reprise.schema": SCHEMA_VERSION.encode(),
        b"huggingface": encode_features(_CLIP_FIELDS, images=[pa.struct(derive_fields(EncodedImage))]),
    },
)

# What travels between workers: a clip and, as JSON, the seconds that each stage spent on it. They are summed
# into the manifest and stay out of the shards, which are the same on every run.
TRANSIT: pa.Schema = CLIPS.append(pa.field("seconds", pa.string()))

VIDEOS: pa.Schema = pa.schema(derive_fields(VideoRow))
