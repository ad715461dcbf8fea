"""From numbers and thresholds to keep or reject."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.config import FilterConfig
from curation.dataset.tally import tally_rows
from curation.imaging.row_pictures import add_reference
from curation.rows.lifecycle import stop_row
from curation.rows.schema import ClipRow, Reference, Scores, SubjectRow
from curation.rows.thresholds import Thresholds, build_rules
from curation.rows.verdicts import decide_clip, decide_subject
from tests.curation.clips import RULES, clip, disc, picture, subject

GOOD: dict[str, float] = {
    "grounding": 0.9,
    "label": 0.9,
    "segment": 0.9,
    "area_share": 0.2,
    "border_share": 0.0,
    "overlap_iou": 0.0,
    "overlap_containment": 0.0,
    "clip_category": 0.9,
    "clip_margin": 0.5,
    "brightness": 120.0,
    "clipped_share": 0.0,
    "sharpness": 300.0,
    "face_count": 1.0,
    "face_share": 0.1,
    "face_score": 0.9,
    "face_frontality": 0.9,
}
# What every rule needs to be seen: a value on its wrong side.
MISSED = {rule.name: rule.value * (0.9 if rule.bound == "min" else 1.1) for rule in RULES}
SWITCHED_ON = [rule.name for rule in RULES if rule.target == "subject"]
MASK = disc(("red", 0.5, 0.5, 0.3))


def person(group: str = "human", **scores: float | None) -> SubjectRow:
    return subject(clip(), MASK, group=group, scores={**GOOD, **scores})


def test_scores_and_thresholds_name_each_other() -> None:
    for name in Thresholds.model_fields:
        score, _, bound = name.rpartition("_")
        assert score in Scores.__annotations__ or score in Reference.__annotations__, name
        assert bound in ("min", "max"), name
    of_subjects = {rule.score for rule in RULES if rule.target == "subject"}
    off = {"clip_margin", "visible_share", "flow_foreground", "flow_background"}
    assert of_subjects | off == set(Scores.__annotations__)


def test_every_threshold_has_a_source() -> None:
    for rule in RULES:
        assert any(word in rule.source for word in ("Kaleido", "OpenS2V-5M", "ours")), rule.name


def test_a_good_subject_is_kept() -> None:
    verdict = decide_subject(person(), RULES)
    assert verdict == {
        "kept": True,
        "reason": None,
        "value": None,
        "threshold": None,
        "failures": [],
        "unmeasured": [],
    }


@pytest.mark.parametrize("name", SWITCHED_ON)
def test_each_threshold_rejects_on_its_own(name: str) -> None:
    rule = next(each for each in RULES if each.name == name)
    verdict = decide_subject(person(**{rule.score: MISSED[name]}), RULES)
    assert not verdict["kept"]
    assert (verdict["reason"], verdict["failures"]) == (name, [name])
    assert (verdict["value"], verdict["threshold"]) == (MISSED[name], rule.value)


@pytest.mark.parametrize("name", SWITCHED_ON)
def test_a_value_on_the_threshold_passes(name: str) -> None:
    rule = next(each for each in RULES if each.name == name)
    assert decide_subject(person(**{rule.score: rule.value}), RULES)["kept"]


@pytest.mark.parametrize("name", SWITCHED_ON)
def test_null_switches_a_threshold_off(name: str) -> None:
    score = name.rpartition("_")[0]
    off = build_rules(FilterConfig.model_validate({name: None}))
    verdict = decide_subject(person(**{score: MISSED[name]}), off)
    assert name not in verdict["failures"]
    assert name not in verdict["unmeasured"]


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize("score", list(GOOD))
def test_what_was_not_measured_never_rejects(score: str, missing: float | None) -> None:
    verdict = decide_subject(person(**{score: missing}), RULES)
    assert verdict["kept"]
    assert verdict["unmeasured"] == [rule.name for rule in RULES if rule.score == score]


def test_the_first_threshold_missed_is_the_reason_and_all_are_listed() -> None:
    verdict = decide_subject(person(sharpness=1.0, grounding=0.1, brightness=3.0), RULES)
    assert verdict["reason"] == "grounding_min"
    assert verdict["failures"] == ["grounding_min", "brightness_min", "sharpness_min"]


def test_face_rules_are_for_humans_only() -> None:
    faceless = {"face_count": None, "face_share": None, "face_score": None, "face_frontality": None}
    dog = decide_subject(person("animal", **faceless), RULES)
    assert (dog["kept"], dog["unmeasured"]) == (True, [])
    assert decide_subject(person("animal", face_count=0.0), RULES)["kept"]
    assert len(decide_subject(person(**faceless), RULES)["unmeasured"]) == 5


def test_a_human_without_a_face_is_rejected_only_by_the_count() -> None:
    no_face = person(face_count=0.0, face_share=None, face_score=None, face_frontality=None)
    verdict = decide_subject(no_face, RULES)
    assert (verdict["failures"], verdict["unmeasured"]) == (["face_count_min"], [])
    off = build_rules(FilterConfig.model_validate({"face_count_min": None}))
    verdict = decide_subject(no_face, off)
    assert (verdict["kept"], verdict["unmeasured"]) == (True, [])


def test_what_was_never_found_or_has_no_mask_is_rejected_whatever_the_thresholds() -> None:
    none = build_rules(FilterConfig.model_validate(dict.fromkeys(Thresholds.model_fields)))
    assert none == []
    assert decide_subject(subject(clip(), None), none)["reason"] == "not found"
    assert decide_subject({**person(), "mask": None}, none)["reason"] == "no mask"
    assert decide_subject(person(area_share=0.0), none)["reason"] == "no mask"
    assert decide_subject(person(), none)["kept"]


scores_of = st.fixed_dictionaries(
    {
        name: st.one_of(st.none(), st.floats(0, 300 if name in ("brightness", "sharpness") else 2))
        for name in GOOD
        if name != "area_share"
    }
)


@st.composite
def draw_tightened(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Thresholds, and others of which each is as strict or stricter."""
    loose, tight = {}, {}
    for name, field in Thresholds.model_fields.items():
        top = 255.0 if name.startswith("brightness") else 1.0
        default = field.default if field.default is not None else 0.0
        # Lower bounds move in the lower half and upper ones in the upper, so that there is room between.
        low, high = (-0.0, min(default, top / 2)) if name.endswith("min") else (max(default, top / 2), top)
        one, other = sorted((draw(st.floats(low, high)), draw(st.floats(low, high))))
        loose[name], tight[name] = (one, other) if name.endswith("min") else (other, one)
        if draw(st.booleans()):
            loose[name] = None
    return loose, tight


@settings(max_examples=150, deadline=None)
@given(scores_of, draw_tightened(), st.sampled_from(["human", "animal"]))
def test_tightening_thresholds_never_keeps_more(
    scores: dict[str, float | None], thresholds: tuple[dict[str, Any], dict[str, Any]], group: str
) -> None:
    loose, tight = (build_rules(FilterConfig.model_validate(each)) for each in thresholds)
    row = person(group, **scores)
    kept_loose, kept_tight = (decide_subject(row, each) for each in (loose, tight))
    assert kept_loose["kept"] or not kept_tight["kept"]
    assert set(kept_loose["failures"]) <= set(kept_tight["failures"])


# ---- clips -----------------------------------------------------------------------------------------------


def row_with(*subjects: SubjectRow) -> ClipRow:
    row = clip()
    row["subjects"] = list(subjects)
    decide_clip(row, RULES)
    return row


def test_one_kept_subject_keeps_the_clip() -> None:
    row = row_with(person(sharpness=1.0), person())
    assert (row["status"], row["stop"]) == ("kept", None)


def test_a_rejected_clip_names_the_reason_of_the_subject_that_came_furthest() -> None:
    far, near = person(sharpness=1.0, brightness=1.0), person(segment=0.2)
    row = row_with(subject(clip(), None), far, near)
    assert row["status"] == "rejected"
    assert row["stop"] == {
        "stage": "filter",
        "reason": "no subject kept: segment_min",
        "value": 0.2,
        "threshold": 0.3,
    }
    assert row_with(subject(clip(), None))["stop"] == {
        "stage": "filter",
        "reason": "no subject kept: not found",
        "value": None,
        "threshold": None,
    }


@pytest.mark.parametrize("stage", ["slice", "caption", "match", "ground", "inpaint"])
def test_a_clip_that_stopped_elsewhere_is_not_judged_again(stage: str) -> None:
    row = row_with(person())
    stop_row(row, "failed", stage, "out of memory")
    before = copy.deepcopy(row)
    decide_clip(row, build_rules(FilterConfig.model_validate({"sharpness_min": 1e6})))
    assert row == before


def test_a_clip_that_was_rejected_by_a_verdict_can_come_back() -> None:
    row = row_with(person(sharpness=10.0))
    assert row["status"] == "rejected"
    decide_clip(row, build_rules(FilterConfig.model_validate({"sharpness_min": 10.0})))
    assert (row["status"], row["stop"]) == ("kept", None)


def reference(variant: str, identity: float | None, face: float | None = None) -> Reference:
    made = person()
    add_reference(made, variant, picture(), model="m", revision="1", identity=identity, face_identity=face)
    return made["references"][0]


@pytest.mark.parametrize(
    ("group", "identity", "face", "reason"),
    [
        ("animal", 0.4, None, "identity_min"),
        ("animal", 0.9, 0.1, None),
        ("human", 0.9, 0.1, "face_identity_min"),
        ("human", None, None, None),
        ("animal", math.nan, None, None),
    ],
)
def test_a_picture_of_another_person_is_not_kept(
    group: str, identity: float | None, face: float | None, reason: str | None
) -> None:
    row = clip()
    row["status"] = "kept"
    row["subjects"] = [person(group)]
    row["subjects"][0]["references"] = [reference("redux", identity, face), reference("crop", None)]
    decide_clip(row, RULES)
    made, crop = row["subjects"][0]["references"]
    assert (made["kept"], made["reason"]) == (reason is None, reason)
    assert (crop["kept"], crop["reason"]) == (True, None)
    counted = tally_rows([row]).references
    assert counted == ({"crop": 1} if reason else {"crop": 1, "redux": 1})
