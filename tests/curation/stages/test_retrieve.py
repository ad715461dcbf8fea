"""The same subject in another clip: the donors, their subjects, and the columns of the reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from curation.config import CurationConfig, RetrieveConfig
from curation.imaging.codec import RGB, decode_image, encode_image
from curation.rows.schema import CLIPS, ClipRow, Reference
from curation.rows.tables import build_table
from curation.stages.donors import SubjectEmbedding, embed_subjects, find_donors, is_drawn
from curation.stages.retrieve import FoundDonors, Retrieve
from tests.curation.subjects import BLUE, RED, ball_clip, disc, scene, subject_row


class MeanColour:
    """Embeds the mean colour of the pixels that are not white."""

    name, revision = "mean-colour", "3"

    def embed(self, images: Sequence[RGB]) -> NDArray[np.float32]:
        rows = []
        for image in images:
            seen = image[image.min(axis=2) < 240].astype(np.float32)
            rows.append(seen.mean(axis=0) / np.linalg.norm(seen.mean(axis=0)))
        return np.array(rows, np.float32)


def make_config(**chosen: object) -> CurationConfig:
    return CurationConfig.model_validate({"retrieve": {"share": 1.0, **chosen}})


CONFIG = make_config()


def make_embedding(
    name: str, angle: float, *, clip: str = "", video: str = "", category: str = "ball"
) -> SubjectEmbedding:
    """A subject whose similarity with another is the cosine of the difference of their angles (degrees)."""
    vector = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], np.float32)
    return SubjectEmbedding(name, clip or f"clip of {name}", video or f"video of {name}", category, vector)


def test_alike_enough_but_no_copy() -> None:
    subjects = [
        make_embedding("a", 0),
        make_embedding("copy", 2),
        make_embedding("same", 30),
        make_embedding("other", 80),
    ]
    found = find_donors(subjects, CONFIG)
    assert found["a"].subject_id == "same"
    assert found["a"].similarity == pytest.approx(np.cos(np.radians(30)), abs=1e-4)
    assert found["a"].clip_id == "clip of same"
    assert found["other"].subject_id == "same"  # 50 degrees: 0.64
    assert (
        find_donors([make_embedding("a", 0), make_embedding("copy", 2), make_embedding("other", 80)], CONFIG)
        == {}
    )


def test_the_most_alike_in_the_band_is_taken() -> None:
    found = find_donors(
        [make_embedding("a", 0), make_embedding("b", 45), make_embedding("c", 25), make_embedding("d", 35)],
        CONFIG,
    )
    assert found["a"].subject_id == "c"


def test_never_from_the_own_clip() -> None:
    assert (
        find_donors([make_embedding("a", 0, clip="one"), make_embedding("b", 30, clip="one")], CONFIG) == {}
    )


def test_the_own_video_can_be_left_out() -> None:
    subjects = [make_embedding("a", 0, video="v"), make_embedding("b", 30, video="v")]
    assert set(find_donors(subjects, CONFIG)) == {"a", "b"}
    assert find_donors(subjects, make_config(same_video=False)) == {}


def test_a_cat_is_no_donor_for_a_dog() -> None:
    assert (
        find_donors([make_embedding("a", 0, category="cat"), make_embedding("b", 30, category="dog")], CONFIG)
        == {}
    )


def test_the_order_of_subjects_changes_nothing() -> None:
    random = np.random.default_rng(0)
    subjects = [make_embedding(f"s{n}", float(angle)) for n, angle in enumerate(random.uniform(0, 90, 60))]
    shuffled = [subjects[position] for position in random.permutation(60)]
    assert find_donors(subjects, CONFIG) == find_donors(shuffled, CONFIG)


def test_a_share_of_the_subjects_is_drawn() -> None:
    some = make_config(share=0.3)
    drawn = [name for n in range(500) if is_drawn(some, name := f"subject {n}")]
    assert 110 < len(drawn) < 190
    assert find_donors([make_embedding("a", 0), make_embedding("b", 30)], make_config(share=0)) == {}


def test_a_band_without_room_is_refused() -> None:
    with pytest.raises(ValidationError, match="nothing could be found"):
        RetrieveConfig(same_min=0.9, copy_min=0.8)


def test_only_kept_subjects_are_looked_at() -> None:
    row = ball_clip("a")
    row["subjects"].append(subject_row("a", disc(30, 30, 9), phrase="blurred", failures=["sharpness_min"]))
    (found,) = embed_subjects([row], MeanColour())
    assert found.subject_id == row["subjects"][0]["subject_id"]
    assert (found.clip_id, found.video_id, found.category) == ("a", "video of a", "ball")
    assert found.vector[0] > 0.9  # red: nothing of the grey around it
    freed = ball_clip("b")
    freed["frames"] = []
    assert embed_subjects([freed, row], MeanColour())[0].clip_id == "a"
    assert embed_subjects([], MeanColour()) == []


def list_retrieved(row: ClipRow) -> list[Reference]:
    found = [each for subject in row["subjects"] for each in subject["references"]]
    return [each for each in found if each["variant"] == "retrieved"]


def library(rows: list[ClipRow], requested: list[str] | None = None) -> FoundDonors:
    """Matches among some rows, found by their colours."""

    def fetch(clip_ids: Sequence[str]) -> Iterable[ClipRow]:
        if requested is not None:
            requested.extend(clip_ids)
        return [row for row in rows if row["clip_id"] in clip_ids]

    found = find_donors(embed_subjects(rows, MeanColour()), CONFIG)
    return FoundDonors(MeanColour.name, MeanColour.revision, found, fetch)


def three() -> list[ClipRow]:
    return [ball_clip("red", RED), ball_clip("orange", (200, 110, 20)), ball_clip("blue", BLUE)]


def test_the_row_records_the_donor_and_the_similarity() -> None:
    rows = three()
    requested: list[str] = []
    Retrieve(CONFIG, library(rows, requested))(rows)
    (made,) = list_retrieved(rows[0])
    assert (made["donor_clip_id"], made["donor_frame_index"]) == ("orange", 0)
    assert (made["model"], made["revision"]) == ("mean-colour", "3")
    assert made["identity"] is not None
    assert 0.6 <= made["identity"] < 0.95
    assert made["kept"]
    picture = decode_image(made["image"])
    assert picture[picture.shape[0] // 2, picture.shape[1] // 2, 1] > 80  # the orange one
    assert np.abs(picture[1, 1].astype(int) - 128).max() < 30  # where the donor stood
    assert list_retrieved(rows[2]) == []
    assert requested == ["orange", "red"]
    build_table(rows, CLIPS)


def test_again_gives_the_same_and_leaves_one() -> None:
    rows = three()
    stage = Retrieve(CONFIG, library(rows))
    stage(rows)
    first = list_retrieved(rows[0])
    stage(rows[:1])
    assert list_retrieved(rows[0]) == first
    Retrieve(make_config(share=0), library(rows))(rows)
    assert list_retrieved(rows[0]) == []


def test_a_removed_donor_fails_only_its_reference() -> None:
    rows = three()
    found = library(rows)
    gone = FoundDonors(found.model, found.revision, found.found, lambda clip_ids: [])
    Retrieve(CONFIG, gone)(rows)
    assert list_retrieved(rows[0]) == []
    broken = three()
    broken[1]["frames"][0]["image"] = {"bytes": b"", "path": None}
    Retrieve(CONFIG, FoundDonors("e", "1", found.found, lambda clip_ids: broken))(rows)
    assert list_retrieved(rows[0]) == []
    assert len(list_retrieved(rows[1])) == 1


def test_too_unlike_by_the_filters_threshold_is_marked_not_dropped() -> None:
    rows = three()
    strict = CurationConfig.model_validate({"filter": {"identity_min": 0.99}, "retrieve": {"share": 1.0}})
    Retrieve(strict, library(rows))(rows)
    (made,) = list_retrieved(rows[0])
    assert (made["kept"], made["reason"]) == (False, "identity_min")


def test_the_background_does_not_make_two_subjects_alike() -> None:
    plain, textured = ball_clip("a", RED), ball_clip("b", RED)
    image = scene((30, 200, 60), 5)
    image[disc(80, 70, 30)] = decode_image(plain["frames"][0]["image"])[disc(80, 70, 30)]
    textured["frames"][0]["image"] = encode_image(image)
    one, other = embed_subjects([plain, textured], MeanColour())
    assert float(one.vector @ other.vector) > 0.995
