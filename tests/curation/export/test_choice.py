"""Which clips, subjects and pictures go: pure decisions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.export.captions import tag_caption
from curation.export.config import ExportReferencesConfig
from curation.export.needs import FrameRule, VideoNeeds
from curation.export.plan import choose_split
from curation.export.references import draw_references
from curation.export.video_plan import VideoPlan, fit_size, plan_video
from curation.export.where import RowCondition
from reprise.errors import ConfigError


def make_subject(name: str, variants: dict[str, int]) -> dict[str, Any]:
    references = [
        {"reference_id": f"{name}-{variant}{n}", "variant": variant, "kept": True}
        for variant, count in variants.items()
        for n in range(count)
    ]
    return {"subject_id": name, "references": references}


# --- frames and sizes ---------------------------------------------------------------------------------


@given(st.integers(1, 2000), st.sampled_from([(1, 0), (4, 1), (8, 1), (17, 5)]))
def test_a_length_is_the_longest_of_its_rule(available: int, rule: tuple[int, int]) -> None:
    step, offset = rule
    length = FrameRule(step, offset).choose_length(available)
    allowed = [n for n in range(1, available + 1) if (n - offset) % step == 0 and n >= offset]
    assert length == (max(allowed) if allowed else None)


def test_a_clip_that_is_all_that_is_wanted_goes_as_it_is() -> None:
    plan = plan_video(VideoNeeds(fps=24, frames=FrameRule(17, 5, 124, 345), multiple=32), 640, 352, 24.0, 141)
    assert isinstance(plan, VideoPlan) and plan.as_is and plan.frames == 141


def test_another_rate_changes_the_number_of_frames() -> None:
    plan = plan_video(VideoNeeds(fps=24, frames=FrameRule(17, 5, 124, 345), multiple=32), 640, 360, 30.0, 180)
    assert isinstance(plan, VideoPlan)
    # 180 frames at 30 per second show the ticks 0..143 of 24 per second; 141 = 17 * 8 + 5 of them go.
    assert (plan.frames, plan.start, plan.width, plan.height, plan.as_is) == (141, 1, 640, 352, False)


def test_a_clip_that_is_too_short_says_what_is_needed() -> None:
    assert plan_video(VideoNeeds(fps=24, frames=FrameRule(17, 5, 124, 345)), 640, 360, 30.0, 90) == (
        "too short: 72 frames at 24 per second; needs 17n+5 frames, 124 to 345"
    )


@given(
    st.integers(64, 4000), st.integers(64, 4000), st.sampled_from([1, 2, 16, 32]), st.integers(20_000, 10**6)
)
def test_sizes_shrink_to_the_grid_and_keep_their_shape(
    width: int, height: int, multiple: int, area: int
) -> None:
    size = fit_size(width, height, multiple, area)
    if size is None:
        return
    assert size[0] <= width and size[1] <= height and size[0] * size[1] <= area
    assert all(side % multiple == 0 for side in size)
    step = max(2, multiple)
    scale = min(1.0, (area / (width * height)) ** 0.5)
    assert all(scale * side - got < step for side, got in zip((width, height), size, strict=True))


# --- references ---------------------------------------------------------------------------------------


def test_variants_are_drawn_by_their_shares() -> None:
    everything = dict.fromkeys(("crop", "segment", "inpaint", "redux"), 1)
    config = ExportReferencesConfig(shares={"crop": 1, "segment": 5, "inpaint": 3, "redux": 1})
    drawn = Counter(
        each.variant
        for n in range(4000)
        for each in draw_references([make_subject(f"s{n}", everything)], config, 0, None)
    )
    for variant, share in {"crop": 0.1, "segment": 0.5, "inpaint": 0.3, "redux": 0.1}.items():
        assert drawn[variant] / 4000 == pytest.approx(share, abs=0.03)


def test_a_draw_depends_on_the_subject_alone() -> None:
    config = ExportReferencesConfig(per_subject=2)
    one, two = make_subject("a", {"crop": 2, "segment": 1}), make_subject("b", {"redux": 1, "crop": 1})
    alone = draw_references([one], config, 7, None)
    assert draw_references([two, one], config, 7, None)[-len(alone) :] == alone


def test_each_subject_keeps_a_picture_before_any_keeps_two() -> None:
    subjects = [make_subject(name, {"crop": 3, "segment": 3}) for name in "abc"]
    drawn = draw_references(subjects, ExportReferencesConfig(per_subject=3), 0, 4)
    assert Counter(each.subject_id for each in drawn) == {"a": 2, "b": 1, "c": 1}


def test_a_variant_without_a_share_never_goes() -> None:
    subject = make_subject("a", {"retrieved": 4})
    assert draw_references([subject], ExportReferencesConfig(per_subject=3), 0, None) == []


# --- captions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrases", "tagged"),
    [
        (["a dog", "the man"], "A dog [1] and a dog near the man [2]."),
        (["a dog", "a dog"], "A dog [1] and a dog [2] near the man."),
        (["dog near", "near the"], "A dog and a dog near [1] the man."),
        (["horse"], "A dog and a dog near the man."),
        ([], "A dog and a dog near the man."),
    ],
)
def test_tags_stand_behind_their_phrases(phrases: list[str], tagged: str) -> None:
    assert tag_caption("A dog and a dog near the man.", phrases, "{phrase} [{number}]") == tagged


# --- conditions ---------------------------------------------------------------------------------------

TABLE = pa.Table.from_pylist(
    [
        {
            "clip_id": f"c{n}",
            "width": 100 * n,
            "caption": "A dog.",
            "subjects": [
                {
                    "subject_id": f"c{n}-s{k}",
                    "category": "dog" if k else "cat",
                    "scores": {"sharpness": 10.0 * n},
                }
                for k in range(n)
            ],
        }
        for n in range(4)
    ]
)


def test_conditions_choose_clips_and_subjects() -> None:
    with RowCondition(
        "width >= 200 AND len(subjects) < 3", "category = 'dog' AND scores.sharpness > 15"
    ) as found:
        clips, subjects = found.select(TABLE)
    assert clips == {2}
    assert subjects == {(2, "c2-s1"), (3, "c3-s1"), (3, "c3-s2")}


def test_without_conditions_everything_is_chosen() -> None:
    with RowCondition(None, None) as found:
        assert found.select(TABLE) == (None, None)


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("widht > 3", "widht"),
        ("width >", "not an SQL condition"),
        ("1=1); DROP TABLE clips; --", "not an SQL condition"),
        ("1=1); SELECT (1", "one condition"),
        ("clip_id IN (SELECT content FROM read_text('/etc/hostname'))", "disabled"),
        ("clip_id IN (SELECT * FROM '/etc/hostname')", "hostname"),
        ("clip_id = getenv('HOME')", "getenv"),
    ],
)
def test_a_bad_condition_is_one_line(condition: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error, RowCondition(condition, None) as found:
        found.select(TABLE)
    assert "\n" not in str(error.value) and str(error.value).startswith("where")


# --- splits -------------------------------------------------------------------------------------------


def test_the_clips_of_a_video_stay_together_and_the_share_holds() -> None:
    sides = [choose_split(f"video{n}", 0.2, 0) for n in range(5000)]
    assert sides == [choose_split(f"video{n}", 0.2, 0) for n in range(5000)]
    assert sides.count("validation") / 5000 == pytest.approx(0.2, abs=0.02)
