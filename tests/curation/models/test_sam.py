"""SAM in both implementations and SAM 2: masks from boxes, coordinates, agreement, and wrong files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the pretrained profile is not installed")
pytest.importorskip("transformers", reason="the pretrained profile is not installed")

from curation.model_spec import ModelSpec  # noqa: E402
from curation.models.pretrained.masks import clean_mask, scale_boxes, select_best_masks  # noqa: E402
from curation.models.pretrained.sam_hf import SamHF  # noqa: E402
from reprise.errors import RepriseError  # noqa: E402
from tests.curation.models import tiny_perception as tiny  # noqa: E402

torch.set_num_threads(1)
SIDE = tiny.SAM_SIDE
CPU = torch.device("cpu")


def spec(path: Path, **options: object) -> ModelSpec:
    return ModelSpec(backend="sam", checkpoint=str(path), device="cpu", options=options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sam")
    model = tiny.save_sam_hf(root / "hf")
    tiny.save_sam2_video(root / "sam2")
    made = {"hf": root / "hf", "sam2": root / "sam2"}
    try:
        import segment_anything  # noqa: F401
    except ImportError:
        return made
    tiny.save_sam_original(root / "original", model)
    return {**made, "original": root / "original"}


def load(folders: dict[str, Path], which: str, **options: object) -> Any:
    if which != "original":
        return SamHF(spec(folders[which], **options))
    pytest.importorskip("segment_anything", reason="segment-anything is not installed")
    from curation.models.pretrained.sam_original import SamOriginal

    return SamOriginal(spec(folders["original"], **options))


# Cleaning


def test_small_holes_and_islands_go_and_large_ones_stay() -> None:
    mask = np.zeros((80, 100), bool)
    mask[10:70, 10:60] = True
    mask[20:22, 20:22] = False  # 4 of 3,000 pixels
    mask[30:50, 30:50] = False  # the hole of a ring
    mask[5:7, 90:92] = True  # a speck
    mask[40:60, 70:90] = True  # the other side of a pole
    wanted = mask.copy()
    wanted[20:22, 20:22], wanted[5:7, 90:92] = True, False
    assert np.array_equal(clean_mask(mask), wanted)


@pytest.mark.parametrize("fill", [False, True])
def test_empty_and_full_masks_stay(fill: bool) -> None:
    mask = np.full((7, 9), fill)
    assert np.array_equal(clean_mask(mask), mask)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_cleaning_twice_is_cleaning_once_and_never_empties(
    height: int, width: int, seed: int, fill: float
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < fill
    once = clean_mask(mask)
    assert once.any() == mask.any()
    pieces = clean_mask(mask, hole_share=0)
    assert not (pieces & ~mask).any()  # without holes to fill, cleaning only takes away
    assert not (pieces & ~once).any()


# Logits and pixels


def test_the_candidate_that_the_model_trusts_most_is_taken() -> None:
    logits = torch.full((2, 3, 8, 8), -1.0)
    logits[0, 2], logits[1, 0] = 1.0, 1.0
    scores = torch.tensor([[0.1, 0.2, 0.9], [1.2, 0.3, 0.2]])
    masks, given_scores = select_best_masks(logits, scores, (5, 6))
    assert [mask.shape for mask in masks] == [(5, 6)] * 2 and all(mask.all() for mask in masks)
    assert given_scores == pytest.approx([0.9, 1.0])


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 200), st.integers(20, 200), st.data())
def test_padding_is_cut_and_masks_land_on_their_pixels(height: int, width: int, data) -> None:
    """A rectangle drawn on the canvas that the model sees comes back as the box that prompts it."""
    scale = SIDE / max(height, width)
    valid = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
    x0, y0 = data.draw(st.integers(0, width - 10)), data.draw(st.integers(0, height - 10))
    x1, y1 = data.draw(st.integers(x0 + 8, width)), data.draw(st.integers(y0 + 8, height))
    box = scale_boxes([[x0, y0, x1, y1]], (height, width), valid, CPU)[0]
    at = torch.arange(SIDE) + 0.5
    inside_x = torch.minimum(at - box[0], box[2] - at)
    inside_y = torch.minimum(at - box[1], box[3] - at)
    logits = torch.minimum(inside_x[None, :], inside_y[:, None])[None, None]
    masks, _ = select_best_masks(logits, torch.ones(1, 1), (height, width), (SIDE, SIDE), valid)
    wanted = np.zeros((height, width), bool)
    wanted[y0:y1, x0:x1] = True
    # Half a pixel of the canvas on every side, in pixels of the picture, and rounding.
    slack = (max(1 / scale, 1.0) * 0.75 + 0.5) * 2 * ((x1 - x0) + (y1 - y0))
    assert (masks[0] ^ wanted).sum() <= slack


def test_prompts_scale_by_axis_and_stay_inside() -> None:
    scaled = scale_boxes([[-3, 10, 50, 400], [0, 0, 200, 100]], (100, 200), (64, 128), CPU)
    assert scaled.tolist() == pytest.approx(np.array([[0, 6.4, 32, 64], [0, 0, 128, 64]]))


# The models


@pytest.mark.parametrize("which", ["hf", "original", "sam2"])
def test_every_box_gets_a_mask_of_its_pictures_size(folders: dict[str, Path], which: str) -> None:
    segmenter = load(folders, which)
    sizes = [(97, 140), (140, 61), (33, 33)]
    images = [tiny.picture(*size, seed=index) for index, size in enumerate(sizes)]
    boxes = [[[10.0, 10.0, 90.0, 80.0], [0.0, 0.0, 140.0, 97.0]], [], [[4.5, 3.25, 30.0, 34.0]]]
    found = segmenter.segment(images, boxes)
    assert [len(each.masks) for each in found] == [2, 0, 1] == [len(each.scores) for each in found]
    for size, each in zip(sizes, found, strict=True):
        assert all(mask.shape == size and mask.dtype == bool for mask in each.masks)
        assert all(0 <= score <= 1 for score in each.scores)
    assert segmenter.segment([], []) == []


@pytest.mark.parametrize("which", ["hf", "original", "sam2"])
def test_what_else_is_in_the_batch_changes_no_mask(folders: dict[str, Path], which: str) -> None:
    segmenter = load(folders, which)
    images = [tiny.picture(100, 80, seed=1), tiny.picture(51, 120, seed=2)]
    boxes = [[[10.0, 20.0, 60.0, 90.0]], [[5.0, 5.0, 100.0, 50.0], [40.0, 0.0, 90.0, 30.0]]]
    together = segmenter.segment(images, boxes)
    for image, image_boxes, found in zip(images, boxes, together, strict=True):
        for row, box in enumerate(image_boxes):
            (single,) = segmenter.segment([image], [[box]])
            assert single.scores[0] == pytest.approx(found.scores[row], abs=1e-5)
            assert (single.masks[0] ^ found.masks[row]).mean() < 1e-3


@pytest.mark.parametrize("which", ["hf", "original", "sam2"])
def test_a_picture_is_encoded_once_for_all_its_boxes(folders: dict[str, Path], which: str) -> None:
    segmenter = load(folders, which)
    encoder = segmenter._sam.image_encoder if which == "original" else segmenter._model.vision_encoder
    seen = []
    encoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len((args or [*kwargs.values()])[0])), with_kwargs=True
    )
    images = [tiny.picture(60, 80, seed=index) for index in range(3)]
    segmenter.segment(images, [[[0.0, 0.0, 40.0, 40.0]] * 5, [], [[0.0, 0.0, 40.0, 40.0]]])
    assert seen == [2]


def test_both_implementations_cut_the_same(folders: dict[str, Path]) -> None:
    ours, theirs = load(folders, "hf"), load(folders, "original")
    # At these sizes neither scales the picture: how they do differs by a grey level.
    images = [tiny.picture(SIDE, 90, seed=3), tiny.picture(77, SIDE, seed=4)]
    boxes = [[[10.0, 20.0, 60.0, 90.0], [0.0, 0.0, 90.0, 128.0]], [[30.0, 5.0, 100.0, 70.0]]]
    for left, right in zip(ours.segment(images, boxes), theirs.segment(images, boxes), strict=True):
        assert left.scores == pytest.approx(right.scores, abs=1e-5) and all(
            0 < each < 1 for each in left.scores
        )
        for one, other in zip(left.masks, right.masks, strict=True):
            assert (one ^ other).mean() < 1e-3


def test_both_implementations_compute_the_same_logits(folders: dict[str, Path]) -> None:
    ours, theirs = load(folders, "hf")._model, load(folders, "original")._sam
    seen = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[10.0, 20.0, 70.0, 90.0], [5.0, 5.0, 120.0, 120.0]])
    with torch.no_grad():
        out = ours(pixel_values=seen, input_boxes=boxes[None])
        sparse, dense = theirs.prompt_encoder(points=None, boxes=boxes, masks=None)
        logits, scores = theirs.mask_decoder(
            image_embeddings=theirs.image_encoder(seen),
            image_pe=theirs.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    assert torch.allclose(out.pred_masks[0], logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max()))
    assert torch.allclose(out.iou_scores[0], scores, atol=1e-4)


def test_converting_there_and_back_changes_nothing(folders: dict[str, Path]) -> None:
    pytest.importorskip("segment_anything", reason="segment-anything is not installed")
    from safetensors.torch import load_file

    from curation.models.pretrained import convert

    state = torch.load(folders["original"] / "sam.pth", weights_only=True)
    there = convert.convert_sam_to_hf(state)
    on_disk = load_file(folders["hf"] / "model.safetensors")
    assert there.keys() == on_disk.keys() and all(torch.equal(there[name], on_disk[name]) for name in there)
    back = convert.convert_sam_from_hf(there, state)
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


def test_the_published_sizes_are_detected_from_their_encoder(tmp_path: Path) -> None:
    pytest.importorskip("segment_anything", reason="segment-anything is not installed")
    from curation.models.pretrained import sam_original

    with torch.device("meta"):
        state = {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}
        base = sam_original.build_empty_model(tmp_path / "sam_vit_b_01ec64.pth", state, None)
        sized = sam_original.build_from_sizes(sam_original._ARCHITECTURE)
    shapes = {name: weight.shape for name, weight in base.state_dict().items()}
    assert len(base.image_encoder.blocks) == 12
    assert {name: weight.shape for name, weight in sized.state_dict().items()} == shapes


# Bad input


def fails(build, *parts: str) -> None:
    with pytest.raises(RepriseError) as caught:
        build()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in parts), message


@pytest.mark.parametrize(
    "which, file", [("hf", "model.safetensors"), ("sam2", "model.safetensors"), ("original", "sam.pth")]
)
def test_half_a_file_is_one_clear_line(
    folders: dict[str, Path], tmp_path: Path, which: str, file: str
) -> None:
    if which not in folders:
        pytest.skip("segment-anything is not installed")
    half = tmp_path / which
    shutil.copytree(folders[which], half)
    tiny.truncate(half / file)
    fails(lambda: load({which: half}, which), str(half))


def test_a_checkpoint_of_another_model_is_one_clear_line(folders: dict[str, Path], tmp_path: Path) -> None:
    tiny.save_dino_hf(tmp_path / "dino")
    fails(lambda: load({"hf": tmp_path / "dino"}, "hf"), "grounding-dino", "sam2_video")
    (tmp_path / "empty").mkdir()
    fails(lambda: load({"hf": tmp_path / "empty"}, "hf"), str(tmp_path / "empty"))
    if "original" not in folders:
        return
    other = tmp_path / "original"
    shutil.copytree(folders["original"], other)
    fails(lambda: load({"original": other}, "original", model_type="vit_x"), "vit_x", "vit_h")
    torch.save({"weight": torch.zeros(2)}, other / "sam.pth")
    fails(lambda: load({"original": other}, "original"), "another model", "missing")
    (other / "sam.json").unlink()
    fails(lambda: load({"original": other}, "original"), "model_type", "sam.json")
    (other / "sam.json").write_text(json.dumps({"depth": 3}))
    fails(lambda: load({"original": other}, "original"), "depth", "encoder_depth")
    fails(lambda: load({"original": tmp_path / "none.pth"}, "original"), "none.pth")


def test_a_folder_without_image_processor_is_one_clear_line(folders: dict[str, Path], tmp_path: Path) -> None:
    bare = tmp_path / "hf"
    shutil.copytree(folders["hf"], bare)
    for file in bare.glob("*processor*"):
        file.unlink()
    fails(lambda: load({"hf": bare}, "hf"), str(bare))


@pytest.mark.parametrize("which", ["hf", "original"])
def test_a_segmenter_short_of_memory_cuts_the_same(folders: dict[str, Path], which: str) -> None:
    segmenter = load(folders, which)
    images = [tiny.picture(60, 80, seed=index) for index in range(3)]
    boxes = [[[5.0, 5.0, 40.0 + index, 50.0]] for index in range(3)]
    expected = segmenter.segment(images, boxes)
    encoder = segmenter._sam.image_encoder if which == "original" else segmenter._model.vision_encoder

    def narrow(_, args, kwargs) -> None:
        if len((args or [*kwargs.values()])[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    encoder.register_forward_pre_hook(narrow, with_kwargs=True)
    for one, other in zip(segmenter.segment(images, boxes), expected, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
