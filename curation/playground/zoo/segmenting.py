"""The segmenter: a small segment-anything model, saved as its own `.pth` and as transformers' SAM.

Architecture: Kirillov et al., Segment Anything (arXiv 2304.02643), section 3 and appendix A, in the published
package's own classes. Loss: focal and dice 20 : 1 and a mean squared error on the predicted quality (appendix
A). A box says which thing is meant, so all four masks (the single one and the three of the ambiguous case)
learn the same thing here, rather than only the best of three.

`sam.json` beside the `.pth` says how the model is built; real checkpoints are told apart by the names in
`segment_anything.sam_model_registry` instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F

from curation.imaging import RGB
from curation.playground.scenes import SIZES, Picture, scene_at, some_scene
from curation.playground.zoo.grounding import HELD_OUT_SEED
from curation.playground.zoo.loop import Budget, Metrics, Recipe, fit, without_gradients

# What `build` needs; written to sam.json. Pixel statistics are those of every published SAM (0..255, RGB).
ARCHITECTURE: Final[dict[str, Any]] = {
    "image_size": 128,
    "patch_size": 8,
    "encoder_embed_dim": 96,
    "encoder_depth": 3,
    "encoder_num_heads": 4,
    "encoder_global_attn_indexes": [0, 1, 2],
    "window_size": 0,
    "prompt_embed_dim": 64,
    "mlp_ratio": 2.0,
    "mask_in_chans": 16,
    "decoder_depth": 2,
    "decoder_mlp_dim": 128,
    "decoder_num_heads": 4,
    "iou_head_depth": 3,
    "iou_head_hidden_dim": 64,
}
MEAN: Final = (123.675, 116.28, 103.53)
STD: Final = (58.395, 57.12, 57.375)


def build(architecture: Mapping[str, Any] = ARCHITECTURE) -> Any:
    """An untrained `segment_anything.modeling.Sam` of this architecture."""
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    a = architecture
    grid = a["image_size"] // a["patch_size"]
    width = a["prompt_embed_dim"]
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=a["image_size"], patch_size=a["patch_size"], embed_dim=a["encoder_embed_dim"],
            depth=a["encoder_depth"], num_heads=a["encoder_num_heads"],
            mlp_ratio=a["mlp_ratio"], out_chans=width,
            qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True,
            window_size=a["window_size"], global_attn_indexes=tuple(a["encoder_global_attn_indexes"]),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=width, image_embedding_size=(grid, grid),
            input_image_size=(a["image_size"], a["image_size"]), mask_in_chans=a["mask_in_chans"],
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=a["decoder_depth"], embedding_dim=width, mlp_dim=a["decoder_mlp_dim"],
                num_heads=a["decoder_num_heads"],
            ),
            transformer_dim=width, iou_head_depth=a["iou_head_depth"],
            iou_head_hidden_dim=a["iou_head_hidden_dim"],
        ),
        pixel_mean=list(MEAN),
        pixel_std=list(STD),
    )  # fmt: skip


def save(model: torch.nn.Module, output: Path) -> None:
    """`sam_playground.pth` (a state dict), `sam.json`, and the same weights as `transformers/`."""
    output.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), output / "sam_playground.pth")
    (output / "sam.json").write_text(json.dumps(ARCHITECTURE, indent=1) + "\n", encoding="utf-8")
    to_transformers(model.state_dict(), ARCHITECTURE, output / "transformers")


def load(folder: Path) -> Any:
    """The saved model, ready for `SamPredictor`."""
    model = build(json.loads((folder / "sam.json").read_text(encoding="utf-8")))
    model.load_state_dict(torch.load(folder / "sam_playground.pth", map_location="cpu", weights_only=True))
    return model.eval()


# ---- the same weights for transformers -----------------------------------------------------------

# Names of segment-anything -> names of transformers' SamModel, in this order.
_RENAMES: Final = (
    (r"^image_encoder", "vision_encoder"),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"neck\.0\.", "neck.conv1."),
    (r"neck\.1\.", "neck.layer_norm1."),
    (r"neck\.2\.", "neck.conv2."),
    (r"neck\.3\.", "neck.layer_norm2."),
    (r"\.blocks\.", ".layers."),
    (r"\.norm(\d|_final_attn)", r".layer_norm\1"),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.0\.", r"\1.proj_in."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.1\.", r"\1.layers.0."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.2\.", r"\1.proj_out."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"point_embeddings\.", "point_embed."),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
)


def to_transformers(state: Mapping[str, torch.Tensor], architecture: Mapping[str, Any], output: Path) -> None:
    """Write a segment-anything state dict as a Hugging Face folder for `SamModel`.

    Raises:
        ValueError: a weight has no counterpart, either way.
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

    a = architecture
    width, hidden = a["prompt_embed_dim"], a["encoder_embed_dim"]
    vision = SamVisionConfig(
        hidden_size=hidden, output_channels=width, num_hidden_layers=a["encoder_depth"],
        num_attention_heads=a["encoder_num_heads"], image_size=a["image_size"], patch_size=a["patch_size"],
        mlp_ratio=a["mlp_ratio"], mlp_dim=int(hidden * a["mlp_ratio"]), window_size=a["window_size"],
        global_attn_indexes=a["encoder_global_attn_indexes"], num_pos_feats=width // 2,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(
        hidden_size=width, image_size=a["image_size"], patch_size=a["patch_size"],
        mask_input_channels=a["mask_in_chans"],
    )  # fmt: skip
    decoder = SamMaskDecoderConfig(
        hidden_size=width, mlp_dim=a["decoder_mlp_dim"], num_hidden_layers=a["decoder_depth"],
        num_attention_heads=a["decoder_num_heads"], iou_head_depth=a["iou_head_depth"],
        iou_head_hidden_dim=a["iou_head_hidden_dim"],
    )  # fmt: skip
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    renamed = {}
    for name, value in state.items():
        new = name
        for pattern, replacement in _RENAMES:
            new = re.sub(pattern, replacement, new)
        renamed[new] = value.clone()
    shared = "shared_embedding.positional_embedding"
    renamed["shared_image_embedding.positional_embedding"] = renamed["prompt_encoder." + shared].clone()
    model: Any = SamModel(config)
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    missing = [name for name in missing if name != "prompt_encoder." + shared]
    if missing or unexpected:
        raise ValueError(f"SAM to transformers: missing {missing[:3]}, unexpected {unexpected[:3]}")
    model.save_pretrained(output)
    side = a["image_size"]
    images = SamImageProcessor(
        size={"longest_edge": side}, pad_size={"height": side, "width": side},
        mask_size={"longest_edge": side // 4}, mask_pad_size={"height": side // 4, "width": side // 4},
        image_mean=[m / 255 for m in MEAN], image_std=[s / 255 for s in STD],
    )  # fmt: skip
    make: Any = SamProcessor
    make(images).save_pretrained(output)


# ---- training ------------------------------------------------------------------------------------


def frame(image: RGB) -> torch.Tensor:
    """A picture no larger than the model's input -> (3, 128, 128), normalised, padded right and below."""
    side = ARCHITECTURE["image_size"]
    height, width = image.shape[:2]
    values = (torch.from_numpy(image).float() - torch.tensor(MEAN)) / torch.tensor(STD)
    square = torch.zeros(3, side, side)
    square[:, :height, :width] = values.permute(2, 0, 1)
    return square


def decode(sam: Any, embeddings: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One box per embedding: `MaskDecoder.predict_masks` for many pictures at once.

    embeddings (N, C, g, g), boxes (N, 4) xyxy in input pixels -> mask logits (N, 4, 4g, 4g), scores (N, 4).
    The package's own method takes many prompts of one picture only.
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


def _batch(pictures: list[Picture]) -> tuple[torch.Tensor, list[int], torch.Tensor, torch.Tensor]:
    """Pixels (B, 3, S, S), and per thing: whose picture, box (N, 4), mask (N, S, S)."""
    side = ARCHITECTURE["image_size"]
    owner, boxes, masks = [], [], []
    for index, picture in enumerate(pictures):
        for seen in picture.seen:
            whole = np.zeros((side, side), np.float32)
            whole[: seen.mask.shape[0], : seen.mask.shape[1]] = seen.mask
            owner.append(index)
            boxes.append(seen.box)
            masks.append(torch.from_numpy(whole))
    return torch.stack([frame(p.image) for p in pictures]), owner, torch.tensor(boxes), torch.stack(masks)


def loss_at(model: Any, seed: int, step: int, size: int) -> torch.Tensor:
    rng = np.random.default_rng([seed, step, 4])
    height, width = SIZES[int(rng.integers(len(SIZES)))]
    pictures: list[Picture] = []
    while len(pictures) < size:
        picture = some_scene(rng, width=width, height=height)
        if picture.seen:
            pictures.append(picture)
    images, owner, boxes, truth = _batch(pictures)
    # Boxes as a detector gives them: up to 10 % of a side off (SAM, appendix A).
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.from_numpy(rng.normal(0, 0.04, boxes.shape).clip(-0.1, 0.1)).float()
    noise *= torch.from_numpy(rng.uniform(0, 1, (len(boxes), 1)) < 0.6).float()
    embeddings = model.image_encoder(images)[owner]
    masks, quality = decode(model, embeddings, boxes + noise * sides)
    masks = F.interpolate(masks, truth.shape[-2:], mode="bilinear", align_corners=False)
    target = truth[:, None].expand_as(masks)
    # Only around the box: elsewhere a box prompt leaves no doubt, and easy pixels would drown the edge.
    near = _near(boxes, sides, truth.shape[-1])[:, None]
    entropy = F.binary_cross_entropy_with_logits(masks, target, reduction="none")
    p = masks.sigmoid()
    right = p * target + (1 - p) * (1 - target)
    focal = ((1 - right) ** 2 * entropy * (0.1 + near)).sum((2, 3)) / near.sum((2, 3))
    dice = 1 - (2 * (p * target).sum((2, 3)) + 1) / (p.sum((2, 3)) + target.sum((2, 3)) + 1)
    with torch.no_grad():
        found = masks > 0
        meant = target > 0.5
        overlap = (found & meant).sum((2, 3)) / (found | meant).sum((2, 3)).clamp(min=1)
    return (20 * focal + dice).mean() + F.mse_loss(quality, overlap)


def _near(boxes: torch.Tensor, sides: torch.Tensor, size: int) -> torch.Tensor:
    """1 inside the boxes widened by a quarter on each side: (N, size, size)."""
    grid = torch.arange(size) + 0.5
    wide = boxes + 0.25 * sides * torch.tensor([-1, -1, 1, 1])
    x = (grid > wide[:, :1]) & (grid < wide[:, 2:3])
    y = (grid > wide[:, 1:2]) & (grid < wide[:, 3:])
    return (y[:, :, None] & x[:, None, :]).float()


@without_gradients
def evaluate(model: Any, *, seed: int = HELD_OUT_SEED, scenes: int = 60) -> Metrics:
    """On unseen scenes, from true boxes, the best of three masks by the model's own score, as it is used.

    `mask_iou`: mean over things that show at least a quarter of themselves. `box_fill`: the same for the
    whole box taken as the mask, which is what a segmenter has to beat.
    """
    overlaps: list[float] = []
    fills: list[float] = []
    for first in range(0, scenes, 20):
        pictures = [scene_at(seed, i) for i in range(first, min(scenes, first + 20))]
        pictures = [p for p in pictures if p.seen]
        images, owner, boxes, _ = _batch(pictures)
        masks, quality = decode(model, model.image_encoder(images)[owner], boxes)
        masks = F.interpolate(masks, images.shape[-2:], mode="bilinear", align_corners=False) > 0
        best = quality[:, 1:].argmax(1) + 1
        everything = [seen for picture in pictures for seen in picture.seen]
        for mask, seen in zip(masks[torch.arange(len(best)), best].numpy(), everything, strict=True):
            if seen.share < 0.25:
                continue
            height, width = seen.mask.shape
            found = mask[:height, :width]
            overlaps.append(float((found & seen.mask).sum() / (found | seen.mask).sum()))
            x0, y0, x1, y1 = seen.box
            fills.append(float(seen.mask.sum() / ((x1 - x0) * (y1 - y0))))
    return {"mask_iou": round(float(np.mean(overlaps)), 4), "box_fill": round(float(np.mean(fills)), 4)}


def train(output: Path, *, seed: int = 0, budget: Budget, size: int = 6) -> Metrics:
    """Train the segmenter and save it in `output`."""
    torch.manual_seed(seed)
    recipe = Recipe(
        role="segmenter",
        model=build(),
        loss=lambda model, step: loss_at(model, seed, step, size),
        evaluate=evaluate,
        save=save,
        seed=seed,
        rate=2e-3,
        decay=0.01,
        average=0.99,
        about={
            "batch": size,
            "format": "segment-anything .pth + sam.json; transformers folder",
            "input": "128 px",
        },
    )
    return fit(recipe, budget, output)
