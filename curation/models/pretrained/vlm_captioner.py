"""Caption clips with a vision-language model through transformers, for example Qwen-VL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from curation.imaging.codec import RGB
from curation.model_spec import ModelSpec
from curation.models.checkpoints import resolve_checkpoint
from curation.models.pretrained.device import BatchRunner, choose_target
from curation.models.pretrained.loading import (
    load_pretrained,
    load_processor,
    move_to_device,
    read_options,
    require_tokenizer,
)
from reprise.errors import RepriseError

_MODEL_LABEL = "a vision-language model"
DEFAULT_PROMPT = (
    "Describe this video in one or two plain sentences. Name every person, animal and object that can be "
    "seen with its kind and appearance, how many there are and what each of them does. "
    "Only say what is visible."
)


class VlmCaptioner:
    """roles.Captioner. Decoding is greedy (temperature 0), so the same frames give the same caption.

    Options:
        prompt: the instruction to the model.
        frames: "video" (frames with their times) or "images" (for models without video).
        fps: frames per second of the input, as `slice.sample_fps`; models compute times from it.
        max_frames: most frames of a clip, evenly spread, with the first and the last; 0: all.
        max_new_tokens: a longer caption is cut after its last complete sentence.
        max_side: larger frames are reduced to this longer side, px; 0: the processor decides.
    """

    name = "vlm"

    def __init__(self, spec: ModelSpec) -> None:
        """Load model and processor from a folder.

        Raises:
            RepriseError: the folder is not here, damaged, of another kind of model, or lacks tokenizer, image
                processor or chat template.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        given = read_options(
            spec,
            prompt=DEFAULT_PROMPT,
            frames="video",
            fps=2.0,
            max_frames=16,
            max_new_tokens=128,
            max_side=768,
        )
        if given["frames"] not in ("video", "images"):
            raise RepriseError(f"models: vlm option frames must be video or images, not {given['frames']!r}")
        if (
            given["fps"] <= 0
            or given["max_new_tokens"] < 1
            or min(given["max_frames"], given["max_side"]) < 0
        ):
            raise RepriseError(
                "models: vlm options fps, max_new_tokens, max_frames and max_side must be positive"
            )
        self._given = given
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        self._target = choose_target(spec)
        require_tokenizer(checkpoint, _MODEL_LABEL)
        self._processor: Any = load_processor(AutoProcessor, checkpoint, f"the processor of {_MODEL_LABEL}")
        tokenizer = getattr(self._processor, "tokenizer", None)
        if tokenizer is None:
            raise RepriseError(
                f"{checkpoint.path} cannot be loaded as {_MODEL_LABEL}: its processor has no tokenizer"
            )
        if not getattr(self._processor, "chat_template", None):
            raise RepriseError(
                f"{checkpoint.path} has no chat template, so no prompt can be built: fetch it again"
            )
        if given["frames"] == "video" and getattr(self._processor, "video_processor", None) is None:
            raise RepriseError(f"{checkpoint.path} takes no video: set options.frames=images")
        # Padding is on the left: a shorter prompt with padding on the right would be continued after it.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._tokenizer = tokenizer
        self._model = load_pretrained(
            AutoModelForImageTextToText, checkpoint, _MODEL_LABEL, self._target.dtype
        ).to(self._target.device)
        # Published generation settings often sample. They are reset, because greedy decoding warns about
        # them.
        settings = self._model.generation_config
        settings.do_sample = False
        settings.temperature = settings.top_p = settings.top_k = None
        self._batches = BatchRunner(spec.batch_size)

    def caption(self, clips: Sequence[Sequence[RGB]]) -> list[str]:
        """Write one line per clip from its frames in time order; "" for a clip without frames."""
        shown = [
            shrink_frames(thin_frames(clip, self._given["max_frames"]), self._given["max_side"])
            for clip in clips
        ]
        captions = [""] * len(clips)
        # A video needs two frames. Pictures cannot share a batch with videos.
        kinds = [
            "" if not clip else "video" if self._given["frames"] == "video" and len(clip) > 1 else "images"
            for clip in shown
        ]
        for kind, run_batch in (("video", self._caption_videos), ("images", self._caption_images)):
            positions = [position for position, each in enumerate(kinds) if each == kind]
            texts = self._batches([shown[position] for position in positions], run_batch)
            for position, text in zip(positions, texts, strict=True):
                captions[position] = text
        return captions

    def _caption_videos(self, clips: Sequence[Sequence[RGB]]) -> list[str]:
        fps = float(self._given["fps"])
        inputs = self._processor(
            text=[self._build_prompt([{"type": "video"}])] * len(clips),
            videos=[np.stack(clip) for clip in clips],
            # Without metadata the processor assumes 24 frames per second and samples the frames again.
            video_metadata=[
                {
                    "total_num_frames": len(clip),
                    "fps": fps,
                    "duration": len(clip) / fps,
                    "frames_indices": list(range(len(clip))),
                    "height": clip[0].shape[0],
                    "width": clip[0].shape[1],
                }
                for clip in clips
            ],
            do_sample_frames=False,
            padding=True,
            return_tensors="pt",
        )
        return self._generate_texts(inputs)

    def _caption_images(self, clips: Sequence[Sequence[RGB]]) -> list[str]:
        inputs = self._processor(
            text=[self._build_prompt([{"type": "image"}] * len(clip)) for clip in clips],
            images=[list(clip) for clip in clips],
            padding=True,
            return_tensors="pt",
        )
        return self._generate_texts(inputs)

    def _build_prompt(self, shown: list[dict[str, str]]) -> str:
        content = [*shown, {"type": "text", "text": self._given["prompt"]}]
        return str(
            self._processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        )

    def _generate_texts(self, inputs: Any) -> list[str]:
        inputs = move_to_device(inputs, self._target.device, self._target.dtype)
        prompt_length = inputs["input_ids"].shape[1]
        found = self._model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._given["max_new_tokens"],
            pad_token_id=self._tokenizer.pad_token_id,
        )[:, prompt_length:]
        ends = self._get_end_tokens()
        texts = self._tokenizer.batch_decode(
            found, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return [
            clean_answer(text, cut=not any(int(token) in ends for token in tokens))
            for text, tokens in zip(texts, found, strict=True)
        ]

    def _get_end_tokens(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        if ends is None:
            ends = self._tokenizer.eos_token_id
        return {ends} if isinstance(ends, int) else set(ends or ())


_TURN = re.compile(r"^\s*(?:<\|im_start\|>)?\s*(?:assistant|model|ASSISTANT)\s*(?::|\n)\s*")
_THOUGHT = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)
_TOKEN = re.compile(r"<\|[^|<>]*\|>|</?s>|<pad>")
_OPENING = re.compile(
    r"^(?:sure|certainly|of course|okay|ok)\b[^.!:\n]{0,80}[.!:]\s+(?=\S)|"
    r"^(?:here(?:'s| is| are)\b[^:\n]{0,80}|(?:caption|description|answer))\s*:\s*",
    re.IGNORECASE,
)
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"))


def clean_answer(text: str, cut: bool = False) -> str:
    """Reduce a chat model's output to one plain line: no turns, thoughts, introductions, mark-up or quotes.

    Args:
        text: the output.
        cut: the output reached its token limit, so the text after its last complete sentence is dropped (if
            it has one).
    """
    # A thought that ends without a start began in the prompt.
    text = _THOUGHT.sub("", text.split("</think>")[-1] if "<think>" not in text else text)
    text = _TURN.sub("", _TOKEN.sub("", text))
    text = re.sub(r"^\s*[#>*-]+\s+", "", text, flags=re.MULTILINE).replace("**", "").replace("`", "")
    text = " ".join(text.split())
    before = None
    while before != text:
        before = text
        text = _OPENING.sub("", text).strip()
        for first, last in _QUOTES:
            inner = text[1:-1]
            if len(text) > 1 and text[0] == first and text[-1] == last and first not in inner:
                text = inner.strip()
    if cut:
        whole = re.match(r".*[.!?](?=\s|$)", text)
        text = whole.group() if whole else text
    return text


def thin_frames(clip: Sequence[RGB], most: int) -> list[RGB]:
    """Return at most `most` frames, evenly spread, with the first and the last; 0: all."""
    if not most or len(clip) <= most:
        return list(clip)
    return [clip[int(index)] for index in np.linspace(0, len(clip) - 1, most).round()]


def shrink_frames(clip: list[RGB], side: int) -> list[RGB]:
    """Reduce frames to one size, that of the first, with a longer side of at most `side` px."""
    if not clip:
        return clip
    height, width = clip[0].shape[:2]
    scale = min(1.0, side / max(height, width)) if side else 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return [
        frame
        if (frame.shape[1], frame.shape[0]) == size
        else np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
        for frame in clip
    ]
