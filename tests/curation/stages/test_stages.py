"""Each stage by itself, without Ray, on a few rows."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence

import numpy as np
import pytest

from curation.config import CurationConfig, load_config
from curation.imaging.codec import decode_image, decode_mask, pad_box
from curation.imaging.cutout import composite_over, resize_cutout, soften_mask
from curation.models import registry
from curation.rows.lifecycle import is_live, keep_needed_frames, stop_row
from curation.rows.schema import CLIPS, ClipRow
from curation.rows.tables import build_table
from curation.rows.verdicts import decide_clip
from curation.runner.graph import CLIP_STAGES, build_operators, build_stage, describe_graph
from curation.stages.stage import run_stage
from reprise.errors import RepriseError
from tests.curation.clips import (
    HEIGHT,
    HERE,
    RULES,
    WIDTH,
    Blob,
    clip,
    config,
    disc,
    kept_clip,
    picture,
    subject,
)

RED: Blob = ("red", 0.3, 0.5, 0.25)
BLUE: Blob = ("blue", 0.75, 0.5, 0.2)


def run_stages(rows: list[ClipRow], settings: CurationConfig, *names: str) -> list[ClipRow]:
    for name in names:
        rows = run_stage(build_stage(name, settings), rows, {})
    return rows


def one(row: ClipRow, settings: CurationConfig, *names: str) -> ClipRow:
    return run_stages([row], settings, *names)[0]


def variants(row: ClipRow) -> list[str]:
    return [reference["variant"] for each in row["subjects"] for reference in each["references"]]


# ---- what all stages keep to -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLIP_STAGES)
def test_a_stopped_row_is_untouched_by_every_stage(name: str) -> None:
    row = kept_clip()
    stop_row(row, "rejected", "caption", "no caption")
    before = copy.deepcopy(row)
    assert one(row, load_config(), name) == before


@pytest.mark.parametrize("name", CLIP_STAGES)
def test_every_stage_works_on_an_empty_batch(name: str) -> None:
    assert run_stages([], load_config(), name) == []


def test_a_failing_backend_fails_one_row() -> None:
    rows = [kept_clip(0), kept_clip(1), kept_clip(2)]
    rows[1]["frames"][0] = clip(1, images=[picture(RED, BLUE)])["frames"][0]
    done = run_stages(rows, config(f"models.inpainter={HERE}:BrokenInpainter"), "inpaint")
    assert [row["status"] for row in done] == ["kept", "failed", "kept"]
    assert done[1]["stop"] is not None
    assert done[1]["stop"]["stage"] == "inpaint"
    assert done[1]["stop"]["reason"] == "RuntimeError: out of memory in line 3"
    assert variants(done[0]) == variants(done[2]) == ["inpaint"]
    assert variants(done[1]) == [], "nothing half-done is left behind"


def test_a_failed_row_does_not_change_what_the_caller_holds() -> None:
    row = kept_clip()
    row["frames"] = []
    before = copy.deepcopy(row)
    assert one(row, load_config(), "crop")["status"] == "failed"
    assert row == before


def test_a_config_that_works_for_no_row_is_an_error_and_not_a_failure_of_every_row() -> None:
    with pytest.raises(RepriseError, match=r"models\.detector=nowhere:Class.*installed"):
        one(clip(), config("models.detector=nowhere:Class"), "match", "ground")


def test_time_is_added_up_per_stage() -> None:
    seconds: dict[str, float] = {"crop": 5.0}
    run_stage(build_stage("crop", load_config()), [kept_clip()], seconds)
    assert 5.0 < seconds["crop"] < 6.0


def test_stopping_frees_all_frames_but_a_poster() -> None:
    row = clip(images=[picture(RED, seed=n) for n in range(5)])
    stop_row(row, "rejected", "caption", "no caption")
    assert [frame["index"] for frame in row["frames"]] == [10]
    assert row["frames"][0]["motion"] is None
    assert not is_live(row)


def test_rows_of_every_stage_fit_the_schema() -> None:
    row = clip(caption="A red ball and a blue ball.", images=[picture(RED, BLUE)])
    for name in CLIP_STAGES:
        row = one(row, config(), name)
        assert build_table([row], CLIPS).num_rows == 1
        assert is_live(row), row["stop"]
    assert row["status"] == "kept"
    assert variants(row) == ["crop", "inpaint", "redux", "segment"] * 2


# ---- caption ---------------------------------------------------------------------------------------------


def test_a_caption_that_came_with_the_video_is_kept_as_written() -> None:
    row = one(clip(caption="  A Dog. "), config(f"models.captioner={HERE}:Captioner"), "caption")
    assert (row["caption"], row["caption_source"]) == ("  A Dog. ", "sidecar")


def test_the_captioner_is_called_only_for_clips_without_a_caption() -> None:
    silent = clip(1, caption=None, images=[picture(RED)] * 3)
    rows = run_stages([clip(0), silent], config(f"models.captioner={HERE}:Captioner"), "caption")
    assert rows[0]["caption"] == "A red ball rolls by."
    assert (rows[1]["caption"], rows[1]["caption_source"]) == ("A red ball in 3 frames.", "frame-counter@7")


@pytest.mark.parametrize("caption", [None, "", " \n"])
def test_without_caption_and_captioner_a_clip_is_rejected(caption: str | None) -> None:
    row = one(clip(caption=caption), load_config(), "caption")
    assert row["status"] == "rejected"
    assert row["stop"] is not None
    assert row["stop"]["reason"] == "no caption"
    assert is_live(one(clip(caption=caption), load_config(None, ["caption.require=false"]), "caption"))


# ---- match -----------------------------------------------------------------------------------------------


def test_candidates_come_in_the_order_of_the_caption() -> None:
    row = one(clip(caption="Three red balls, a dog and a woman in a park."), load_config(), "match")
    assert [each["phrase"] for each in row["subjects"]] == ["red balls", "dog", "woman"]
    assert [each["count"] for each in row["subjects"]] == [3, 1, 1]
    assert len({each["subject_id"] for each in row["subjects"]}) == 3


def test_a_place_is_no_candidate() -> None:
    row = one(clip(caption="A beach at sunset."), load_config(), "match")
    assert row["stop"] is not None
    assert (row["status"], row["stop"]["reason"]) == ("rejected", "caption names no subject")


def test_groups_and_number_of_candidates_can_be_limited() -> None:
    caption = "A dog, a cat, a cup and a horse."
    row = one(clip(caption=caption), load_config(None, ["match.groups=[animal]"]), "match")
    assert [each["category"] for each in row["subjects"]] == ["dog", "cat", "horse"]
    row = one(clip(caption=caption), load_config(None, ["match.max_subjects=2"]), "match")
    assert [each["category"] for each in row["subjects"]] == ["dog", "cat"]


# ---- ground ----------------------------------------------------------------------------------------------


def test_a_phrase_keeps_the_frame_that_shows_it_best() -> None:
    sizes = [0.1, 0.3, 0.2]
    row = clip(images=[picture(("red", 0.5, 0.5, size)) for size in sizes])
    row = one(row, config(), "match", "ground")
    (found,) = row["subjects"]
    assert found["frame_index"] == 5
    assert found["box"] == pytest.approx([106, 36, 215, 145], abs=2)
    assert found["scores"].keys() == {"grounding", "label"}
    assert json.loads(found["made_by"] or "") == {"detector": "colour-detector@1"}


def test_no_more_boxes_than_the_caption_speaks_of() -> None:
    several = [picture(*[("red", 0.1 + 0.18 * n, 0.5, 0.12) for n in range(5)])]
    two = one(clip(caption="Two red balls.", images=several), config(), "match", "ground")
    assert [each["instance"] for each in two["subjects"]] == [0, 1]
    assert len({each["subject_id"] for each in two["subjects"]}) == 2
    some = one(clip(caption="Red balls.", images=several), config(), "match", "ground")
    assert len(some["subjects"]) == 4, "max_instances"
    less = one(
        clip(caption="Red balls.", images=several), config("ground.max_instances=3"), "match", "ground"
    )
    assert len(less["subjects"]) == 3


def test_a_phrase_that_is_found_nowhere_stays_without_a_box() -> None:
    row = one(clip(caption="A red ball and a green cup."), config(), "match", "ground")
    ball, cup = row["subjects"]
    assert ball["box"] is not None
    assert (cup["box"], cup["frame_index"], cup["scores"]) == (None, None, {})
    assert is_live(row)


def test_only_some_frames_are_looked_at_spread_over_the_clip() -> None:
    images = [picture(("red", 0.5, 0.5, 0.1 + 0.02 * n)) for n in range(10)]
    row = one(clip(images=images), config("ground.frames=2"), "match", "ground")
    assert row["subjects"][0]["frame_index"] == 35, "of frames 2 and 7"


def test_grounding_again_starts_from_the_phrases() -> None:
    several = [picture(*[("red", 0.2 + 0.3 * n, 0.5, 0.15) for n in range(3)])]
    once = one(clip(caption="Red balls.", images=several), config(), "match", "ground", "segment")
    again = one(once, config(), "ground", "segment")
    assert again["subjects"] == once["subjects"]


def test_a_clip_without_frames_fails_with_a_reason() -> None:
    row = one(clip(images=[]), config(), "match", "ground")
    assert row["stop"] is not None
    assert (row["status"], row["stop"]["reason"]) == ("failed", "the clip has no frames")


# ---- segment ---------------------------------------------------------------------------------------------


def test_a_mask_covers_the_subject_and_its_sizes_are_measured() -> None:
    row = one(clip(images=[picture(RED)]), config(), "match", "ground", "segment")
    (found,) = row["subjects"]
    assert found["mask"] is not None
    mask, truth = decode_mask(found["mask"]), disc(RED)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9
    assert found["scores"]["area_share"] == pytest.approx(truth.mean(), rel=0.1)
    assert found["scores"]["border_share"] == 0
    assert json.loads(found["made_by"] or "") == {
        "detector": "colour-detector@1",
        "segmenter": "colour-segmenter@1",
    }


def test_an_empty_mask_is_a_subject_of_area_zero_that_no_threshold_can_save() -> None:
    settings = config(f"models.segmenter={HERE}:NothingSegmenter", "filter.area_share_min=null")
    row = one(clip(), settings, "match", "ground", "segment", "filter", "crop")
    (found,) = row["subjects"]
    assert (found["mask"], found["scores"]["area_share"]) == (None, 0.0)
    assert found["verdict"] is not None
    assert found["verdict"]["reason"] == "no mask"
    assert row["status"] == "rejected"


def test_subjects_of_one_frame_are_held_against_each_other() -> None:
    row = clip(caption="A red ball, a blue ball and a red cup.", images=[picture(RED, BLUE)])
    row = one(row, config(), "match", "ground", "segment")
    ball, blue, cup = (each["scores"] for each in row["subjects"])
    assert ball["overlap_iou"] == 0
    assert blue["overlap_iou"] == 0
    assert cup["overlap_iou"] == 1, "the same pixels again: of equals the earlier stays"


def test_a_frame_that_was_freed_fails_its_row() -> None:
    row = one(clip(), config(), "match", "ground")
    row["frames"] = []
    row = one(row, config(), "segment")
    assert row["stop"] is not None
    assert "was freed" in row["stop"]["reason"]


# ---- filter ----------------------------------------------------------------------------------------------


def measure_clip(
    *overrides: str, caption: str = "A red ball rolls by.", images: Sequence[Blob] = (RED,)
) -> ClipRow:
    row = clip(caption=caption, images=[picture(*images)])
    return one(row, config(*overrides), "match", "ground", "segment", "filter")


def test_a_good_subject_is_kept_and_roles_without_a_backend_leave_null() -> None:
    row = measure_clip()
    (found,) = row["subjects"]
    assert row["status"] == "kept"
    assert found["verdict"] is not None
    assert found["verdict"]["unmeasured"] == ["clip_category_min"]
    assert found["scores"]["sharpness"] is not None
    assert found["scores"].get("face_count") is None, "a ball is not looked at for faces"


def test_a_clip_without_a_kept_subject_is_rejected_for_the_reason_of_its_best() -> None:
    row = measure_clip("filter.brightness_min=200")
    assert row["status"] == "rejected"
    assert row["stop"] is not None
    assert row["stop"]["reason"] == "no subject kept: brightness_min"
    assert row["stop"]["threshold"] == 200
    assert row["stop"]["value"] == row["subjects"][0]["scores"]["brightness"]


def test_only_faces_on_the_subject_itself_count() -> None:
    row = measure_clip(f"models.faces={HERE}:TwoFaces", caption="A red man.", images=[("red", 0.5, 0.5, 0.4)])
    (man,) = row["subjects"]
    assert man["group"] == "human"
    assert man["scores"]["face_count"] == 1, "the one in the corner is on another person"
    # A face of a fifth of the crop's sides; the crop is the box with a tenth added on each side.
    assert man["scores"]["face_share"] == pytest.approx((0.2 * 1.2) ** 2, rel=0.1)
    assert row["status"] == "kept"


def test_the_scorer_gets_all_categories() -> None:
    row = measure_clip(f"models.scorer={HERE}:SureScorer")
    scores = row["subjects"][0]["scores"]
    assert scores["clip_category"] == pytest.approx(0.2 / 502, rel=0.1)
    assert scores["clip_margin"] == pytest.approx(-0.8, abs=0.01)
    assert row["stop"] is not None
    assert row["stop"]["reason"] == "no subject kept: clip_category_min"


def test_frames_that_no_subject_needs_are_freed() -> None:
    images = [picture(("red", 0.5, 0.5, size)) for size in (0.1, 0.3, 0.2)]
    row = one(clip(images=images), config(), "match", "ground", "segment", "filter")
    assert [each["index"] for each in row["frames"]] == [5]
    assert row["frames"][0]["motion"] is None
    rejected = one(
        clip(images=images), config("filter.sharpness_min=1e9"), "match", "ground", "segment", "filter"
    )
    assert rejected["status"] == "rejected"
    assert [each["index"] for each in rejected["frames"]] == [5], "other thresholds may keep it"


def test_without_a_subject_the_middle_frame_is_the_poster() -> None:
    row = clip(images=[picture(RED)] * 3)
    keep_needed_frames(row)
    assert [each["index"] for each in row["frames"]] == [5]


# ---- references ------------------------------------------------------------------------------------------


def test_crop_and_segment_show_the_subject_with_its_padding() -> None:
    row = one(kept_clip(), load_config(None, ["crop.padding=0.25"]), "crop")
    crop, segment = row["subjects"][0]["references"]
    assert (crop["variant"], segment["variant"]) == ("crop", "segment")
    side = 109 * 1.5  # the disc's box and a quarter on each side
    assert crop["width"] == pytest.approx(side, abs=2)
    assert crop["height"] == pytest.approx(side, abs=2)
    alpha = decode_image(segment["image"])[..., 3]
    assert decode_image(crop["image"]).shape == (crop["height"], crop["width"], 3)
    assert (alpha == 255).sum() == pytest.approx(disc(("red", 0.5, 0.5, 0.3)).sum(), rel=0.08)
    assert alpha[0].max() == alpha[:, 0].max() == 0


def test_rejected_subjects_get_no_references() -> None:
    row = clip()
    good, bad = disc(RED), disc(BLUE)
    row["subjects"] = [subject(row, good), subject(row, bad, start=9, scores={"sharpness": 1.0})]
    decide_clip(row, RULES)
    row = one(row, load_config(), "crop", "inpaint", "redux")
    assert [len(each["references"]) for each in row["subjects"]] == [4, 0]


def test_inpaint_paints_the_surroundings_and_keeps_the_subjects_pixels() -> None:
    row = one(kept_clip(), load_config(), "inpaint")
    (reference,) = row["subjects"][0]["references"]
    assert reference["model"] == "classical-inpainter"
    assert reference["seed"] is not None
    painted, source = (
        decode_image(reference["image"]).astype(float),
        decode_image(row["frames"][0]["image"]).astype(float),
    )
    x0, y0, x1, y1 = pad_box(row["subjects"][0]["box"] or [], 0.35, WIDTH, HEIGHT)
    window = slice(y0, y1), slice(x0, x1)
    inside = soften_mask(disc(("red", 0.5, 0.5, 0.3)), 1.0)[window] == 1
    difference = np.abs(painted - source[window]).mean(axis=2)
    assert difference[inside].mean() < 4, "JPEG's own"
    assert difference[~inside].mean() > 2 * difference[inside].mean()


def test_redux_is_deterministic_and_another_picture_per_seed() -> None:
    settings = load_config(None, ["redux.per_subject=2"])
    first, second = (one(kept_clip(), settings, "redux")["subjects"][0]["references"] for _ in range(2))
    assert first == second
    assert [each["reference_id"][-1] for each in first] == ["0", "1"]
    assert first[0]["image"] != first[1]["image"]
    assert first[0]["prompt"] == "red ball"
    other = one(kept_clip(), load_config(None, ["seed=1"]), "redux")["subjects"][0]["references"]
    assert other[0]["seed"] != first[0]["seed"]


@pytest.mark.parametrize("variant", ["inpaint", "redux"])
def test_making_references_again_leaves_none_of_the_settings_before(variant: str) -> None:
    row = one(kept_clip(), load_config(None, [f"{variant}.per_subject=3"]), variant)
    assert len(variants(row)) == 3
    assert len(variants(one(row, load_config(), variant))) == 1
    assert variants(one(kept_clip(), load_config(None, [f"{variant}.enabled=false"]), variant)) == []


def test_a_soft_edge_falls_off_inwards_and_only_there() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:, 5:] = True
    alpha = soften_mask(mask, 1.0)
    assert not alpha[~mask].any(), "no background shows"
    assert alpha[5, 12] == pytest.approx(0.5)
    assert (alpha[6:, 6:] == 1).all(), "also along the picture's own border"
    assert (soften_mask(mask, 0.0) == mask).all()


def test_resizing_a_cutout_lets_no_background_bleed_in() -> None:
    cut = np.zeros((64, 64, 4), np.uint8)
    cut[..., 1] = 255  # transparent green around
    cut[16:48, 16:48] = (200, 0, 0, 255)
    for width in (23, 100):
        small = resize_cutout(cut, width, width)
        assert small.shape == (width, width, 4)
        visible = small[small[..., 3] > 20]
        assert visible[:, 1].max() < 30, "no green"
        assert visible[:, 0].min() > 150


def test_compositing_is_exact_where_the_front_is_opaque_or_clear() -> None:
    front, back = np.zeros((4, 4, 4), np.uint8), np.full((4, 4, 3), 9, np.uint8)
    front[0] = (200, 100, 50, 255)
    result = composite_over(front, back)
    assert (result[0] == (200, 100, 50)).all()
    assert (result[1:] == 9).all()


# ---- graph and backends ----------------------------------------------------------------------------------


def test_neighbours_with_equal_needs_share_a_worker() -> None:
    names = [each.name for each in build_operators(load_config())]
    assert names == [
        "slice",
        "caption+match+ground+track+segment+flow+filter+crop+inpaint+redux",
        "crosspair+retrieve+shard",
    ]
    apart = build_operators(load_config(None, ["engine.stages.ground.num_gpus=0.5"]))
    assert [each.name for each in apart][1:4] == [
        "caption+match",
        "ground",
        "track+segment+flow+filter+crop+inpaint+redux",
    ]
    assert "0.5 GPU" in describe_graph(load_config(None, ["engine.stages.ground.num_gpus=0.5"]))[2]
    with pytest.raises(RepriseError, match=r"engine\.stages\.grnd: no such stage"):
        build_operators(load_config(None, ["engine.stages.grnd.num_cpus=2"]))


def test_a_stage_of_ones_own_is_found_by_its_address() -> None:
    assert build_stage("curation.stages.crop:Crop", load_config()).name == "crop"
    with pytest.raises(RepriseError, match="no clip stage 'crp'"):
        build_stage("crp", load_config())
    with pytest.raises(RepriseError, match="has no Nothing"):
        build_stage("curation.stages.crop:Nothing", load_config())


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(RepriseError, match=r"models\.detector=dino: no such backend; known: classical"):
        registry.load_backend(load_config(None, ["models.detector=dino"]), "detector")
    with pytest.raises(RepriseError, match=r"name one with models\.scorer"):
        registry.load_required_backend(load_config(), "scorer")
    with pytest.raises(RepriseError, match="needs the attributes `name` and `revision`"):
        registry.load_backend(load_config(None, ["models.detector=builtins:dict"]), "detector")


def test_revisions_name_every_backend_and_the_taxonomy() -> None:
    found = registry.list_model_ids(config())
    assert found["detector"] == "colour-detector@1"
    assert found["inpainter"].startswith("classical-inpainter@")
    assert found["taxonomy"].startswith("taxonomy@")
    assert "scorer" not in found
