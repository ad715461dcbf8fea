"""What was made of a subject is held against it; what has drifted is marked, with its number, not dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from curation.config import CurationConfig, InpaintConfig
from curation.imaging.codec import RGB, BoolMask, decode_image
from curation.imaging.cutout import RGBA
from curation.models import registry
from curation.models.roles import Face
from curation.rows.schema import CLIPS, ClipRow, Reference
from curation.rows.tables import build_table
from curation.rows.thresholds import Thresholds, build_rules
from curation.rows.verdicts import decide_clip, decide_reference
from curation.stages.identity_check import IdentityCheck, IdentityPair, IdentityScores, compare_largest_faces
from curation.stages.inpaint import Inpaint
from curation.stages.redux import Redux
from tests.curation.subjects import BLUE, GREY, RED, ball_clip, painted, scene


class MeanColour:
    name, revision = "mean-colour", "1"

    def embed(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        rows = []
        for image in images:
            seen = image[image.min(axis=2) < 240].astype(np.float32)
            mean = seen.mean(axis=0) if len(seen) else np.zeros(3, np.float32)
            rows.append(mean / max(1.0, float(np.linalg.norm(mean))))
        return np.array(rows, np.float32)


class ColourFaces:
    """The whole picture is a face, whose identity is its colour."""

    name, revision = "colour-faces", "1"

    def detect_faces(self, images: Sequence[RGB]) -> list[list[Face]]:
        vectors = MeanColour().embed(images)
        return [
            [Face([0, 0, image.shape[1], image.shape[0]], 0.9, 1.0, embedding=vector)]
            for image, vector in zip(images, vectors, strict=True)
        ]


class Recolour:
    """A variator that generates: everything in one colour, opaque."""

    name, revision = "recolour", "1"

    def __init__(self, colour: tuple[int, int, int]) -> None:
        self.colour = colour

    def vary(
        self, subjects: Sequence[RGBA], prompts: Sequence[str | None], seeds: Sequence[int]
    ) -> list[RGBA]:
        opaque = np.full((40, 40), 255, np.uint8)
        return [np.dstack([scene(self.colour, seed % 9, (40, 40)), opaque]) for seed in seeds]


class Repaint:
    """An inpainter that paints new content and records its requests."""

    name, revision, paints_around = "repaint", "1", True

    def __init__(self, colour: tuple[int, int, int]) -> None:
        self.colour = colour
        self.requests: list[tuple[RGB, BoolMask, str | None]] = []

    def inpaint(
        self,
        images: Sequence[RGB],
        masks: Sequence[BoolMask],
        prompts: Sequence[str | None],
        seeds: Sequence[int],
    ) -> list[RGB]:
        self.requests += zip(images, masks, prompts, strict=True)
        return [
            painted(image, mask, self.colour, seed % 9)
            for image, mask, seed in zip(images, masks, seeds, strict=True)
        ]


Backends = dict[str, Any]


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Backends:
    """Role -> backend; a test fills it."""
    answering: Backends = {"embedder": MeanColour()}
    monkeypatch.setattr(registry, "load_backend", lambda config, role: answering.get(role))
    return answering


def config(**changes: Any) -> CurationConfig:
    return CurationConfig.model_validate(changes)


def list_references(row: ClipRow, variant: str) -> list[Reference]:
    found = [each for subject in row["subjects"] for each in subject["references"]]
    return [each for each in found if each["variant"] == variant]


def test_one_that_is_still_itself_is_kept(backends: Backends) -> None:
    backends["variator"] = Recolour(RED)
    row = ball_clip("a")
    Redux(config())([row])
    (reference,) = list_references(row, "redux")
    assert reference["identity"] == pytest.approx(1, abs=0.01)
    assert (reference["kept"], reference["reason"]) == (True, None)
    assert reference["face_identity"] is None  # a ball has none
    build_table([row], CLIPS)


def test_one_that_has_drifted_stays_with_its_number(backends: Backends) -> None:
    backends["variator"] = Recolour(BLUE)
    row = ball_clip("a")
    Redux(config(redux={"per_subject": 2}))([row])
    references = list_references(row, "redux")
    assert len(references) == 2
    for reference in references:
        assert reference["identity"] is not None
        assert reference["identity"] < 0.5
        assert (reference["kept"], reference["reason"]) == (False, "identity_min")
        assert reference["image"]["bytes"]


def test_without_an_embedder_references_are_unmeasured_and_kept(backends: Backends) -> None:
    backends["variator"] = Recolour(BLUE)
    del backends["embedder"]
    row = ball_clip("a")
    Redux(config())([row])
    (reference,) = list_references(row, "redux")
    assert reference["identity"] is None
    assert reference["kept"]


def test_a_human_must_keep_the_face(backends: Backends) -> None:
    backends["variator"] = Recolour(BLUE)
    backends["faces"] = ColourFaces()
    row = ball_clip("a", group="human")
    Redux(config(filter={"identity_min": None, "face_identity_min": 0.5}))([row])
    (reference,) = list_references(row, "redux")
    assert reference["face_identity"] is not None
    assert reference["face_identity"] < 0.5
    assert (reference["kept"], reference["reason"]) == (False, "face_identity_min")


def test_a_refilter_decides_again_from_the_numbers(backends: Backends) -> None:
    backends["variator"] = Recolour(BLUE)
    row = ball_clip("a")
    Redux(config())([row])
    number = list_references(row, "redux")[0]["identity"]
    assert number is not None
    decide_clip(row, build_rules(Thresholds(identity_min=number - 0.01)))
    assert list_references(row, "redux")[0]["kept"]
    decide_clip(row, build_rules(Thresholds(identity_min=number + 0.01)))
    assert list_references(row, "redux")[0]["reason"] == "identity_min"
    decide_clip(row, build_rules(Thresholds(identity_min=None)))
    assert list_references(row, "redux")[0]["kept"]


def test_a_threshold_for_pictures_does_not_apply_to_subjects() -> None:
    row = ball_clip("a")
    decide_clip(row, build_rules(Thresholds()))
    verdict = row["subjects"][0]["verdict"]
    assert verdict is not None
    assert not any("identity" in name for name in [*verdict["unmeasured"], *verdict["failures"]])


@pytest.mark.parametrize(
    ("number", "kept"), [(0.5, True), (0.49, False), (None, True), (float("nan"), True), (-1.0, False)]
)
def test_equal_passes_and_unmeasured_passes(number: float | None, kept: bool) -> None:
    row = ball_clip("a")
    reference: Any = {"identity": number, "face_identity": None}
    active = build_rules(Thresholds(identity_min=0.5))
    assert decide_reference(reference, row["subjects"][0], active)[0] is kept


def test_a_face_threshold_concerns_humans_only() -> None:
    reference: Any = {"identity": None, "face_identity": 0.1}
    active = build_rules(Thresholds())
    assert decide_reference(reference, ball_clip("a")["subjects"][0], active) == (True, None)
    human = ball_clip("a", group="human")["subjects"][0]
    assert decide_reference(reference, human, active) == (False, "face_identity_min")


def test_one_that_invents_sees_the_subject_and_paints_around_it(backends: Backends) -> None:
    backends["inpainter"] = painter = Repaint(BLUE)
    row = ball_clip("a")
    Inpaint(config(inpaint={"per_subject": 3}))([row])
    references = list_references(row, "inpaint")
    assert len(references) == 3
    image, mask, prompt = painter.requests[0]
    assert not mask[mask.shape[0] // 2, mask.shape[1] // 2]  # the ball is not painted over
    assert image[mask.shape[0] // 2, mask.shape[1] // 2, 0] > 150  # and can be seen
    assert mask[0].all()
    for reference, (_, _, used_prompt) in zip(references, painter.requests, strict=True):
        assert reference["prompt"] == used_prompt
        assert used_prompt in [text.replace("{subject}", "red ball") for text in InpaintConfig().prompts]
        picture = decode_image(reference["image"]).astype(int)
        middle, corner = picture[picture.shape[0] // 2, picture.shape[1] // 2], picture[2, 2]
        assert middle[0] > 150 > middle[2]
        assert corner[2] > 150 > corner[0]
    assert prompt is not None


def test_the_subject_is_put_back_untouched(backends: Backends) -> None:
    backends["inpainter"] = painter = Repaint(BLUE)
    before = ball_clip("a")
    Inpaint(config())([before])
    image, mask, _ = painter.requests[0]
    picture = decode_image(list_references(before, "inpaint")[0]["image"]).astype(int)
    # The stored picture is a JPEG, whose colours bleed a few pixels; further in, only its noise is left.
    deep = cv2.erode((~mask).astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
    assert deep.sum() > 1000
    assert np.abs(picture[deep] - image[deep]).mean() < 4
    assert np.abs((picture[deep] - image[deep]).mean(axis=0)).max() < 0.5


def test_a_generated_background_is_held_against_the_subject(backends: Backends) -> None:
    backends["inpainter"] = Repaint(GREY)
    row = ball_clip("a")
    Inpaint(config(filter={"identity_min": 0.999}))([row])
    (reference,) = list_references(row, "inpaint")
    assert reference["identity"] is not None
    assert 0.8 < reference["identity"] < 0.999
    assert (reference["kept"], reference["reason"]) == (False, "identity_min")


def test_an_inpainter_that_continues_its_input_gets_the_rim_and_no_prompt(backends: Backends) -> None:
    class Continue(Repaint):
        paints_around = False

    backends["inpainter"] = painter = Continue(BLUE)
    row = ball_clip("a")
    Inpaint(config())([row])
    _, mask, prompt = painter.requests[0]
    assert mask[3:-3, 3:-3].all()
    assert not mask[:2].any()
    assert prompt is None
    (reference,) = list_references(row, "inpaint")
    assert (reference["identity"], reference["prompt"]) == (None, None)
    assert reference["kept"]


def test_faces_without_identities_measure_nothing() -> None:
    plain = Face([0, 0, 9, 9], 0.9, 1.0)
    known = Face([0, 0, 5, 5], 0.9, 1.0, embedding=np.array([1, 0], np.float32))
    assert compare_largest_faces([], [known]) is None
    assert compare_largest_faces([plain], [known]) is None
    assert compare_largest_faces([known], [known]) == pytest.approx(1)
    assert compare_largest_faces([plain, known], [known]) is None  # the larger one counts


def test_scores_of_pairs_are_in_order(backends: Backends) -> None:
    backends["faces"] = ColourFaces()
    red, blue = scene(RED), scene(BLUE)
    pairs = [
        IdentityPair(red, blue, "sport"),
        IdentityPair(red, red, "human"),
        IdentityPair(blue, red, "human"),
    ]
    first, second, third = IdentityCheck(config()).measure_pairs(pairs)
    assert first.face is None
    assert first.image is not None
    assert second.image == pytest.approx(1, abs=1e-3)
    assert second.face == pytest.approx(1, abs=1e-3)
    assert third.face is not None
    assert third.face < 0.4
    assert IdentityCheck(config()).measure_pairs([]) == []
    assert IdentityScores() == IdentityScores(None, None)
