"""The image-text scorer: a small open_clip model, trained from scratch, saved as a `local-dir:` folder.

Architecture: Radford et al., CLIP (arXiv 2103.00020), the ResNet variant (section 2.4), which learns a drawn
world in minutes; a ViT of this size needs longer. The loss is CLIP's image-to-text loss only. Every batch is
scored against each name once, so that two pictures of the same name are not each other's negatives, and also
against the single colours and shapes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from curation.imaging.codec import RGB, pad_box
from curation.playground.scenes import ScenePicture, ThingTruth, make_scene, sample_scene
from curation.playground.train_models.grounding import HELD_OUT_SEED, MEAN, STD, make_plural, normalise_images
from curation.playground.train_models.loop import (
    Metrics,
    TrainingBudget,
    TrainingRecipe,
    disable_gradients,
    train_recipe,
)
from curation.playground.train_models.sample_cache import SampleCache
from curation.playground.world import COLOURS, NAMES, PERSON, SHAPES

SIDE: Final = 64
FILL: Final = 128  # grey level that pads a crop to a square, 0..255
LABELS: Final = (*NAMES, PERSON)
SCENE_SIZES: Final = ((96, 96), (128, 96), (192, 144))  # (width, height) of scenes
TEMPLATES: Final = (
    "a photo of a {}", "a picture of a {}", "{}", "a {}", "the {}", "an image of a {}", "a photo of the {}",
    "a cropped photo of a {}", "a photo of {s}", "two {s}",
)  # fmt: skip
_FILLER_WORDS: Final = (
    "a", "an", "the", "of", "in", "on", "and", "with", "one", "two", "three", "some", "several", "photo",
    "picture", "image", "cropped", "background",
)  # fmt: skip
_PLAIN_TEMPLATE: Final = "a photo of a {}"
# Texts with half a name: pictures are also classified by their colour and by their shape. Without these texts
# an untrained model learns shapes late, because the colour already distinguishes most names.
_HALF_NAME_TEXTS: Final = (
    *(f"a picture of a {colour}" for colour in COLOURS),
    *(f"a photo of a {s}" for s in SHAPES),
)


def build_scorer_vocabulary() -> list[str]:
    """List the vocabulary of the scorer, the special tokens first."""
    return [
        "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *_FILLER_WORDS, *COLOURS, *SHAPES,
        *(make_plural(s) for s in SHAPES),
        PERSON, make_plural(PERSON), "people",
    ]  # fmt: skip


def build_scorer_tokenizer() -> Any:
    """Build the tokenizer of `build_scorer_vocabulary`, 16 tokens a text."""
    from transformers import BertTokenizer

    return BertTokenizer(
        vocab={token: i for i, token in enumerate(build_scorer_vocabulary())}, model_max_length=16
    )


def build_model_config() -> dict[str, Any]:
    """Return the `model_cfg` of open_clip_config.json."""
    return {
        "embed_dim": 64,
        "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": len(build_scorer_vocabulary()),
            "hf_tokenizer_name": "playground",  # with any name, open_clip reads the tokenizer of the folder
            "width": 64,
            "heads": 4,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": 2,
        },
    }


def build_scorer(seed: int) -> Any:
    """Build an untrained scorer with weights drawn from a seed."""
    from open_clip.model import CLIP

    torch.manual_seed(seed)
    config = build_model_config()
    text = {k: v for k, v in config["text_cfg"].items() if k != "hf_tokenizer_name"}
    return CLIP(config["embed_dim"], config["vision_cfg"], text)


def save_scorer(model: torch.nn.Module, output: Path) -> None:
    """Write a scorer as an open_clip folder."""
    from safetensors.torch import save_file

    output.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, output / "open_clip_model.safetensors")
    preprocess = {
        "size": [SIDE, SIDE], "mode": "RGB", "mean": list(MEAN), "std": list(STD), "interpolation": "bicubic",
        "resize_mode": "longest", "fill_color": FILL,
    }  # fmt: skip
    config = {"model_cfg": build_model_config(), "preprocess_cfg": preprocess}
    (output / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    build_scorer_tokenizer().save_pretrained(output)


# ---- crops ---------------------------------------------------------------------------------------


def fit_square(image: RGB, side: int = SIDE) -> RGB:
    """Scale the longer side to `side` and fill the rest with grey, as the saved preprocessing does."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    square = np.full((side, side, 3), FILL, np.uint8)
    top, left = (side - h) // 2, (side - w) // 2
    square[top : top + h, left : left + w] = resized
    return square


def crop_thing(picture: ScenePicture, seen: ThingTruth, padding: float = 0.1) -> RGB:
    """Crop a thing by its box, widened by `padding` of its sides."""
    height, width = picture.image.shape[:2]
    x0, y0, x1, y1 = pad_box(seen.box, padding, width, height)
    return picture.image[y0:y1, x0:x1]


def _sample_crop(picture: ScenePicture, seen: ThingTruth, rng: np.random.Generator) -> RGB:
    """Sample a crop with an inexact box, sometimes on a plain ground like a cut-out."""
    height, width = picture.image.shape[:2]
    x0, y0, x1, y1 = seen.box
    w, h = x1 - x0, y1 - y0
    a, b, c, d = rng.uniform(-0.06, 0.25, 4)
    left, top, right, bottom = pad_box([x0 - a * w, y0 - b * h, x1 + c * w, y1 + d * h], 0, width, height)
    image = picture.image
    if rng.uniform() < 0.3:
        plain = np.full_like(image, int(rng.choice([0, 114, 127, 255])))
        image = np.where(seen.mask[..., None], image, plain)
    part = np.asarray(image[top:bottom, left:right], np.uint8)
    return part[:, ::-1] if rng.uniform() < 0.5 else part


def prepare_crops(crops: list[RGB], light: torch.Tensor | None = None) -> torch.Tensor:
    """Prepare crops of any sizes: (B, 3, 64, 64), normalised.

    `light`: (B, 1, 1, 1), factors on brightness.
    """
    square = [fit_square(np.ascontiguousarray(each)) for each in crops]
    return normalise_images(square, light).contiguous(memory_format=torch.channels_last)


def tokenize_texts(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Return token ids (texts, 16)."""
    encoded = tokenizer(texts, max_length=16, padding="max_length", truncation=True, return_tensors="pt")
    found: torch.Tensor = encoded["input_ids"]
    return found


def fill_template(template: str, name: str) -> str:
    """Put a name into a template: {} singular, {s} plural."""
    return template.replace("{s}", make_plural(name)).replace("{}", name)


def make_scene_picture(seed: int, index: int) -> ScenePicture:
    """Make the training scene with this number; it has at least one visible thing."""
    rng = np.random.default_rng([seed, 7, index])
    width, height = SCENE_SIZES[index % len(SCENE_SIZES)]
    while True:
        picture = sample_scene(rng, width=width, height=height)
        clear = tuple(seen for seen in picture.truths if seen.share >= 0.4)
        if clear:
            return ScenePicture(picture.image, clear)


def make_crop_batch(
    seed: int, step: int, size: int, stock: SampleCache[ScenePicture]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a training batch: pixels (B, 3, 64, 64) and the label of each, an index into `LABELS`."""
    rng = np.random.default_rng([seed, step, 2])
    crops: list[RGB] = []
    labels: list[int] = []
    for picture in stock.draw_samples(size, rng):
        for seen in picture.truths:
            crops.append(_sample_crop(picture, seen, rng))
            labels.append(LABELS.index(seen.name))
    light = torch.from_numpy(rng.uniform(0.9, 1.1, (size, 1, 1, 1))).float()
    return prepare_crops(crops[:size], light), torch.tensor(labels[:size])


@disable_gradients
def evaluate_scorer(
    model: torch.nn.Module, tokenizer: Any, *, seed: int = HELD_OUT_SEED, scenes: int = 150
) -> Metrics:
    """Measure the top-1 accuracy among the 64 names on crops from unseen scenes.

    Things have a visible share of at least 0.6. `person` is the share of people whose best label among all 65
    is "person".
    """
    crops: list[RGB] = []
    labels: list[int] = []
    for index in range(scenes):
        picture = make_scene(seed, index)
        for seen in picture.truths:
            if seen.share >= 0.6:
                crops.append(crop_thing(picture, seen))
                labels.append(LABELS.index(seen.name))
    scorer: Any = model
    known = scorer.encode_text(
        tokenize_texts(tokenizer, [fill_template(_PLAIN_TEMPLATE, name) for name in LABELS]), normalize=True
    )
    looks = torch.cat(
        [
            scorer.encode_image(prepare_crops(crops[i : i + 64]), normalize=True)
            for i in range(0, len(crops), 64)
        ]
    )
    scores = looks @ known.T
    truth = torch.tensor(labels)
    things = truth < len(NAMES)
    hit = scores[things][:, : len(NAMES)].argmax(1) == truth[things]
    best: NDArray[np.bool_] = (scores[~things].argmax(1) == truth[~things]).numpy()
    return {"top1_of_64": round(float(hit.float().mean()), 4), "person": round(float(best.mean()), 4)}


def train_scorer(
    output: Path, *, seed: int = 0, budget: TrainingBudget, size: int = 64, scenes: int = 20_000
) -> Metrics:
    """Train the scorer on `scenes` scenes and save it in `output`."""
    tokenizer = build_scorer_tokenizer()
    stock = SampleCache(lambda index: make_scene_picture(seed, index), scenes)

    def compute_loss(model: torch.nn.Module, step: int) -> torch.Tensor:
        scorer: Any = model
        images, labels = make_crop_batch(seed, step, size, stock)
        templates = np.random.default_rng([seed, step, 3]).choice(len(TEMPLATES), len(LABELS))
        texts = [fill_template(TEMPLATES[t], name) for t, name in zip(templates, LABELS, strict=True)]
        known = scorer.encode_text(tokenize_texts(tokenizer, [*texts, *_HALF_NAME_TEXTS]), normalize=True)
        scores = scorer.encode_image(images, normalize=True) @ known.T
        scores = scores * scorer.logit_scale.exp().clamp(max=100)
        thing = labels < len(NAMES)
        colours, shapes = labels // len(SHAPES), labels % len(SHAPES)
        whole, halves = scores[:, : len(LABELS)], scores[thing, len(LABELS) :]
        return (
            F.cross_entropy(whole, labels)
            + 0.5 * F.cross_entropy(halves[:, : len(COLOURS)], colours[thing])
            + 0.5 * F.cross_entropy(halves[:, len(COLOURS) :], shapes[thing])
        )

    recipe = TrainingRecipe(
        role="scorer",
        model=build_scorer(seed).to(memory_format=torch.channels_last),
        loss=compute_loss,
        evaluate=lambda model: evaluate_scorer(model, tokenizer),
        save=save_scorer,
        seed=seed,
        rate=2e-3,
        decay=0.05,
        average=0.99,
        details={
            "batch": size,
            "scenes": scenes,
            "format": "open_clip local-dir folder",
            "input": f"{SIDE} px",
        },
    )
    return train_recipe(recipe, budget, output)
