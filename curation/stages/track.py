"""Track subjects through their clips, and choose the frames that show them best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from curation.config import CurationConfig
from curation.filters.embeddings import compute_similarity
from curation.filters.geometry import measure_cut_share
from curation.filters.quality import measure_sharpness
from curation.filters.reference_frames import Sighting, choose_frames
from curation.imaging.codec import RGB, decode_image, decode_mask
from curation.imaging.cutout import composite_on_white, make_cutout
from curation.models import registry
from curation.models.roles import ImageEmbedder, SubjectTrack, Tracker
from curation.rows.schema import ClipRow, ReferenceFrame, SubjectRow
from curation.rows.stage_names import TRACK

_PADDING = 0.1  # around the embedded cut-outs, share of the box's sides; references have the same


class Track:
    """Tracks every found subject over the sampled frames, from the frame in which the detector found it.

    The best frame of the track replaces the detector's frame, so that later stages measure there.
    Further frames with other poses give further references. If no backend is configured for the role
    `tracker`, a subject stays in the frame in which it was found.
    """

    name = TRACK

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._loaded = False

    def _load_models(self) -> None:
        self._tracker: Tracker | None = registry.load_backend(self._config, "tracker")
        # With a single reference frame there is nothing to compare.
        several = self._tracker is not None and self._config.track.references > 1
        self._embedder: ImageEmbedder | None = (
            registry.load_backend(self._config, "embedder") if several else None
        )
        self._loaded = True

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Track every found subject, and move it to the frame that shows it best."""
        if not self._loaded:
            self._load_models()
        for row in rows:
            for subject in row["subjects"]:
                reset_subject(subject)
            if self._tracker is not None:
                self._track_subjects(row, self._tracker)

    def _track_subjects(self, row: ClipRow, tracker: Tracker) -> None:
        starts: dict[int, list[SubjectRow]] = defaultdict(list)
        for subject in row["subjects"]:
            if subject["found_index"] is not None and subject["found_box"] is not None:
                starts[subject["found_index"]].append(subject)
        if not starts:
            return
        images = [decode_image(frame["image"]) for frame in row["frames"]]
        indices = [frame["index"] for frame in row["frames"]]
        for start, subjects in starts.items():
            if start not in indices:
                raise ValueError(f"frame {start} of {row['clip_id']} was freed")
            boxes = [subject["found_box"] or [] for subject in subjects]
            for subject, found in zip(
                subjects, tracker.track(images, indices.index(start), boxes), strict=True
            ):
                self._store_track(subject, found, images, indices)
                registry.record_model(subject, "tracker", tracker)

    def _store_track(
        self, subject: SubjectRow, found: SubjectTrack, images: Sequence[RGB], indices: Sequence[int]
    ) -> None:
        subject["track"] = [
            {"index": index, "box": box, "mask": mask, "presence": float(presence)}
            for index, box, mask, presence in zip(
                indices, found.boxes, found.masks, found.presence, strict=True
            )
        ]
        subject["scores"]["visible_share"] = found.visible_share
        sightings = self._build_sightings(found, images)
        settings = self._config.track
        choices = choose_frames(sightings, settings.references, settings.min_quality, settings.min_difference)
        if not choices:
            return  # the tracker lost the subject, so it keeps the detector's frame
        seen = {each.frame: each for each in sightings}
        first = seen[choices[0].frame]
        subject["reference_frames"] = [
            _build_reference_frame(
                indices[each.frame],
                each.quality,
                each.difference,
                _compare_sightings(first, seen[each.frame]),
            )
            for each in choices
        ]
        subject["frame_index"], subject["box"] = indices[first.frame], first.box
        if self._embedder is not None:
            registry.record_model(subject, "embedder", self._embedder)

    def _build_sightings(self, found: SubjectTrack, images: Sequence[RGB]) -> list[Sighting]:
        """Build a sighting for each frame that shows the subject, with embeddings if there is an embedder."""
        sightings, cuts = [], []
        for frame, (box, rle) in enumerate(zip(found.boxes, found.masks, strict=True)):
            if box is None or rle is None:
                continue
            mask = decode_mask(rle)
            sightings.append(
                Sighting(
                    frame=frame,
                    box=box,
                    area=float(mask.sum()),
                    sharpness=measure_sharpness(images[frame], mask),
                    border=measure_cut_share(mask),
                    presence=found.presence[frame],
                )
            )
            if self._embedder is not None:
                cuts.append(composite_on_white(make_cutout(images[frame], mask, _PADDING)[1]))
        if self._embedder is None or not cuts:
            return sightings
        vectors = self._embedder.embed(cuts)
        return [
            replace(each, embedding=np.asarray(vector, np.float32))
            for each, vector in zip(sightings, vectors, strict=True)
        ]


def reset_subject(subject: SubjectRow) -> None:
    """Restore the detector's result of a subject, so that a new tracking starts from the same box."""
    if subject["found_index"] is None:  # a row of an older schema without tracks
        subject["found_index"], subject["found_box"] = subject["frame_index"], subject["box"]
    moved = subject["track"] is not None
    subject["track"] = subject["reference_frames"] = None
    subject["scores"].pop("visible_share", None)
    if moved:
        subject["frame_index"], subject["box"] = subject["found_index"], subject["found_box"]
        subject["mask"] = None  # it was of the other frame


def _build_reference_frame(
    index: int, quality: float, difference: float, identity: float | None
) -> ReferenceFrame:
    return {"index": index, "quality": quality, "difference": difference, "identity": identity}


def _compare_sightings(first: Sighting, other: Sighting) -> float | None:
    if first.embedding is None or other.embedding is None:
        return None
    return compute_similarity(first.embedding, other.embedding)
