"""Measure every subject that has a mask, then decide which subjects are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curation.config import CurationConfig
from curation.filters.category import measure_category
from curation.filters.faces import measure_faces, select_own_faces
from curation.filters.quality import measure_brightness, measure_sharpness
from curation.imaging.codec import RGB, BoolMask, decode_mask, pad_box
from curation.imaging.row_pictures import get_frame_image
from curation.models import registry
from curation.models.roles import FaceDetector, ImageTextScorer
from curation.rows.groups import HUMAN
from curation.rows.lifecycle import keep_needed_frames
from curation.rows.schema import ClipRow, SubjectRow
from curation.rows.stage_names import FILTER
from curation.rows.thresholds import build_rules
from curation.rows.verdicts import decide_clip
from curation.taxonomy import Taxonomy

_MARGIN = 0.1  # share of the box's sides; boxes of bodies often cut off hair that face detectors need
_CATEGORY_PROMPT = "a photo of a {}"


class Filter:
    """Measures subjects and compares them with thresholds (Kaleido 3.2 (4)).

    If no backend is configured for a role, its scores stay null and reject nothing.
    """

    name = FILTER

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._loaded = False

    def _load_models(self) -> None:
        self._faces: FaceDetector | None = registry.load_backend(self._config, "faces")
        self._scorer: ImageTextScorer | None = registry.load_backend(self._config, "scorer")
        self._categories = (
            list(Taxonomy.load(self._config.match.taxonomy).categories) if self._scorer is not None else []
        )
        self._rules = build_rules(self._config.filter)
        self._loaded = True

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        """Measure every subject that has a mask, and decide every row."""
        if not self._loaded:
            self._load_models()
        found: list[SubjectInFrame] = []
        for row in rows:
            decoded: dict[int, RGB] = {}
            for subject in row["subjects"]:
                index = subject["frame_index"]
                if index is None or subject["box"] is None or subject["mask"] is None:
                    continue
                if index not in decoded:
                    decoded[index] = get_frame_image(row, index)
                each = SubjectInFrame(subject, decoded[index], decode_mask(subject["mask"]))
                mean, clipped = measure_brightness(each.image, each.mask)
                subject["scores"].update(
                    {
                        "brightness": mean,
                        "clipped_share": clipped,
                        "sharpness": measure_sharpness(each.image, each.mask),
                    }
                )
                found.append(each)
        self._measure_faces([each for each in found if each.subject["group"] == HUMAN])
        self._measure_categories(found)
        for row in rows:
            decide_clip(row, self._rules)
            keep_needed_frames(row)

    def _measure_faces(self, humans: Sequence[SubjectInFrame]) -> None:
        if self._faces is None or not humans:
            return
        for each, faces in zip(humans, self._faces.detect_faces([each.crop for each in humans]), strict=True):
            x0, y0, x1, y1 = each.subject["box"] or [0.0] * 4
            own = select_own_faces(faces, each.crop_mask)
            each.subject["scores"].update(measure_faces(own, x1 - x0, y1 - y0))
            registry.record_model(each.subject, "faces", self._faces)

    def _measure_categories(self, found: Sequence[SubjectInFrame]) -> None:
        if self._scorer is None or not found:
            return
        texts = [_CATEGORY_PROMPT.format(category) for category in self._categories]
        scored = self._scorer.score([each.crop for each in found], texts)
        for each, probabilities in zip(found, scored, strict=True):
            scores = measure_category(probabilities, self._categories, each.subject["category"])
            each.subject["scores"].update(scores)
            registry.record_model(each.subject, "scorer", self._scorer)


@dataclass(frozen=True)
class SubjectInFrame:
    """A subject with its frame, (H, W, 3), and its mask, (H, W)."""

    subject: SubjectRow
    image: RGB
    mask: BoolMask

    @property
    def crop(self) -> RGB:
        """The part of the frame in the padded box of the subject."""
        rows, columns = self._window
        return self.image[rows, columns]

    @property
    def crop_mask(self) -> BoolMask:
        """The mask of the subject in the coordinates of `crop`."""
        rows, columns = self._window
        return self.mask[rows, columns]

    @property
    def _window(self) -> tuple[slice, slice]:
        height, width = self.image.shape[:2]
        x0, y0, x1, y1 = pad_box(self.subject["box"] or [], _MARGIN, width, height)
        return slice(y0, y1), slice(x0, x1)
