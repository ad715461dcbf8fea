"""Measure the shipped models: the real backends on unseen scenes, against truth.

All models are built by `curation.models.registry`, so the measured models are those that a run uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from curation.config import CurationConfig, load_config
from curation.imaging.codec import compute_box_iou, pad_box
from curation.model_spec import ModelSpec
from curation.models import registry
from curation.models.roles import DetectionScene, Phrase
from curation.playground.scenes import ScenePicture, make_scene, sample_prompt
from curation.playground.train_models.auc import compute_auc
from curation.playground.world import NAMES, PERSON

Metrics = dict[str, float]
# Seeds of the scenes; training and its evaluation use other ones.
SEEDS: Final = {"detector": 77_001, "segmenter": 77_002, "scorer": 77_003, "faces": 77_004}
SIZES: Final = ((96, 96), (128, 96), (256, 192))  # (width, height): those of training, and that of videos


def measure_models(scenes: int) -> dict[str, Metrics]:
    """Measure all models, each on `scenes` scenes; return role -> metrics."""
    config = load_config(None, ["profile=playground"])
    return {
        "detector": measure_detector(registry.load_backend(config, "detector"), scenes),
        "segmenter": measure_segmenter(registry.load_backend(config, "segmenter"), scenes),
        "scorer": measure_scorer(registry.load_backend(config, "scorer"), scenes),
        "faces": measure_face_models(config, scenes),
    }


def make_scenes(role: str, scenes: int) -> list[ScenePicture]:
    """Make unseen scenes of all `SIZES`, each with at least one thing."""
    found = (
        make_scene(
            SEEDS[role], index, width=SIZES[index % len(SIZES)][0], height=SIZES[index % len(SIZES)][1]
        )
        for index in range(scenes)
    )
    return [picture for picture in found if picture.truths]


def make_phrases(names: Sequence[str]) -> list[Phrase]:
    """Make the phrases that a caption with these names would give."""
    return [Phrase(name, name, "human" if name == PERSON else name.split()[1], 1) for name in names]


def measure_detector(backend: Any, scenes: int) -> Metrics:
    """Measure a detector with prompts of all present names, rivals of them and others.

    `box_iou`: mean over present names of the IoU of the best-scored box with the nearest thing of that name;
    0 without a box. `accuracy`: share of them with IoU >= 0.5. `presence_auc`: AUC of the best score, for
    present against absent names. Thresholds are those of the backend.
    """
    seen = make_scenes("detector", scenes)
    prompts = []
    for index, picture in enumerate(seen):
        rng = np.random.default_rng([SEEDS["detector"], index, 1])
        prompts.append(list(dict.fromkeys([*picture.names, *sample_prompt(picture.names, rng)])))
    found = backend.detect(
        [DetectionScene(picture.image) for picture in seen], [make_phrases(names) for names in prompts]
    )
    overlaps: list[float] = []
    present: list[float] = []
    absent: list[float] = []
    for picture, names, boxes in zip(seen, prompts, found, strict=True):
        for number, name in enumerate(names):
            mine = [each for each in boxes if each.phrase == number]
            best = max(mine, key=lambda each: each.score * each.label, default=None)
            truths = [each.box for each in picture.truths if each.name == name]
            (present if truths else absent).append(best.score * best.label if best else 0.0)
            if truths:
                overlaps.append(max(compute_box_iou(best.box, truth) for truth in truths) if best else 0.0)
    return {
        "box_iou": _compute_mean(overlaps),
        "accuracy": _compute_mean([value >= 0.5 for value in overlaps]),
        "presence_auc": round(compute_auc(present, absent), 4),
    }


def measure_segmenter(backend: Any, scenes: int) -> Metrics:
    """Measure `mask_iou` with true boxes: the mean over all things."""
    seen = make_scenes("segmenter", scenes)
    boxes = [[each.box for each in picture.truths] for picture in seen]
    found = backend.segment([picture.image for picture in seen], boxes)
    overlaps = [
        float((mask & each.mask).sum() / (mask | each.mask).sum())
        for picture, one in zip(seen, found, strict=True)
        for each, mask in zip(picture.truths, one.masks, strict=True)
    ]
    return {"mask_iou": _compute_mean(overlaps)}


def measure_scorer(backend: Any, scenes: int) -> Metrics:
    """Measure a scorer on things with a visible share of at least 0.6, cropped as in the filters.

    `top1_of_64`: accuracy among the names. `person`: share of people whose best label among all 65 is
    "person".
    """
    crops, labels = [], []
    for picture in make_scenes("scorer", scenes):
        height, width = picture.image.shape[:2]
        for each in picture.truths:
            if each.share >= 0.6:
                x0, y0, x1, y1 = pad_box(each.box, 0.1, width, height)
                crops.append(picture.image[y0:y1, x0:x1])
                labels.append(each.name)
    texts = [f"a photo of a {name}" for name in (*NAMES, PERSON)]
    scores = backend.score(crops, texts)
    things = [row for row, name in enumerate(labels) if name != PERSON]
    people = [row for row, name in enumerate(labels) if name == PERSON]
    named = scores[things][:, : len(NAMES)].argmax(1)
    return {
        "top1_of_64": _compute_mean(
            [NAMES[at] == labels[row] for at, row in zip(named, things, strict=True)]
        ),
        "person": _compute_mean([bool(scores[row].argmax() == len(NAMES)) for row in people]),
    }


def measure_face_models(config: CurationConfig, scenes: int) -> Metrics:
    """See `train_models.faces.measure_pack`."""
    from curation.playground.train_models.faces import measure_pack

    spec = registry.get_model_spec(config, "faces")
    assert isinstance(spec, ModelSpec)
    return measure_pack(registry.build_backend("faces", spec), seed=SEEDS["faces"], pictures=scenes)


def _compute_mean(values: Sequence[float] | Sequence[bool]) -> float:
    return round(float(np.mean(values)), 4) if len(values) else 0.0
