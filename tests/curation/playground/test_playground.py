"""The truth of the playground describes what is drawn, the same every time; its models learn and load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.imaging.codec import decode_mask, get_mask_box
from curation.playground import scenes, world
from curation.playground.clips import (
    CAMERAS,
    Mover,
    MoverPose,
    PlaygroundClip,
    PlaygroundShot,
    draw_shot,
    list_names,
    make_clip,
)
from curation.playground.render import TAXONOMY, render_clip, render_playground
from curation.playground.scenes import (
    Thing,
    compose_things,
    make_scene,
    measure_whole_area,
    round_to_rgb,
    sample_scene,
)
from curation.playground.world import (
    COLOURS,
    NAMES,
    PERSON,
    SHAPES,
    CanvasPlacement,
    Figure,
    Gaze,
    ThingLook,
)
from curation.taxonomy import Taxonomy
from reprise.errors import InputError

GREY = 0.5
unseen = st.integers(0, 10_000)


def _ground(width: int = 96, height: int = 96) -> npt.NDArray[np.float32]:
    return np.full((height, width, 3), GREY, np.float32)


def _alone(
    name: str, half: float = 30.0, turn: float = 0.0
) -> tuple[npt.NDArray[np.uint8], scenes.ThingTruth]:
    canvas, truths = compose_things(_ground(), [Thing(name, CanvasPlacement(48, 48, half, turn))])
    assert truths[0] is not None
    return round_to_rgb(canvas), truths[0]


# ---- the world -----------------------------------------------------------------------------------


def test_there_are_64_names_each_a_colour_and_a_shape() -> None:
    assert len(set(NAMES)) == 64 == len(COLOURS) * len(SHAPES)
    assert all(world.split_name(name) == tuple(name.split()) for name in NAMES)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="nothing in the playground is called 'red dog'"):
        world.split_name("red dog")


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_holds_exactly_the_pixels_that_are_drawn(name: str) -> None:
    image, seen = _alone(name)
    paint = np.array(world.get_colour(name.split()[0]), np.float32)
    # A pixel that is at least half thing is at least half way from the ground to the paint.
    way = paint - GREY
    share = ((image.astype(np.float32) / 255 - GREY) @ way) / float(way @ way)
    sure = np.abs(share - 0.5) > 0.01
    assert np.array_equal((share >= 0.5)[sure], seen.mask[sure])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_turn_keeps_a_shape_and_its_area(shape: str) -> None:
    upright, turned = (_alone(f"red {shape}", turn=angle)[1] for angle in (0.0, 37.0))
    assert turned.mask.sum() == pytest.approx(upright.mask.sum(), rel=0.03)


def test_shapes_differ_in_their_silhouettes() -> None:
    masks = {shape: _alone(f"red {shape}")[1].mask for shape in SHAPES}
    for one in SHAPES:
        for other in SHAPES:
            if one != other:
                both = (masks[one] & masks[other]).sum() / (masks[one] | masks[other]).sum()
                assert both < 0.87, (one, other)


def test_a_colour_keeps_its_name_under_every_look() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        for tint in COLOURS:
            look = world.sample_look(rng)
            paint, alpha = world.draw_thing(f"{tint} disc", look, CanvasPlacement(16, 16, 14), 32, 32)
            hues = [_hue(pixel) for pixel in paint[alpha > 0.5][::20]]
            assert all(
                min(COLOURS, key=lambda c: _get_angle_distance(world.HUES[c], hue)) == tint for hue in hues
            )


def _hue(pixel: npt.NDArray[np.float32]) -> float:
    import colorsys

    return colorsys.rgb_to_hsv(*map(float, pixel))[0] * 360


def _get_angle_distance(one: float, other: float) -> float:
    return min(abs(one - other) % 360, 360 - abs(one - other) % 360)


def test_a_background_has_no_colour_that_a_name_could_mean() -> None:
    import colorsys

    for seed in range(10):
        ground = world.draw_backdrop(64, 48, np.random.default_rng(seed))
        assert ground.shape == (48, 64, 3)
        assert max(colorsys.rgb_to_hsv(*map(float, p))[1] for p in ground.reshape(-1, 3)[::50]) < 0.2


@pytest.mark.parametrize(
    ("yaw", "seen"),
    [
        (0, "left eye, right eye, nose, left mouth, right mouth"),
        (180, ""),
        (75, "left eye, nose, left mouth"),
    ],
)
def test_a_head_shows_what_faces_the_camera(yaw: float, seen: str) -> None:
    face = world.measure_face(Figure(), Gaze(yaw), CanvasPlacement(64, 64, 50))
    shown = [name for name, visible in zip(world.FEATURES, face.visible, strict=True) if visible]
    assert ", ".join(shown) == seen


def test_a_head_that_turns_right_moves_its_nose_right_and_one_that_looks_up_moves_it_up() -> None:
    where = CanvasPlacement(64, 64, 50)
    straight, right, up = (
        world.measure_face(Figure(), gaze, where).points[2] for gaze in (Gaze(), Gaze(yaw=30), Gaze(pitch=20))
    )
    assert right[0] > straight[0] + 5 and up[1] < straight[1] - 3


def test_the_back_of_a_head_is_hair_only() -> None:
    front, back = (
        world.draw_person(Figure(), Gaze(yaw), CanvasPlacement(64, 64, 60), 128, 128)[0]
        for yaw in (0.0, 180.0)
    )
    x0, y0, x1, y1 = (int(v) for v in world.measure_face(Figure(), Gaze(), CanvasPlacement(64, 64, 60)).box)
    head = (slice(y0 + 8, (y0 + y1) // 2), slice(x0 + 12, x1 - 12))
    assert np.allclose(back[head], Figure().hair, atol=0.01)
    assert not np.allclose(front[head], Figure().hair, atol=0.2)


# ---- scenes --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=unseen, index=unseen)
def test_truth_of_any_scene_is_consistent(seed: int, index: int) -> None:
    picture = make_scene(seed, index, width=128, height=96)
    assert picture.image.shape == (96, 128, 3) and picture.image.dtype == np.uint8
    for seen in picture.truths:
        assert seen.box == get_mask_box(seen.mask)
        assert seen.mask.sum() >= scenes.MIN_PIXELS and 0 < seen.share <= 1
        assert (seen.face is not None) == (seen.name == PERSON)
    # Two objects cannot both cover half of a pixel.
    assert not picture.truths or np.stack([s.mask for s in picture.truths]).sum(0).max() <= 1


def test_a_scene_is_the_same_every_time_and_another_under_another_number() -> None:
    assert np.array_equal(make_scene(3, 4).image, make_scene(3, 4).image)
    assert not np.array_equal(make_scene(3, 4).image, make_scene(3, 5).image)


def test_the_visible_share_counts_what_is_behind_others_and_what_is_outside() -> None:
    square = Thing("red square", CanvasPlacement(48, 48, 25))
    over = Thing(
        "blue square", CanvasPlacement(48 + 20, 48, 25)
    )  # a square's half side is 0.8 of `half`: 20 px
    outside = Thing("green square", CanvasPlacement(96, 20, 12.5))
    _, truths = compose_things(_ground(), [square, over, outside])
    shares = [truth.share for truth in truths if truth is not None]
    assert shares == pytest.approx([0.5, 1.0, 0.5], abs=0.03)
    assert truths[0] is not None and truths[0].box[2] == 48


def test_what_hardly_shows_has_no_truth() -> None:
    hidden = Thing("red disc", CanvasPlacement(48, 48, 10))
    lid = Thing("blue square", CanvasPlacement(48, 48, 30))
    gone = Thing("red disc", CanvasPlacement(400, 48, 10))
    _, truths = compose_things(_ground(), [hidden, lid, gone])
    assert [truth is not None for truth in truths] == [False, True, False]


def test_a_whole_thing_has_its_whole_area() -> None:
    _, seen = _alone("cyan heart", half=20)
    assert measure_whole_area(Thing("cyan heart", CanvasPlacement(48, 48, 20))) == seen.mask.sum()


def test_rivals_share_a_colour_or_a_shape_and_are_others() -> None:
    rng = np.random.default_rng(1)
    for name in NAMES:
        tint, shape = name.split()
        other = scenes.sample_rival(name, rng)
        assert other != name and (other.split()[0] == tint) != (other.split()[1] == shape)


def test_scenes_bring_rivals_people_and_occlusion() -> None:
    pictures = [make_scene(11, i) for i in range(150)]
    things = [seen for picture in pictures for seen in picture.truths]
    assert {len(picture.truths) for picture in pictures} >= {1, 2, 3, 4}
    assert 0.05 < np.mean([seen.share < 0.8 for seen in things]) < 0.5
    assert 0.03 < np.mean([seen.name == PERSON for seen in things]) < 0.3
    assert len({seen.name for seen in things}) > 60


def test_a_prompt_names_visible_and_absent_objects() -> None:
    rng = np.random.default_rng(2)
    there = total = 0
    for index in range(60):
        picture = sample_scene(rng)
        prompt = scenes.sample_prompt(picture.names, np.random.default_rng(index))
        assert len(prompt) == len(set(prompt)) <= 6 and set(prompt) <= set(list_names())
        there += sum(name in picture.names for name in prompt)
        total += len(prompt)
    assert 0.3 < there / total < 0.7


# ---- clips and videos ----------------------------------------------------------------------------


def test_captions_name_only_visible_objects() -> None:
    taxonomy = Taxonomy.load(TAXONOMY)
    for index in range(200):
        clip = make_clip(5, index)
        mentions = taxonomy.find_mentions(clip.caption)
        for shot in clip.shots:
            assert {m.category for m in mentions} == {mover.name for mover in shot.movers if mover.named}
        assert all(mention.count == 1 for mention in mentions)


def test_the_taxonomy_knows_every_name_of_the_world_and_no_other() -> None:
    taxonomy = Taxonomy.load(TAXONOMY)
    assert set(taxonomy.categories) == set(list_names())
    assert taxonomy.categories[PERSON].group == "human"
    assert [m.category for m in taxonomy.find_mentions("Two red crosses and some people.")] == [
        "red cross",
        PERSON,
    ]


def test_every_mover_moves_and_is_in_the_picture() -> None:
    shown = []
    for index in range(60):
        for shot in make_clip(6, index).shots:
            for mover in shot.movers:
                assert np.hypot(mover.end.x - mover.begin.x, mover.end.y - mover.begin.y) > 0.15
                shown.append(0 < mover.begin.x < 1 and 0 < mover.begin.y < 1)
    assert np.mean(shown) > 0.98


def test_the_camera_moves_the_ground_by_its_motion() -> None:
    for camera, (dx, dy) in CAMERAS.items():
        frames = [image for image, _ in draw_shot(PlaygroundShot(2, camera, (), (1, 2)), 128, 96)]
        first, last = (frame.astype(np.float32).mean(2) for frame in frames)
        spare = (0.5 * 128 * 0.9 * dx, 0.5 * 96 * 0.9 * dy)
        x, y = (round(v) for v in spare)
        # What the last frame shows at (0, 0), the first showed at (x, y).
        a = first[max(0, y) : 96 + min(0, y), max(0, x) : 128 + min(0, x)]
        b = last[max(0, -y) : 96 + min(0, -y), max(0, -x) : 128 + min(0, -x)]
        assert np.abs(a - b).mean() < 6, camera


def _tiny() -> PlaygroundClip:
    ring = Mover("red ring", MoverPose(0.3, 0.5, 0.2), MoverPose(0.7, 0.5, 0.2, 30.0))
    person = Mover(PERSON, MoverPose(0.6, 0.6, 0.3, 0, Gaze(60)), MoverPose(0.5, 0.6, 0.3), named=False)
    shots = (PlaygroundShot(3, "static", (ring,), (0,)), PlaygroundShot(2, "pan left", (person, ring), (1,)))
    return PlaygroundClip("tiny", "A red ring moves to the right.", shots, width=96, height=64, fps=8)


def test_a_video_its_caption_and_its_truth_belong_together(tmp_path: Path) -> None:
    video = render_clip(_tiny(), tmp_path, sidecar="json")
    truth = json.loads((tmp_path / "truth" / "tiny.json").read_text())
    assert json.loads(video.with_suffix(".json").read_text())["caption"] == truth["caption"]
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == truth["num_frames"] == 5
    assert [(s["start_frame"], s["end_frame"]) for s in truth["shots"]] == [(0, 3), (3, 5)]
    names = [(s["name"], s["shot"], s["named"]) for s in truth["subjects"]]
    assert names == [("red ring", 0, True), (PERSON, 1, False), ("red ring", 1, True)]
    ring, person, _ = truth["subjects"]
    for number, entry in ring["frames"].items():
        mask = decode_mask(entry["mask"])
        assert entry["box_xyxy"] == get_mask_box(mask) and 0.9 < entry["visible_share"] <= 1
        pixels = frames[int(number)][mask].astype(float).mean(0)
        assert pixels[0] > 1.7 * pixels[1:].max()  # red, through the codec
    gazes = [entry["gaze"][0] for entry in person["frames"].values()]
    assert gazes == [60, 0]


def test_rendering_is_the_same_every_time_and_other_seeds_are_other_videos(tmp_path: Path) -> None:
    one, two, other = (
        render_playground(tmp_path / name, videos=1, seed=seed, width=96, height=64)
        for name, seed in (("one", 4), ("two", 4), ("other", 5))
    )
    assert one[0].read_bytes() == two[0].read_bytes() != other[0].read_bytes()
    truths = [(p[0].parent / "truth" / f"{p[0].stem}.json").read_bytes() for p in (one, two)]
    assert truths[0] == truths[1]


@pytest.mark.parametrize("bad", [{"videos": 0}, {"width": 97}, {"height": 32}])
def test_a_size_or_number_that_cannot_be_is_refused(bad: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least"):
        render_playground(tmp_path, **bad)


def test_the_command_renders_and_reports_errors(tmp_path: Path) -> None:
    from pipelines.playground import playground

    good = CliRunner().invoke(
        playground, ["render", "--output", str(tmp_path), "--videos", "1", "--size", "96x64"]
    )
    assert good.exit_code == 0 and len(list(tmp_path.glob("*.mp4"))) == 1
    for arguments in (
        ["render", "--size", "huge"],
        ["train", "painter"],
        ["train", "detector", "--minutes", "0"],
    ):
        assert CliRunner().invoke(playground, arguments).exit_code == 2


# ---- the trained models -------------------------------------------------------------------


def _need(*packages: str) -> None:
    for package in packages:
        pytest.importorskip(package)


def _train_briefly(train: Any, folder: Path, steps: int = 3) -> dict[str, Any]:
    from curation.playground.train_models.loop import TrainingBudget

    train(folder, seed=1, budget=TrainingBudget(minutes=5, steps=steps, threads=1), size=2)
    record: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return record


def test_training_stops_and_goes_on_where_it_was(tmp_path: Path) -> None:
    _need("torch")
    import torch

    from curation.playground.train_models.loop import TrainingBudget, TrainingRecipe, train_recipe

    def recipe(stop: int | None) -> TrainingRecipe:
        torch.manual_seed(0)

        def loss(model: torch.nn.Module, step: int) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
            value: torch.Tensor = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
            return value

        def save(model: torch.nn.Module, folder: Path) -> None:
            torch.save(model.state_dict(), folder / "w.pth")

        return TrainingRecipe("x", torch.nn.Linear(2, 1), loss, lambda _: {"ok": 1.0}, save, seed=0)

    budget = TrainingBudget(minutes=60, steps=30, evaluate_every=0.0, threads=1)
    train_recipe(recipe(None), budget, tmp_path / "whole", log_line=lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        train_recipe(recipe(17), budget, tmp_path / "broken", log_line=lambda _: None)
    lines: list[str] = []
    train_recipe(recipe(None), budget, tmp_path / "broken", log_line=lines.append)
    assert lines[0] == "continuing from step 17"
    whole, broken = (torch.load(tmp_path / name / "w.pth") for name in ("whole", "broken"))
    assert all(torch.equal(whole[key], broken[key]) for key in whole)
    assert not (tmp_path / "broken.resume").exists()


def test_the_detector_keeps_bert_s_special_tokens_where_grounding_dino_looks_for_them() -> None:
    _need("transformers")
    from curation.playground.train_models import grounding

    tokenizer = grounding.build_detector_tokenizer()
    encoded = tokenizer("red star. people?")["input_ids"]
    assert (encoded[0], encoded[3], encoded[5], encoded[6]) == (101, 1012, 1029, 102)
    assert tokenizer.pad_token_id == 0 and tokenizer.unk_token_id not in encoded
    assert tokenizer("a dog.")["input_ids"].count(tokenizer.unk_token_id) == 2


def test_the_set_loss_is_small_for_right_boxes_and_large_for_wrong_ones() -> None:
    _need("torch", "torchvision", "scipy")
    import torch

    from curation.playground.train_models.grounding import compute_set_loss

    boxes = torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]]])
    tokens = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0]])
    truth = [(boxes[0, :2].clone(), tokens)]
    mask = torch.ones(1, 4, dtype=torch.bool)
    right = torch.full((1, 3, 4), -8.0)
    right[0, 0, 0] = right[0, 1, 2] = 8
    swapped = right[:, [1, 0, 2]]
    assert float(compute_set_loss(right, boxes, mask, truth)) < 0.01
    assert float(compute_set_loss(swapped, boxes, mask, truth)) > 1
    assert (
        float(compute_set_loss(right[:, [2, 1, 0]], boxes[:, [2, 1, 0]], mask, truth)) < 0.01
    )  # order is free


def test_ranking_is_measured_as_the_area_under_the_curve() -> None:
    _need("torch", "torchvision", "scipy")
    from curation.playground.train_models.auc import compute_auc

    assert (
        compute_auc([0.9, 0.8], [0.1, 0.2]) == 1
        and compute_auc([0.5], [0.5]) == 0.5
        and compute_auc([0.1], [0.9, 0.0]) == 0.5
    )


def test_the_detector_trains_and_loads_through_the_auto_classes(tmp_path: Path) -> None:
    _need("transformers", "scipy", "torchvision")
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    from curation.playground.train_models import grounding

    record = _train_briefly(grounding.train_detector, tmp_path / "d")
    assert record["steps"] == 3 and record["seed"] == 1 and 0 <= record["reached"]["box_iou"] <= 1
    model: Any = AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path / "d")
    auto: Any = AutoProcessor
    processor = auto.from_pretrained(tmp_path / "d")
    picture = make_scene(1, 1)
    inputs = processor(images=picture.image, text=[["red disc", "blue star"]], return_tensors="pt")
    assert list(inputs["pixel_values"].shape) == [1, 3, 96, 96]
    direct = grounding.normalise_images([picture.image])
    assert float((inputs["pixel_values"] - direct).abs().max()) < 1e-5
    found = processor.post_process_grounded_object_detection(
        model(**inputs), inputs["input_ids"], threshold=0.0, text_threshold=0.0, target_sizes=[(96, 96)]
    )
    assert found[0]["boxes"].shape == (20, 4)


def test_the_segmenter_is_the_same_model_in_both_libraries(tmp_path: Path) -> None:
    _need("transformers")
    package = pytest.importorskip("segment_anything")
    import torch
    from transformers import SamModel, SamProcessor

    from curation.playground.train_models import segmenting

    _train_briefly(segmenting.train_segmenter, tmp_path / "s")
    sam = segmenting.build_from_sizes(segmenting.MODEL_SIZES).eval()
    sam.load_state_dict(torch.load(tmp_path / "s" / "sam_playground.pth"))
    picture = make_scene(2, 1, width=128, height=128)
    box = picture.truths[0].box
    predictor = package.SamPredictor(sam)
    predictor.set_image(picture.image)
    _, quality, low = predictor.predict(box=np.array(box), multimask_output=True)
    with torch.no_grad():
        masks, scores = segmenting.decode_masks(
            sam,
            sam.image_encoder(segmenting.pad_images([segmenting.scale_image(picture.image)])),
            torch.tensor([box]),
        )
        other: Any = SamModel.from_pretrained(tmp_path / "s" / "transformers")
        processor: Any = SamProcessor.from_pretrained(tmp_path / "s" / "transformers")
        inputs = processor(picture.image, input_boxes=[[box]], return_tensors="pt")
        out = other(**inputs, multimask_output=True)
    for logits, qualities in ((masks[0, 1:], scores[0, 1:]), (out.pred_masks[0, 0], out.iou_scores[0, 0])):
        assert np.allclose(logits.numpy(), low, atol=1e-3) and np.allclose(
            qualities.numpy(), quality, atol=1e-4
        )


def test_the_scorer_loads_through_open_clip_with_its_own_tokenizer(tmp_path: Path) -> None:
    _need("transformers")
    open_clip = pytest.importorskip("open_clip")
    import torch
    from PIL import Image

    from curation.playground.train_models import clip

    _train_briefly(clip.train_scorer, tmp_path / "c")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'c'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'c'}")
    texts = ["a photo of a red disc", "two blue stars"]
    assert torch.equal(tokenizer(texts), clip.tokenize_texts(clip.build_scorer_tokenizer(), texts))
    wide = make_scene(3, 1).image[:40]
    ours, theirs = clip.prepare_crops([wide])[0], preprocess(Image.fromarray(wide))
    assert ours.shape == theirs.shape and float((ours - theirs).abs().mean()) < 0.1
    assert model.eval().encode_text(tokenizer(texts)).shape == (2, 64)


def test_a_look_is_only_paint() -> None:
    plain, checked = (
        world.draw_thing("pink star", ThingLook(texture=texture), CanvasPlacement(16, 16, 14), 32, 32)[1]
        for texture in ("plain", "checks")
    )
    assert np.array_equal(plain, checked)
