"""The segmenter: a small segment-anything model, trained from scratch, saved as `.pth` and for transformers.

Architecture: Kirillov et al., Segment Anything (arXiv 2304.02643), section 3 and appendix A, with the classes
of the published package. Loss: focal and dice 20 : 1 and a mean squared error of the predicted quality
(appendix A). A box identifies its thing, so all four masks (the single one and the three of the ambiguous
case) learn the same target here, instead of only the best of three.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from curation.imaging.codec import RGB
from curation.models.pretrained.convert import convert_sam_to_hf
from curation.models.pretrained.sam_original import build_from_sizes
from curation.models.pretrained.sam_original import resize_longest_side as resized
from curation.playground.scenes import ScenePicture, make_scene, sample_scene
from curation.playground.train_models.grounding import HELD_OUT_SEED
from curation.playground.train_models.loop import (
    Metrics,
    TrainingBudget,
    TrainingRecipe,
    disable_gradients,
    train_recipe,
)
from curation.playground.train_models.sample_cache import SampleCache

SIDE: Final = 128
# Written to sam_playground.json, from which `sam_original` builds the model.
MODEL_SIZES: Final[dict[str, Any]] = {
    "image_size": SIDE,
    "patch_size": 8,
    "encoder_width": 96,
    "encoder_depth": 3,
    "encoder_heads": 4,
    "encoder_global": [2],
    "encoder_window": 8,
    "encoder_mlp_ratio": 2.0,
    "width": 64,
    "mask_channels": 16,
    "decoder_depth": 2,
    "decoder_heads": 4,
    "decoder_mlp": 128,
    "iou_depth": 3,
    "iou_width": 64,
}
# Pixel statistics of every published SAM, 0..255, RGB.
MEAN: Final = (123.675, 116.28, 103.53)
STD: Final = (58.395, 57.12, 57.375)
# (width, height) of scenes; the model gets each with a longer side of `SIDE`.
SCENE_SIZES: Final = ((128, 96), (96, 96), (128, 128), (192, 144), (96, 128))


def save_segmenter(model: torch.nn.Module, output: Path) -> None:
    """Write `sam_playground.pth` (a state dict) with its `.json`, and the same weights as `transformers/`."""
    output.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), output / "sam_playground.pth")
    (output / "sam_playground.json").write_text(json.dumps(MODEL_SIZES, indent=1) + "\n", encoding="utf-8")
    convert_to_transformers(model.state_dict(), MODEL_SIZES, output / "transformers")


def convert_to_transformers(
    state: Mapping[str, torch.Tensor], sizes: Mapping[str, Any], output: Path
) -> None:
    """Write a segment-anything state dict as a Hugging Face folder for `SamModel`.

    Raises:
        RuntimeError: a weight has no counterpart in the other format.
    """
    from transformers import (
        SamConfig,
        SamImageProcessor,
        SamMaskDecoderConfig,
        SamModel,
        SamProcessor,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )

    side, patch, width = sizes["image_size"], sizes["patch_size"], sizes["width"]
    vision = SamVisionConfig(
        hidden_size=sizes["encoder_width"], output_channels=width, num_hidden_layers=sizes["encoder_depth"],
        num_attention_heads=sizes["encoder_heads"], image_size=side, patch_size=patch,
        mlp_ratio=sizes["encoder_mlp_ratio"],
        mlp_dim=int(sizes["encoder_width"] * sizes["encoder_mlp_ratio"]),
        window_size=sizes["encoder_window"], global_attn_indexes=sizes["encoder_global"],
        num_pos_feats=width // 2,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(
        hidden_size=width, image_size=side, patch_size=patch, mask_input_channels=sizes["mask_channels"]
    )
    decoder = SamMaskDecoderConfig(
        hidden_size=width, mlp_dim=sizes["decoder_mlp"], num_hidden_layers=sizes["decoder_depth"],
        num_attention_heads=sizes["decoder_heads"], iou_head_depth=sizes["iou_depth"],
        iou_head_hidden_dim=sizes["iou_width"],
    )  # fmt: skip
    model: Any = SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    )
    renamed = convert_sam_to_hf(state)
    # transformers ties this matrix under two names.
    shared = "shared_image_embedding.positional_embedding"
    renamed["prompt_encoder.shared_embedding.positional_embedding"] = renamed[shared].clone()
    model.load_state_dict(renamed)
    model.save_pretrained(output)
    images = SamImageProcessor(
        size={"longest_edge": side}, pad_size={"height": side, "width": side},
        mask_size={"longest_edge": side // 4}, mask_pad_size={"height": side // 4, "width": side // 4},
        image_mean=[m / 255 for m in MEAN], image_std=[s / 255 for s in STD],
    )  # fmt: skip
    make: Any = SamProcessor
    make(images).save_pretrained(output)


# ---- training ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SegmenterSample:
    """A scene at the model's size.

    Attributes:
        image: (3, h, w) uint8, longer side `SIDE`.
        boxes: (n, 4) xyxy in pixels of `image`.
        masks: (n, SIDE / 2, SIDE / 2) uint8, share of each pixel of the decoder's masks that the thing
            covers.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    masks: NDArray[np.uint8]


def make_segmenter_sample(seed: int, index: int) -> SegmenterSample:
    """Make the training scene with this number."""
    rng = np.random.default_rng([seed, 6, index])
    width, height = SCENE_SIZES[index % len(SCENE_SIZES)]
    while True:
        picture = sample_scene(rng, width=width, height=height)
        if picture.truths:
            return scale_scene(picture)


def scale_scene(picture: ScenePicture) -> SegmenterSample:
    """Scale a picture and its truth to the model's size."""
    image = scale_image(picture.image)
    height, width = image.shape[1:]
    factor = width / picture.image.shape[1]
    masks = np.zeros((len(picture.truths), SIDE // 2, SIDE // 2), np.uint8)
    for row, seen in enumerate(picture.truths):
        whole = cv2.resize(seen.mask.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_AREA)
        padded = np.zeros((SIDE, SIDE), np.uint8)
        padded[:height, :width] = whole
        masks[row] = cv2.resize(padded, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    boxes = np.array([seen.box for seen in picture.truths], np.float32) * np.float32(factor)
    return SegmenterSample(image, boxes, masks)


def scale_image(image: RGB) -> NDArray[np.uint8]:
    """Scale a picture (H, W, 3) to (3, h, w) with a longer side of `SIDE`, with the package's own code."""
    return np.asarray(resized(image, SIDE).numpy(), np.uint8)


def pad_images(images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Normalise pictures (3, h, w) of `scale_image` and pad them right and below: (N, 3, SIDE, SIDE)."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    batch = torch.zeros(len(images), 3, SIDE, SIDE)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = (torch.from_numpy(image).float() - mean) / std
    return batch


def decode_masks(
    sam: Any, embeddings: torch.Tensor, boxes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode one box per embedding, as `MaskDecoder.predict_masks` does, but for many pictures at once.

    The package's own method accepts many prompts of only one picture.

    Args:
        sam: the segmenter.
        embeddings: (N, C, g, g).
        boxes: (N, 4) xyxy, input pixels.

    Returns:
        Mask logits (N, 4, 4g, 4g), and scores (N, 4).
    """
    decoder = sam.mask_decoder
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight], 0)
    tokens = torch.cat([tokens.expand(len(boxes), -1, -1), sparse], 1)
    source = embeddings + dense
    n, channels, h, w = source.shape
    place = sam.prompt_encoder.get_dense_pe().expand(n, -1, -1, -1)
    states, source = decoder.transformer(source, place, tokens)
    fine = decoder.output_upscaling(source.transpose(1, 2).reshape(n, channels, h, w))
    kernels = torch.stack(
        [mlp(states[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], 1
    )
    masks = (kernels @ fine.flatten(2)).reshape(n, -1, *fine.shape[2:])
    return masks, decoder.iou_prediction_head(states[:, 0])


def compute_mask_loss(
    model: Any, seed: int, step: int, size: int, stock: SampleCache[SegmenterSample]
) -> torch.Tensor:
    """Compute the loss of batch number `step`: `size` pictures, with a box prompt for every thing in them."""
    rng = np.random.default_rng([seed, step, 4])
    samples = stock.draw_samples(size, rng)
    owner = [index for index, each in enumerate(samples) for _ in each.boxes]
    boxes = torch.from_numpy(np.concatenate([each.boxes for each in samples]))
    target = torch.from_numpy(np.concatenate([each.masks for each in samples])).float()[:, None] / 255
    # Boxes have errors like a detector's: up to 10 % of a side (SAM, appendix A).
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.from_numpy(rng.normal(0, 0.04, boxes.shape).clip(-0.1, 0.1)).float()
    noise *= torch.from_numpy(rng.uniform(0, 1, (len(boxes), 1)) < 0.6).float()
    embeddings = model.image_encoder(pad_images([each.image for each in samples]))[owner]
    masks, quality = decode_masks(model, embeddings, boxes + noise * sides)
    target = target.expand_as(masks)
    # The loss is mostly around the box. Pixels elsewhere are easy and would dominate the edge.
    near = _mark_near_boxes(boxes / 2, sides / 2, masks.shape[-1])[:, None]
    entropy = F.binary_cross_entropy_with_logits(masks, target, reduction="none")
    p = masks.sigmoid()
    focal = ((p - target).abs() ** 2 * entropy * (0.1 + near)).sum((2, 3)) / near.sum((2, 3))
    dice = 1 - (2 * (p * target).sum((2, 3)) + 1) / (p.sum((2, 3)) + target.sum((2, 3)) + 1)
    with torch.no_grad():
        found, meant = masks > 0, target > 0.5
        overlap = (found & meant).sum((2, 3)) / (found | meant).sum((2, 3)).clamp(min=1)
    return (20 * focal + dice).mean() + F.mse_loss(quality, overlap)


def _mark_near_boxes(boxes: torch.Tensor, sides: torch.Tensor, size: int) -> torch.Tensor:
    """Make masks (N, size, size) that are 1 inside the boxes widened by a quarter on each side."""
    grid = torch.arange(size) + 0.5
    wide = boxes + 0.25 * sides * torch.tensor([-1, -1, 1, 1])
    x = (grid > wide[:, :1]) & (grid < wide[:, 2:3])
    y = (grid > wide[:, 1:2]) & (grid < wide[:, 3:])
    return (y[:, :, None] & x[:, None, :]).float()


@disable_gradients
def evaluate_segmenter(model: Any, *, seed: int = HELD_OUT_SEED, scenes: int = 60) -> Metrics:
    """Measure the segmenter on unseen scenes of 128 x 96 px: true boxes, the best-scored of three masks.

    `mask_iou`: mean over things. `box_fill`: the same for the whole box as the mask, the baseline of a
    segmenter.
    """
    overlaps: list[float] = []
    fills: list[float] = []
    for first in range(0, scenes, 20):
        pictures = [make_scene(seed, i, width=128, height=96) for i in range(first, min(scenes, first + 20))]
        pictures = [p for p in pictures if p.truths]
        owner = [index for index, picture in enumerate(pictures) for _ in picture.truths]
        everything = [seen for picture in pictures for seen in picture.truths]
        boxes = torch.tensor([seen.box for seen in everything])
        embeddings = model.image_encoder(pad_images([scale_image(p.image) for p in pictures]))[owner]
        masks, quality = decode_masks(model, embeddings, boxes)
        masks = F.interpolate(masks, (SIDE, SIDE), mode="bilinear", align_corners=False) > 0
        best = quality[:, 1:].argmax(1) + 1
        for mask, seen in zip(masks[torch.arange(len(best)), best].numpy(), everything, strict=True):
            found = mask[: seen.mask.shape[0], : seen.mask.shape[1]]
            overlaps.append(float((found & seen.mask).sum() / (found | seen.mask).sum()))
            x0, y0, x1, y1 = seen.box
            fills.append(float(seen.mask.sum() / ((x1 - x0) * (y1 - y0))))
    return {"mask_iou": round(float(np.mean(overlaps)), 4), "box_fill": round(float(np.mean(fills)), 4)}


def train_segmenter(
    output: Path, *, seed: int = 0, budget: TrainingBudget, size: int = 10, scenes: int = 12_000
) -> Metrics:
    """Train the segmenter on `scenes` scenes and save it in `output`."""
    torch.manual_seed(seed)
    stock = SampleCache(lambda index: make_segmenter_sample(seed, index), scenes)
    recipe = TrainingRecipe(
        role="segmenter",
        model=build_from_sizes(MODEL_SIZES),
        loss=lambda model, step: compute_mask_loss(model, seed, step, size, stock),
        evaluate=evaluate_segmenter,
        save=save_segmenter,
        seed=seed,
        rate=2e-3,
        decay=0.01,
        average=0.995,
        details={
            "batch": size,
            "scenes": scenes,
            "format": "segment-anything .pth with sizes in .json; transformers folder",
            "input": f"longer side {SIDE} px",
        },
    )
    return train_recipe(recipe, budget, output)
