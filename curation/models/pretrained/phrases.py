"""Build Grounding DINO's prompts from phrases, and boxes per phrase from its output; both backends use it.

The model reads one line of text, "a red car . a dog .", and returns for each of its queries a box and one
logit per token. Parsing phrases from decoded tokens would merge neighbours and lose plurals. So each phrase
is tokenised separately, and the positions of its tokens are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou, nms

from curation.imaging.codec import RGB
from curation.models.pretrained.device import BatchRunner
from curation.models.roles import Detection, DetectionScene, Phrase
from reprise.errors import RepriseError

SEPARATORS = ("[CLS]", "[SEP]", ".", "?")
# Ids of the separators in bert-base-uncased; transformers' Grounding DINO has them as constants.
SEPARATOR_IDS = (101, 102, 1012, 1029)


@dataclass(frozen=True)
class Prompt:
    """One line of text: `ids` with [CLS] first and [SEP] last, at most as many as the model reads.

    `spans`: the tokens [start, stop) of each of its texts. `phrases`: for each text, the indices of the
    phrases with this text. Two subjects may have the same name, and then do not compete.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    phrases: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class PromptOutput:
    """What the model returns for one prompt; both tensors are float32 on the CPU.

    Attributes:
        prompt: the prompt.
        logits: (queries, tokens).
        boxes: (queries, 4), centre, width and height in shares of the picture.
    """

    prompt: Prompt
    logits: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class DetectionRules:
    """The rules from the model's output to detections. Every threshold is a probability."""

    box_threshold: float = 0.25  # OpenS2V-5M's, and transformers' default
    text_threshold: float = 0.25
    nms_iou: float = 0.7  # boxes of one phrase with a higher IoU are merged
    pool: Literal["max", "mean"] = "max"  # over a phrase's tokens; the released code uses max

    def __post_init__(self) -> None:
        for name in ("box_threshold", "text_threshold", "nms_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise RepriseError(f"models.detector: {name} must lie in 0..1, not {getattr(self, name)}")
        if self.pool not in ("max", "mean"):
            raise RepriseError(f"models.detector: pool must be max or mean, not {self.pool}")


class PromptPacker:
    """Packs phrases into prompts.

    Args:
        tokenizer: a BERT tokenizer of transformers.
        limit: tokens that the model reads, with [CLS] and [SEP].

    Raises:
        RepriseError: the tokenizer's separators do not have the ids that Grounding DINO's code expects.
    """

    def __init__(self, tokenizer: Any, limit: int = 256) -> None:
        found = tuple(tokenizer.convert_tokens_to_ids(list(SEPARATORS)))
        if found != SEPARATOR_IDS:
            # If a folder has no tokenizer, transformers builds one with an empty vocabulary.
            raise RepriseError(
                f"the tokenizer of {getattr(tokenizer, 'name_or_path', '')} is missing, or is not Grounding "
                f"DINO's (bert-base-uncased): it has {list(SEPARATORS)} at {list(found)}, "
                f"not at {list(SEPARATOR_IDS)}"
            )
        self.tokenizer = tokenizer
        self.limit = limit
        self._cls, self._sep, self._dot, _ = SEPARATOR_IDS

    def tokenize_phrase(self, text: str) -> list[int]:
        """Return the ids of one phrase without separators, cut to the length of a prompt; may be empty."""
        cleaned = " ".join(text.lower().replace(".", " ").replace("?", " ").split())
        ids = self.tokenizer.encode(cleaned, add_special_tokens=False)
        return [each for each in ids if each not in SEPARATOR_IDS][: self.limit - 3]

    def pack_prompts(self, texts: Sequence[str]) -> list[Prompt]:
        """Pack texts into as few prompts as possible, in their order. A text without tokens is left out."""
        same: dict[tuple[int, ...], list[int]] = {}
        for index, text in enumerate(texts):
            tokens = tuple(self.tokenize_phrase(text))
            if tokens:
                same.setdefault(tokens, []).append(index)
        lines: list[list[tuple[int, ...]]] = []
        room = 0
        for tokens in same:
            if len(tokens) + 1 > room:
                lines.append([])
                room = self.limit - 2
            lines[-1].append(tokens)
            room -= len(tokens) + 1
        return [self._build_prompt(line, same) for line in lines]

    def _build_prompt(
        self, line: Sequence[tuple[int, ...]], same: dict[tuple[int, ...], list[int]]
    ) -> Prompt:
        ids, spans = [self._cls], []
        for tokens in line:
            spans.append((len(ids), len(ids) + len(tokens)))
            ids += [*tokens, self._dot]
        return Prompt((*ids, self._sep), tuple(spans), tuple(tuple(same[tokens]) for tokens in line))


def pad_prompts(prompts: Sequence[Prompt], device: torch.device) -> dict[str, Tensor]:
    """Pad prompts: `input_ids`, `token_type_ids` and `attention_mask`, each (prompts, longest) int64."""
    longest = max(len(prompt.ids) for prompt in prompts)
    ids = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt.ids)] = torch.tensor(prompt.ids)
    lengths = torch.tensor([len(prompt.ids) for prompt in prompts])
    mask = (torch.arange(longest)[None] < lengths[:, None]).long()
    return {
        "input_ids": ids.to(device),
        "token_type_ids": torch.zeros_like(ids).to(device),
        "attention_mask": mask.to(device),
    }


def detect_scenes(
    scenes: Sequence[DetectionScene],
    phrases: Sequence[Sequence[Phrase]],
    prompter: PromptPacker,
    batches: BatchRunner,
    forward: Callable[[Sequence[RGB], Sequence[Prompt]], list[tuple[Tensor, Tensor]]],
    rules: DetectionRules,
) -> list[list[Detection]]:
    """Implement `roles.Detector.detect` around a model's `forward`.

    `forward` takes pictures of one size and a prompt for each; it returns (logits, boxes) per picture, see
    `PromptOutput`.

    Pictures of one batch have one size, because padding changes the backbone's output at their edges, and a
    box must not depend on the other clips of the batch.
    """
    requests = [
        (index, scene.image, prompt)
        for index, (scene, named) in enumerate(zip(scenes, phrases, strict=True))
        for prompt in prompter.pack_prompts([phrase.text for phrase in named])
    ]
    by_size: dict[tuple[int, ...], list[tuple[int, RGB, Prompt]]] = {}
    for item in requests:
        by_size.setdefault(item[1].shape, []).append(item)
    outputs: list[list[PromptOutput]] = [[] for _ in scenes]
    for items in by_size.values():
        found = batches(items, lambda part: forward([item[1] for item in part], [item[2] for item in part]))
        for (index, _, prompt), (logits, boxes) in zip(items, found, strict=True):
            outputs[index].append(PromptOutput(prompt, logits.float().cpu(), boxes.float().cpu()))
    return [
        collect_detections(given, scene.image.shape[1], scene.image.shape[0], rules)
        for given, scene in zip(outputs, scenes, strict=True)
    ]


def collect_detections(
    outputs: Sequence[PromptOutput], width: int, height: int, rules: DetectionRules
) -> list[Detection]:
    """Collect the boxes of each phrase in a picture of `width` x `height` px, the best `score * label` first.

    A query is used if the probability of its best phrase reaches `box_threshold`; that probability is the
    `score`. It is a detection of every phrase whose probability reaches `text_threshold`. With p the
    probability of the phrase, `label` is p / (p + the sum of the probabilities of the other texts) for the
    same box. For a text in another prompt, the probability is the highest among that prompt's boxes with an
    IoU of at least `nms_iou`.
    """
    boxes = [convert_to_pixels(output.boxes, width, height) for output in outputs]
    chances = [pool_probabilities(output.logits, output.prompt, rules.pool) for output in outputs]
    found: list[Detection] = []
    for own, output in enumerate(outputs):
        solid = (boxes[own][:, 2:] > boxes[own][:, :2]).all(1)
        confident = solid & (chances[own].amax(1) >= rules.box_threshold)
        for text, named in enumerate(output.prompt.phrases):
            chance = chances[own][:, text]
            mine = torch.nonzero(confident & (chance >= rules.text_threshold)).flatten()
            mine = mine[nms(boxes[own][mine], chance[mine], rules.nms_iou)]
            everyone = chances[own][mine]
            for other in range(len(outputs)):
                if other != own and len(mine):
                    near = box_iou(boxes[own][mine], boxes[other]) >= rules.nms_iou
                    theirs = torch.where(near[:, :, None], chances[other][None], 0.0).amax(1)
                    everyone = torch.cat([everyone, theirs], dim=1)
            for row, index in enumerate(mine.tolist()):
                box = [float(side) for side in boxes[own][index]]
                score = float(everyone[row].max())
                label = float(chance[index] / everyone[row].sum())
                found += [Detection(phrase, box, score, label) for phrase in named]
    return sorted(found, key=lambda each: (-each.score * each.label, each.phrase, each.box))


def pool_probabilities(logits: Tensor, prompt: Prompt, pool: str) -> Tensor:
    """Pool logits (queries, tokens) to (queries, texts): sigmoid, then max or mean over a text's tokens."""
    chances = logits.sigmoid()
    columns = [chances[:, start:stop] for start, stop in prompt.spans]
    return torch.stack([each.amax(1) if pool == "max" else each.mean(1) for each in columns], dim=1)


def convert_to_pixels(boxes: Tensor, width: int, height: int) -> Tensor:
    """Convert centre, width and height in shares of a picture to xyxy in its pixels, clipped; (n, 4) float32.

    The shares are of the picture without padding, so the conversion does not need the size at which the model
    ran.
    """
    xyxy = box_convert(boxes, "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
    limits = torch.tensor([width, height, width, height], dtype=xyxy.dtype)
    return torch.minimum(xyxy.clamp(min=0), limits)
