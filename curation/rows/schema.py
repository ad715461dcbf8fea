"""The tables of a dataset, written down once: names, types, units.

A row is a plain dict; between stages it is one record of `CLIPS`. The classes below give the same records
to the type checker; a test holds the two together.

Conventions, everywhere:
* a box is `[x0, y0, x1, y1]` in pixels of the *clip's* frames, right and bottom edges exclusive;
* a mask is COCO run-length encoding, `size = [height, width]` of the clip's frames;
* frame numbers count decoded frames of the *source* video from 0; an end is exclusive;
* times are seconds from the first frame of the source video;
* shares are 0..1; `null` means "not measured", never "zero".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

import pyarrow as pa

from reprise.errors import RepriseError

SCHEMA_VERSION = "2"  # `_ADDED` says what an older one lacks


class EncodedImage(TypedDict):
    """An encoded picture (JPEG, WebP where there is transparency), as Hugging Face `datasets` stores it."""

    bytes: bytes | None
    path: str | None  # always null here; the library uses it for pictures that lie in files


class EncodedMask(TypedDict):
    size: list[int]  # [height, width], px
    counts: str  # COCO run-length encoding, compressed, ASCII


class StopReason(TypedDict):
    """Where and why a row stopped being worked on."""

    stage: str  # name of the stage
    reason: str  # the threshold that was missed, or a sentence
    value: float | None  # what was measured
    threshold: float | None  # what it was held against


class FrameRow(TypedDict):
    index: int  # source frame number
    time_s: float  # s from the source's first frame
    image: EncodedImage | None  # JPEG of the clip's size
    motion: EncodedImage | None  # residual motion, grey PNG, 255 = `motion_scale`; freed by `filter`


class Scores(TypedDict, total=False):
    """What the stages measured of one subject. Missing or null: not measured."""

    grounding: float | None  # detector's confidence that something is there, 0..1
    label: float | None  # confidence that it is what the phrase names and not what another names, 0..1
    segment: float | None  # segmenter's own estimate of mask quality, 0..1
    area_share: float | None  # mask pixels / frame pixels, 0..1
    border_share: float | None  # share of the frame's border covered by the mask, 0..1
    overlap_iou: float | None  # highest mask IoU with a larger subject of the same frame, 0..1
    overlap_containment: float | None  # largest share of this mask inside a larger subject's mask, 0..1
    clip_category: float | None  # probability of its own category among all of the taxonomy, 0..1
    clip_margin: float | None  # that probability minus the best other one, -1..1
    visible_share: float | None  # share of the sampled frames in which the tracker sees it, 0..1
    flow_foreground: float | None  # mean length of optical flow on it, px of a frame 720 px long
    flow_background: float | None  # mean length of optical flow beside all subjects, same unit
    brightness: float | None  # mean luma under the mask, 0..255
    clipped_share: float | None  # share of masked pixels at the ends of the luma range, 0..1
    sharpness: float | None  # variance of the Laplacian of blurred luma, subject's longer side at 256 px
    face_count: float | None  # faces inside the subject
    face_share: float | None  # area of the largest face / area of the subject's box
    face_score: float | None  # detector's confidence in it, 0..1
    face_frontality: float | None  # 1 = looks at the camera, 0 = profile or away


class Verdict(TypedDict):
    kept: bool  # no threshold was missed
    reason: str | None  # first threshold that was missed
    value: float | None  # what was measured there
    threshold: float | None  # what it was held against
    failures: list[str]  # every threshold that was missed
    unmeasured: list[str]  # thresholds that could not be applied


class TrackPoint(TypedDict):
    index: int  # source frame number of a sampled frame
    box: list[float] | None  # tight around the mask, px; null: not seen there
    mask: EncodedMask | None  # null: not seen there
    presence: float  # tracker's own estimate that it is there, 0..1


class ReferenceFrame(TypedDict):
    index: int  # source frame number
    quality: float  # among the frames of its track, 0..1: size, sharpness, being whole, presence
    difference: float  # in pose from the nearest frame before it in this list; 0 for the first
    identity: float | None  # similarity of its cut-out with the first one's, -1..1; null: no embedder


class Reference(TypedDict):
    reference_id: str  # subject_id, variant and a number
    variant: str  # crop | segment | inpaint | redux | crosspair | retrieved
    image: EncodedImage  # JPEG; WebP with transparency for segment and redux
    width: int  # px
    height: int  # px
    model: str  # name of what made it
    revision: str  # its revision
    sha256: str | None  # of its checkpoint; null: it has none
    frame_index: int | None  # source frame number that shows the subject; null for retrieved
    prompt: str | None  # what a model was told
    seed: int | None  # what its randomness started from
    donor_clip_id: str | None  # crosspair: where the background comes from; retrieved: where the picture does
    donor_frame_index: int | None  # source frame number of what the donor gave
    identity: float | None  # similarity with the subject it stands for, -1..1
    face_identity: float | None  # similarity of the two faces, -1..1; humans only
    kept: bool  # no threshold was missed
    reason: str | None  # first threshold that was missed


class SubjectRow(TypedDict):
    subject_id: str  # clip_id and a hash of where the caption names it
    category: str  # taxonomy category
    group: str  # taxonomy group
    name: str  # taxonomy name that matched
    phrase: str  # words of the caption; what went to grounding
    count: int | None  # how many the caption speaks of; null: several, unknown
    instance: int  # 0, 1, ... among the boxes of one phrase
    found_index: int | None  # source frame number in which the detector found it; null: never found
    found_box: list[float] | None  # the detector's box there, px
    frame_index: int | None  # source frame number that shows it best; null: never found
    box: list[float] | None  # [x0, y0, x1, y1] there, px
    mask: EncodedMask | None  # there; null: never found, or nothing left of it
    track: list[TrackPoint] | None  # it in every sampled frame, in time order; null: nobody followed it
    reference_frames: list[ReferenceFrame] | None  # frames to take pictures of it from, best first
    scores: Scores  # what was measured
    verdict: Verdict | None  # null: not decided
    made_by: str | None  # JSON: role -> "backend@revision#sha256=..." of its checkpoint, if it has one
    references: list[Reference]  # pictures of it


class ClipRow(TypedDict):
    clip_id: str  # video_id, frame span and slicing config
    video_id: str | None  # hash of the bytes; null: they could not be read
    source_path: str  # where the video was
    source_key: str  # path, size and modification stamp: what "already done" is decided by
    extra: str | None  # JSON: what the input manifest carried along
    license: str | None  # as the input manifest states it
    clip_path: str | None  # MP4 below the dataset; null for a video that gave no clip
    clip_index: int  # 0, 1, ... in the video
    clip_count: int  # in a video's last row: rows that it gave, stopped ones too; else 0
    start_frame: int | None  # source frame number; null for a video that gave no clip
    end_frame: int | None  # exclusive
    start_s: float | None  # first frame, s
    end_s: float | None  # s, exclusive
    num_frames: int | None  # end_frame - start_frame
    fps: float | None  # frames per second
    width: int | None  # px
    height: int | None  # px
    cut: str | None  # copy (bit-exact packets) | encode
    source_codec: str | None  # FFmpeg's name of the source's codec
    motion: float | None  # mean residual motion, share of the frame's diagonal per second
    camera_motion: float | None  # mean camera motion, same unit
    flow_foreground: float | None  # mean length of optical flow on its subjects, px of a frame 720 px long
    flow_background: float | None  # mean length of optical flow beside them, same unit
    motion_scale: float | None  # residual motion that grey level 255 of a motion map stands for
    caption: str | None  # one sentence or more
    caption_source: str | None  # manifest | sidecar | backend@revision#sha256=... that wrote it
    status: str  # open | kept | rejected | failed
    stop: StopReason | None  # null: kept, or still open
    frames: list[FrameRow]  # sampled frames that something still needs
    subjects: list[SubjectRow]  # what the caption names
    config_hash: str  # of the config and model revisions that made the row
    payload_bytes: int  # bytes of all pictures in the row


_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_MASK = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
_STOP = pa.struct(
    [("stage", pa.string()), ("reason", pa.string()), ("value", pa.float64()), ("threshold", pa.float64())]
)
_FRAME = pa.struct([("index", pa.int64()), ("time_s", pa.float64()), ("image", _IMAGE), ("motion", _IMAGE)])
_SCORES = pa.struct([(name, pa.float64()) for name in Scores.__annotations__])
_VERDICT = pa.struct(
    [
        ("kept", pa.bool_()),
        ("reason", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("failures", pa.list_(pa.string())),
        ("unmeasured", pa.list_(pa.string())),
    ]
)
_TRACK_POINT = pa.struct(
    [("index", pa.int64()), ("box", pa.list_(pa.float64())), ("mask", _MASK), ("presence", pa.float64())]
)
_REFERENCE_FRAME = pa.struct(
    [
        ("index", pa.int64()),
        ("quality", pa.float64()),
        ("difference", pa.float64()),
        ("identity", pa.float64()),
    ]
)
_REFERENCE = pa.struct(
    [
        ("reference_id", pa.string()),
        ("variant", pa.string()),
        ("image", _IMAGE),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("model", pa.string()),
        ("revision", pa.string()),
        ("sha256", pa.string()),
        ("frame_index", pa.int64()),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("donor_clip_id", pa.string()),
        ("donor_frame_index", pa.int64()),
        ("identity", pa.float64()),
        ("face_identity", pa.float64()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),
    ]
)
_SUBJECT = pa.struct(
    [
        ("subject_id", pa.string()),
        ("category", pa.string()),
        ("group", pa.string()),
        ("name", pa.string()),
        ("phrase", pa.string()),
        ("count", pa.int32()),
        ("instance", pa.int32()),
        ("found_index", pa.int64()),
        ("found_box", pa.list_(pa.float64())),
        ("frame_index", pa.int64()),
        ("box", pa.list_(pa.float64())),
        ("mask", _MASK),
        ("track", pa.list_(_TRACK_POINT)),
        ("reference_frames", pa.list_(_REFERENCE_FRAME)),
        ("scores", _SCORES),
        ("verdict", _VERDICT),
        ("made_by", pa.string()),
        ("references", pa.list_(_REFERENCE)),
    ]
)

_CLIP_FIELDS = [
    ("clip_id", pa.string()),
    ("video_id", pa.string()),
    ("source_path", pa.string()),
    ("source_key", pa.string()),
    ("extra", pa.string()),
    ("license", pa.string()),
    ("clip_path", pa.string()),
    ("clip_index", pa.int32()),
    ("clip_count", pa.int32()),
    ("start_frame", pa.int64()),
    ("end_frame", pa.int64()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("num_frames", pa.int64()),
    ("fps", pa.float64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("cut", pa.string()),
    ("source_codec", pa.string()),
    ("motion", pa.float64()),
    ("camera_motion", pa.float64()),
    ("flow_foreground", pa.float64()),
    ("flow_background", pa.float64()),
    ("motion_scale", pa.float64()),
    ("caption", pa.string()),
    ("caption_source", pa.string()),
    ("status", pa.string()),
    ("stop", _STOP),
    ("frames", pa.list_(_FRAME)),
    ("subjects", pa.list_(_SUBJECT)),
    ("config_hash", pa.string()),
    ("payload_bytes", pa.int64()),
]


def _build_huggingface_features() -> bytes:
    """The `datasets` feature description of `CLIPS`, so that the Hub and `load_dataset` show the pictures.

    Written by hand because the library infers plain structs of bytes from Arrow types alone.
    """

    def build_feature(kind: pa.DataType) -> Any:
        if kind == _IMAGE:
            return {"_type": "Image"}
        if pa.types.is_struct(kind):
            return {field.name: build_feature(field.type) for field in kind}
        if pa.types.is_list(kind):
            return [
                build_feature(kind.value_type)
            ]  # the one spelling that every version of the library reads
        names = {pa.float64(): "float64", pa.bool_(): "bool"}
        return {"dtype": names.get(kind, str(kind)), "_type": "Value"}

    features = {name: build_feature(kind) for name, kind in _CLIP_FIELDS}
    return json.dumps({"info": {"features": features}}).encode()


CLIPS: pa.Schema = pa.schema(
    _CLIP_FIELDS,
    metadata={b"reprise.schema": SCHEMA_VERSION.encode(), b"huggingface": _build_huggingface_features()},
)

# Version of the schema -> fields that it added, dotted: what an older file lacks is null when it is read.
_ADDED_FIELDS: dict[str, frozenset[str]] = {
    "2": frozenset(
        {
            "flow_foreground",
            "flow_background",
            "subjects.found_index",
            "subjects.found_box",
            "subjects.track",
            "subjects.reference_frames",
            "subjects.scores.visible_share",
            "subjects.scores.flow_foreground",
            "subjects.scores.flow_background",
            "subjects.references.sha256",
            "subjects.references.frame_index",
        }
    )
}

# What travels between workers: a clip and, as JSON, the seconds that each stage spent on it. They are summed
# into the manifest and stay out of the shards, which are the same on every run.
TRANSIT: pa.Schema = CLIPS.append(pa.field("seconds", pa.string()))

# One row per input, before anything was opened.
VIDEOS: pa.Schema = pa.schema(
    [
        ("source_path", pa.string()),
        ("source_key", pa.string()),
        ("size", pa.int64()),  # bytes; -1 where it could not be read
        ("caption", pa.string()),
        ("caption_source", pa.string()),
        ("license", pa.string()),
        ("extra", pa.string()),
        ("problem", pa.string()),  # why it cannot be opened at all: missing, unreadable, a duplicate
        ("skip_clip_ids", pa.list_(pa.string())),  # clips of it that an interrupted run finished
    ]
)


class VideoRow(TypedDict):
    source_path: str
    source_key: str
    size: int
    caption: str | None
    caption_source: str | None
    license: str | None
    extra: str | None
    problem: str | None
    skip_clip_ids: list[str]


def build_table(rows: Iterable[Any], schema: pa.Schema) -> pa.Table:
    """Rows -> Arrow, checked. A field that a row does not have is null.

    Raises:
        RepriseError: a field that the schema does not know, at any depth, or a value of another type.
    """
    listed = list(rows)
    for row in listed:
        unknown = next(_find_unknown_fields(row, schema, ""), None)
        if unknown:
            raise RepriseError(
                f"row {row.get('clip_id') or row.get('source_path')} has an unknown field {unknown}"
            )
    try:
        return pa.Table.from_pylist(listed, schema=schema)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        message = " ".join(str(error).split())
        raise RepriseError(f"a row does not fit the schema: {message}") from error


def _find_unknown_fields(value: Any, kind: Iterable[pa.Field], prefix: str) -> Iterator[str]:
    """Dotted names of the fields that a record has and its type has not; Arrow would drop them silently."""
    types = {field.name: field.type for field in kind}
    for name, inner in value.items():
        if name not in types:
            yield prefix + name
            continue
        nested = types[name]
        several = pa.types.is_list(nested)
        nested = nested.value_type if several else nested
        if pa.types.is_struct(nested):
            for each in inner if several and isinstance(inner, list) else [inner]:
                if isinstance(each, dict):
                    yield from _find_unknown_fields(each, nested, f"{prefix}{name}.")


def extract_rows(table: pa.Table | pa.RecordBatch, schema: pa.Schema) -> list[Any]:
    """Arrow -> records with every field of `schema`: what a file of an older version lacks is null.

    Call `check_columns` first: it tells an older file from a wrong one.
    """
    rows: list[Any] = table.to_pylist()
    known = {field.name: field.type for field in table.schema}
    if any(
        name not in known or not _is_same_type(known[name], schema.field(name).type) for name in schema.names
    ):
        for row in rows:
            _fill_missing_fields(row, schema)
    return rows


def _fill_missing_fields(value: dict[str, Any], kind: Iterable[pa.Field]) -> None:
    for field in kind:
        inner = value.setdefault(field.name, None)
        nested = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_struct(nested):
            for each in inner if isinstance(inner, list) else [inner]:
                if isinstance(each, dict):
                    _fill_missing_fields(each, nested)


def check_columns(found: pa.Schema, wanted: pa.Schema, where: str) -> None:
    """Hold a file's columns against a table's. Further columns, and another order, are fine, and so is a file
    of an older version of the schema: see `to_rows`.

    Raises:
        RepriseError: naming `where`, the missing columns and those of another type; or the file was written
            by a newer version.
    """
    version = (found.metadata or {}).get(b"reprise.schema", SCHEMA_VERSION.encode()).decode()
    if version.isdigit() and int(version) > int(SCHEMA_VERSION):
        raise RepriseError(
            f"{where} has version {version} of the schema, and {SCHEMA_VERSION} is known here: update Reprise"
        )
    wanted = _select_version(wanted, version)
    missing = [name for name in wanted.names if name not in found.names]
    if missing:
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise RepriseError(f"{where} has no column {names}: is it a Reprise clip table?")
    for name in wanted.names:
        if not _is_same_type(found.field(name).type, wanted.field(name).type):
            difference = _describe_difference(found.field(name).type, wanted.field(name).type, name)
            raise RepriseError(f"{where}: {difference}; it was written by another version of the schema")


def _select_version(schema: pa.Schema, version: str) -> pa.Schema:
    """The schema without what was added after a version."""
    if not version.isdigit():
        return schema
    later = frozenset().union(*(names for since, names in _ADDED_FIELDS.items() if int(since) > int(version)))
    return pa.schema(_remove_fields(schema, later, "")) if later else schema


def _remove_fields(fields: Iterable[pa.Field], later: frozenset[str], prefix: str) -> list[pa.Field]:
    found = []
    for field in fields:
        name = prefix + field.name
        if name in later:
            continue
        kind = field.type
        several = pa.types.is_list(kind)
        nested = kind.value_type if several else kind
        if pa.types.is_struct(nested):
            nested = pa.struct(_remove_fields(nested, later, f"{name}."))
            kind = pa.list_(nested) if several else nested
        found.append(pa.field(field.name, kind))
    return found


def _describe_difference(found: pa.DataType, wanted: pa.DataType, column: str) -> str:
    """Where two types differ: a nested type spelled out in full would fill a screen."""
    if pa.types.is_list(found) and pa.types.is_list(wanted):
        return _describe_difference(found.value_type, wanted.value_type, column)
    if pa.types.is_struct(found) and pa.types.is_struct(wanted):
        here, there = {f.name: f.type for f in found}, {f.name: f.type for f in wanted}
        for name in there:
            if name not in here:
                return f"column {column} has no field {name}"
            if not _is_same_type(here[name], there[name]):
                return _describe_difference(here[name], there[name], f"{column}.{name}")
        return f"column {column} has fields {', '.join(here)}, expected {', '.join(there)}"
    return f"column {column} is {found}, expected {wanted}"


def _is_same_type(left: pa.DataType, right: pa.DataType) -> bool:
    """Equal but for the name that Parquet gives a list's items."""
    if pa.types.is_list(left) and pa.types.is_list(right):
        return _is_same_type(left.value_type, right.value_type)
    if pa.types.is_struct(left) and pa.types.is_struct(right):
        return [f.name for f in left] == [f.name for f in right] and all(
            _is_same_type(a.type, b.type) for a, b in zip(left, right, strict=True)
        )
    return bool(left.equals(right))
