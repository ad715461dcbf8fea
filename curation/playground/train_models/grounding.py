"""The detector: a small transformers Grounding DINO, trained from scratch, saved as a Hugging Face folder.

Architecture and loss: Liu et al., Grounding DINO (arXiv 2303.05499), sections 3 and 3.5: a Swin backbone, a
BERT text encoder whose phrases do not attend to each other, feature fusion, language-guided queries, and
DETR's set loss with a focal token-alignment term. The loss is implemented here, because the loss of
transformers 5.23 adds up the offsets of label maps wrongly for batches of more than two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from curation.imaging.codec import RGB, compute_box_iou
from curation.playground.scenes import SIZES, make_scene, sample_prompt, sample_scene
from curation.playground.train_models.auc import compute_auc
from curation.playground.train_models.loop import (
    Metrics,
    TrainingBudget,
    TrainingRecipe,
    disable_gradients,
    train_recipe,
)
from curation.playground.train_models.sample_cache import SampleCache
from curation.playground.world import COLOURS, PERSON, SHAPES

MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
HELD_OUT_SEED: Final = 900_001  # of scenes that no trainer uses: training seeds are smaller
# Grounding DINO's code separates phrases by these ids of the original BERT vocabulary, so they must stay.
SPECIAL_TOKENS: Final = {
    "[PAD]": 0,
    "[UNK]": 100,
    "[CLS]": 101,
    "[SEP]": 102,
    "[MASK]": 103,
    ".": 1012,
    "?": 1029,
}
# Words that name nothing in this world: the model must find nothing for them.
ABSENT_PHRASES: Final = ("dog", "grey car", "tall tree", "cup", "brown horse")


def build_detector_vocabulary() -> list[str]:
    """List a WordPiece vocabulary: the special tokens at their ids, then this world's words and plurals."""
    words = [
        *COLOURS,
        *SHAPES,
        *(make_plural(shape) for shape in SHAPES),
        PERSON,
        make_plural(PERSON),
        "people",
    ]
    size = 1030 + len(words)
    rows = [f"[unused{i}]" for i in range(size)]
    for token, index in SPECIAL_TOKENS.items():
        rows[index] = token
    rows[1030:] = words
    return rows


def make_plural(shape: str) -> str:
    """Return the plural of a shape."""
    return shape + ("es" if shape.endswith(("s", "x")) else "s")


def build_detector_tokenizer() -> Any:
    """Build the tokenizer of `build_detector_vocabulary`, 64 tokens a prompt."""
    from transformers import BertTokenizer

    return BertTokenizer(
        vocab={token: i for i, token in enumerate(build_detector_vocabulary())}, model_max_length=64
    )


def build_detector(seed: int) -> Any:
    """Build an untrained detector with weights drawn from a seed."""
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    torch.manual_seed(seed)
    swin: Any = SwinConfig  # its signature is generated and does not name `out_features`
    backbone = swin(
        image_size=96, patch_size=4, embed_dim=24, depths=[1, 2, 2, 1], num_heads=[1, 2, 4, 8], window_size=6,
        mlp_ratio=2.0, drop_path_rate=0.0, out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = BertConfig(
        vocab_size=len(build_detector_vocabulary()), hidden_size=64, num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=64, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=96, num_queries=20, encoder_layers=2,
        decoder_layers=2, encoder_ffn_dim=192, decoder_ffn_dim=192, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_n_points=2, decoder_n_points=4, dropout=0.0, fusion_droppath=0.0,
        max_text_len=64, num_feature_levels=3, auxiliary_loss=False, disable_custom_kernels=True,
    )  # fmt: skip
    model: Any = GroundingDinoForObjectDetection(config)
    # Scores are dot products of normalised vectors, +-10 at this width, so the set loss would start in the
    # thousands. A smaller norm of the text features reduces it to the range of the focal term. The norm of
    # the queries must not change: one head predicts boxes from queries before and after it.
    quiet = model.model.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    torch.nn.init.constant_(quiet.weight, 0.1)
    # Pictures and words attend to each other from the start, without waiting until the gates grow from 1e-4.
    for layer in model.model.encoder.layers:
        torch.nn.init.constant_(layer.fusion_layer.vision_param, 0.1)
        torch.nn.init.constant_(layer.fusion_layer.text_param, 0.1)
    # As in the original, a box starts at its reference point.
    for head in (*model.bbox_embed, *model.model.decoder.bbox_embed, model.model.encoder_output_bbox_embed):
        torch.nn.init.zeros_(head.layers[-1].weight)
        torch.nn.init.zeros_(head.layers[-1].bias)
    return model


def build_processor() -> Any:
    """Build the processor, which resizes to a shorter side of 96 px and a longer side of at most 192 px."""
    from transformers import GroundingDinoImageProcessor, GroundingDinoProcessor

    images = GroundingDinoImageProcessor(
        size={"shortest_edge": 96, "longest_edge": 192}, image_mean=list(MEAN), image_std=list(STD)
    )
    make: Any = GroundingDinoProcessor
    return make(images, build_detector_tokenizer())


def save_detector(model: torch.nn.Module, output: Path) -> None:
    """Write a folder of transformers, and the same weights in the original's files in `original/`."""
    trained: Any = model
    trained.save_pretrained(output)
    build_processor().save_pretrained(output)
    convert_to_original(output, output / "original")


def convert_to_original(trained: Path, output: Path) -> None:
    """Write a saved folder of transformers as groundingdino-py's `.pth`, config `.py` and BERT folder."""
    from safetensors.torch import load_file
    from transformers import AutoConfig

    from curation.models.checkpoints import Checkpoint
    from curation.models.pretrained.convert import convert_dino_from_hf
    from curation.models.pretrained.grounding_dino_original import build_dino_model as build_original
    from curation.models.pretrained.grounding_dino_original import read_original_config

    config: Any = AutoConfig.from_pretrained(trained)
    text = output / "text"
    config.text_config.save_pretrained(text)
    build_detector_tokenizer().save_pretrained(text)
    file = output / "GroundingDINO_playground.cfg.py"
    lines = (f"{key} = {value!r}" for key, value in _build_original_config(config, text.name).items())
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    nowhere = Checkpoint(trained, str(trained), "", "")
    like = build_original(read_original_config(file), text, nowhere).state_dict()
    state = convert_dino_from_hf(load_file(trained / "model.safetensors"), like)
    torch.save({"model": state}, output / "groundingdino_playground.pth")


def _build_original_config(config: Any, text: str) -> dict[str, Any]:
    """Translate a transformers config to groundingdino-py's settings. `text`: path of BERT's config."""
    swin = config.backbone_config
    return {
        "modelname": "groundingdino",
        "backbone": "swin_T_224_1k",
        "swin": {
            "embed_dim": swin.embed_dim,
            "depths": list(swin.depths),
            "num_heads": list(swin.num_heads),
            "window_size": swin.window_size,
            "mlp_ratio": swin.mlp_ratio,
        },
        "return_interm_indices": [1, 2, 3],
        "backbone_freeze_keywords": None,
        "position_embedding": "sine",
        "pe_temperatureH": config.positional_embedding_temperature,
        "pe_temperatureW": config.positional_embedding_temperature,
        "hidden_dim": config.d_model,
        "nheads": config.encoder_attention_heads,
        "num_queries": config.num_queries,
        "enc_layers": config.encoder_layers,
        "dec_layers": config.decoder_layers,
        "dim_feedforward": config.encoder_ffn_dim,
        "num_feature_levels": config.num_feature_levels,
        "enc_n_points": config.encoder_n_points,
        "dec_n_points": config.decoder_n_points,
        "query_dim": 4,
        "num_patterns": 0,
        "pre_norm": False,
        "dropout": 0.0,
        "text_dropout": 0.0,
        "fusion_dropout": 0.0,
        "fusion_droppath": 0.0,
        "transformer_activation": "relu",
        "two_stage_type": "standard",
        "two_stage_bbox_embed_share": False,
        "two_stage_class_embed_share": False,
        "dec_pred_bbox_embed_share": True,
        "embed_init_tgt": True,
        "use_text_enhancer": True,
        "use_fusion_layer": True,
        "use_text_cross_attention": True,
        "use_checkpoint": False,
        "use_transformer_ckpt": False,
        "dn_number": 0,
        "dn_box_noise_scale": 1.0,
        "dn_label_noise_ratio": 0.5,
        "dn_label_coef": 1.0,
        "dn_bbox_coef": 1.0,
        "dn_labelbook_size": 2000,
        "sub_sentence_present": True,
        "max_text_len": 256,
        "text_encoder_type": text,
    }


# ---- batches -------------------------------------------------------------------------------------


def normalise_images(images: Sequence[RGB], light: torch.Tensor | None = None) -> torch.Tensor:
    """Normalise pictures of one size, (H, W, 3) uint8 -> (B, 3, H, W), as the processor does.

    `light`: (B, 1, 1, 1), a factor on the brightness of each.
    """
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    if light is not None:
        batch = (batch * light).clamp(max=1)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return (batch - mean) / std


def encode_phrases(
    tokenizer: Any, prompts: Sequence[Sequence[str]]
) -> tuple[dict[str, torch.Tensor], list[list[list[int]]]]:
    """Encode prompts to model inputs, and return the token positions of each phrase of each prompt."""
    texts = [". ".join(prompt) + "." for prompt in prompts]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    places: list[list[list[int]]] = []
    for row in encoded["input_ids"].tolist():
        phrases: list[list[int]] = []
        run: list[int] = []
        for position, token in enumerate(row):
            if token in (0, 101, 102, 1012, 1029):
                if run:
                    phrases.append(run)
                run = []
            else:
                run.append(position)
        places.append(phrases)
    return dict(encoded), places


def _sample_phrases(names: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Sample the phrases of a picture's prompt: names, half of them of absent things, and often half names.

    A colour or a shape names every thing that has it. Half names teach the meaning of single words before the
    model distinguishes pairs.
    """
    there = list(dict.fromkeys(names))
    prompt = sample_prompt(there, rng)
    halves = [word for name in there for word in name.split() if rng.uniform() < 0.35]
    halves += [str(rng.choice(words)) for words in (COLOURS, SHAPES) if rng.uniform() < 0.4]
    strangers = [str(rng.choice(ABSENT_PHRASES))] if rng.uniform() < 0.15 else []
    for phrase in (*dict.fromkeys(halves), *strangers):
        if phrase not in prompt:
            prompt.insert(int(rng.integers(len(prompt) + 1)), phrase)
    return prompt


def _is_phrase_for(phrase: str, name: str) -> bool:
    """Return whether a phrase, a name or half of one, fits a thing of this name."""
    return phrase == name or phrase in name.split()


def _inflect_name(name: str, count: int, rng: np.random.Generator) -> str:
    """Inflect a name as in a caption: plural if there are several, and sometimes also for one."""
    if name in COLOURS:
        return name
    return make_plural(name) if (count > 1 and rng.uniform() < 0.5) or rng.uniform() < 0.08 else name


@dataclass(frozen=True, slots=True)
class DetectorSample:
    """A training scene: picture (H, W, 3) uint8, names, boxes (n, 4) in shares, cxcywh."""

    image: RGB
    names: tuple[str, ...]
    boxes: NDArray[np.float32]


def make_detector_sample(seed: int, index: int) -> DetectorSample:
    """Make the training scene with this number. The number modulo the length of `SIZES` selects its size."""
    rng = np.random.default_rng([seed, 5, index])
    height, width = SIZES[index % len(SIZES)]
    while True:
        picture = sample_scene(rng, width=width, height=height)
        if picture.truths:
            corners = np.array([each.box for each in picture.truths], np.float32).reshape(-1, 4)
            corners /= np.array([width, height, width, height], np.float32)
            boxes = np.concatenate(
                [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1
            )
            return DetectorSample(picture.image, tuple(each.name for each in picture.truths), boxes)


Targets = list[tuple[torch.Tensor, torch.Tensor]]


def make_detector_batch(
    seed: int, step: int, size: int, tokenizer: Any, stock: SampleCache[DetectorSample]
) -> tuple[torch.Tensor, dict[str, torch.Tensor], Targets]:
    """Make batch number `step`: pixels, text inputs, boxes (cxcywh, 0..1) and token targets per picture."""
    rng = np.random.default_rng([seed, step])
    samples = stock.draw_samples(size, rng, kind=int(rng.integers(len(SIZES))), kinds=len(SIZES))
    requested = [_sample_phrases(each.names, rng) for each in samples]
    prompts = [
        [
            _inflect_name(phrase, sum(_is_phrase_for(phrase, name) for name in each.names), rng)
            for phrase in prompt
        ]
        for each, prompt in zip(samples, requested, strict=True)
    ]
    text, places = encode_phrases(tokenizer, prompts)
    length = text["input_ids"].shape[1]
    images = []
    targets: Targets = []
    for each, prompt, positions in zip(samples, requested, places, strict=True):
        named = [[_is_phrase_for(phrase, name) for phrase in prompt] for name in each.names]
        wanted = [row for row, fits in enumerate(named) if any(fits)]
        boxes = torch.from_numpy(each.boxes[wanted])
        tokens = torch.zeros(len(wanted), length)
        for place, row in enumerate(wanted):
            for at, fits in zip(positions, named[row], strict=True):
                if fits:
                    tokens[place, at] = 1
        image = each.image
        if rng.uniform() < 0.5:  # a mirrored shape keeps its name
            image = image[:, ::-1]
            boxes = torch.cat([1 - boxes[:, :1], boxes[:, 1:]], 1)
        images.append(image)
        targets.append((boxes, tokens))
    light = torch.from_numpy(rng.uniform(0.92, 1.08, (size, 1, 1, 1))).float()
    return normalise_images(images, light), text, targets


# ---- loss ----------------------------------------------------------------------------------------


def _convert_to_corners(boxes: torch.Tensor) -> torch.Tensor:
    centre, size = boxes[..., :2], boxes[..., 2:].clamp(min=1e-6)
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def _compute_giou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Compute the generalised IoU (Rezatofighi et al., arXiv 1902.09630) of cxcywh boxes (..., 4)."""
    a, b = _convert_to_corners(one), _convert_to_corners(other)
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    inside = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    around = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    both, hull = inside.prod(-1), around.prod(-1)
    either = size_a.prod(-1) + size_b.prod(-1) - both
    return both / either - (hull - either) / hull


def compute_set_loss(
    logits: torch.Tensor, boxes: torch.Tensor, mask: torch.Tensor, targets: Targets, copies: int = 1
) -> torch.Tensor:
    """Compute DETR's set loss with token targets, for one set of predictions.

    Shapes: logits (B, Q, L), boxes (B, Q, 4) cxcywh, 0..1, mask (B, L) of real tokens. Matching costs are 1
    (class), 5 (L1) and 2 (GIoU), loss weights 2, 5 and 2, and focal gamma is 2, as in section 3.5 and the
    released config. Focal alpha is 0.5 instead of 0.25, because without pre-training the positives need a
    larger weight.

    `copies` > 1 matches that many queries with each thing. It is used for all layers but the last, which must
    find each thing once. Training is then several times faster (Zhao et al., MS-DETR, arXiv 2401.03989).
    """
    count = [len(true) * copies for true, _ in targets]
    total, most = max(1, sum(count)), max(1, max(count))
    real = mask[:, None, :].expand_as(logits)
    clean = torch.where(real, logits, torch.zeros_like(logits))
    # All pictures are matched together; shorter lists of things are padded.
    true_boxes = torch.full((len(targets), most, 4), 0.5)
    tokens = torch.zeros(len(targets), most, logits.shape[-1])
    for b, (true, tokens_of_thing) in enumerate(targets):
        true_boxes[b, : count[b]] = true.repeat(copies, 1)
        tokens[b, : count[b]] = tokens_of_thing.repeat(copies, 1)
    with torch.no_grad():
        p = clean.clamp(-30, 30).sigmoid()
        gain = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - 0.75 * p**2 * -(1 - p + 1e-8).log()
        weights = tokens / tokens.sum(2, keepdim=True).clamp(min=1)
        far = (boxes[:, :, None] - true_boxes[:, None]).abs().sum(-1)
        cost = torch.where(real, gain, torch.zeros_like(gain)) @ weights.transpose(1, 2)
        cost = (cost + 5 * far - 2 * _compute_giou(boxes[:, :, None], true_boxes[:, None])).numpy()
    rows, columns, owners = [], [], []
    for b, wanted in enumerate(count):
        found, meant = linear_sum_assignment(cost[b, :, :wanted])
        rows.append(found)
        columns.append(meant)
        owners.append(np.full(len(found), b))
    row, column, owner = (torch.from_numpy(np.concatenate(each)) for each in (rows, columns, owners))
    aim = torch.zeros_like(logits)
    aim[owner, row] = tokens[owner, column]
    entropy = F.binary_cross_entropy_with_logits(clean, aim, reduction="none")
    p = clean.sigmoid()
    right = p * aim + (1 - p) * (1 - aim)
    focal = 0.5 * (1 - right) ** 2 * entropy
    found, true = boxes[owner, row], true_boxes[owner, column]
    off = 5 * (found - true).abs().sum() + 2 * (1 - _compute_giou(found, true)).sum()
    return (2 * (focal * real).sum() + off) / total


def compute_full_loss(
    model: Any, images: torch.Tensor, text: dict[str, torch.Tensor], targets: Targets
) -> torch.Tensor:
    """Compute the set loss of every decoder layer and of the encoder's proposals.

    The loss uses all proposals, not only the best ones that become queries, because a model without
    pre-training needs many examples. (transformers returns only the best ones, without their gradient.)
    """
    out = model(pixel_values=images, **text)
    mask = text["attention_mask"].bool()
    length = mask.shape[1]
    loss = compute_set_loss(out.logits[..., :length], out.pred_boxes, mask, targets)
    states, known = out.intermediate_hidden_states, out.encoder_last_hidden_state_text
    for level in range(states.shape[1] - 1):
        reference = (
            out.init_reference_points if level == 0 else out.intermediate_reference_points[:, level - 1]
        )
        boxes = (
            model.bbox_embed[level](states[:, level]) + torch.special.logit(reference, eps=1e-5)
        ).sigmoid()
        logits = model.class_embed[level](states[:, level], known, mask)
        loss = loss + compute_set_loss(logits[..., :length], boxes, mask, targets, copies=3)
    proposals = out.enc_outputs_coord_logits.sigmoid()
    return loss + compute_set_loss(out.enc_outputs_class[..., :length], proposals, mask, targets, copies=4)


# ---- held-out ------------------------------------------------------------------------------------


@disable_gradients
def evaluate_detector(
    model: torch.nn.Module, tokenizer: Any, *, seed: int = HELD_OUT_SEED, scenes: int = 80
) -> Metrics:
    """Measure the detector on scenes of an unseen seed. Every prompt has rivals of the present names.

    `box_iou`: mean over present names of the IoU of the best-scored box with the nearest thing of that name.
    `accuracy`: share of them with IoU >= 0.5. `presence_auc`: AUC of a phrase's best score, for present
    against absent names.
    """
    overlaps: list[float] = []
    present: list[float] = []
    absent: list[float] = []
    for first in range(0, scenes, 20):
        pictures = [make_scene(seed, i) for i in range(first, min(scenes, first + 20))]
        pictures = [p for p in pictures if p.truths]
        prompts = []
        for index, picture in enumerate(pictures):
            rng = np.random.default_rng([seed, first + index, 1])
            prompts.append(list(dict.fromkeys([*picture.names, *sample_prompt(picture.names, rng)])))
        text, places = encode_phrases(tokenizer, prompts)
        out: Any = model(pixel_values=normalise_images([p.image for p in pictures]), **text)
        scores = out.logits.sigmoid()
        for b, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
            height, width = picture.image.shape[:2]
            boxes = _convert_to_corners(out.pred_boxes[b]) * torch.tensor([width, height, width, height])
            for name, positions in zip(prompt, places[b], strict=True):
                of_phrase = scores[b][:, positions].mean(1)
                best = int(of_phrase.argmax())
                truths = [each.box for each in picture.truths if each.name == name]
                (present if truths else absent).append(float(of_phrase[best]))
                if truths:
                    overlaps.append(max(compute_box_iou(boxes[best].tolist(), truth) for truth in truths))
    return {
        "box_iou": round(float(np.mean(overlaps)), 4),
        "accuracy": round(float(np.mean(np.array(overlaps) >= 0.5)), 4),
        "presence_auc": round(compute_auc(present, absent), 4),
    }


def train_detector(
    output: Path, *, seed: int = 0, budget: TrainingBudget, size: int = 16, scenes: int = 24_000
) -> Metrics:
    """Train the detector on `scenes` scenes and save it in `output`."""
    tokenizer = build_detector_tokenizer()
    stock = SampleCache(lambda index: make_detector_sample(seed, index), scenes)

    def compute_loss(model: torch.nn.Module, step: int) -> torch.Tensor:
        return compute_full_loss(model, *make_detector_batch(seed, step, size, tokenizer, stock))

    recipe = TrainingRecipe(
        role="detector",
        model=build_detector(seed),
        loss=compute_loss,
        evaluate=lambda model: evaluate_detector(model, tokenizer),
        save=save_detector,
        seed=seed,
        rate=1e-3,
        decay=0.01,
        details={
            "batch": size,
            "scenes": scenes,
            "format": "transformers folder",
            "input": "shorter side 96 px",
        },
    )
    return train_recipe(recipe, budget, output)
