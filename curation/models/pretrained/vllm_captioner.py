"""A vision-language model under vLLM, through Ray Data LLM: captions for many clips at once.

vLLM schedules its own batches over its own workers, so it is no stage that is called with rows but an
operator of the graph (`curation.runner.vllm_captions`). This file holds what
goes in and what comes out of it, as pure functions.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from curation.imaging.codec import RGB, decode_image, encode_image
from curation.model_spec import ModelSpec
from curation.models.checkpoints import resolve_checkpoint
from curation.models.pretrained.loading import read_options, require_tokenizer
from curation.models.pretrained.vlm_captioner import DEFAULT_PROMPT, clean_answer, shrink_frames, thin_frames
from curation.rows.lifecycle import stop_row
from curation.rows.schema import ClipRow
from reprise.errors import RepriseError

_MODEL_LABEL = "a vision-language model"


class VllmCaptioner:
    """What `reprise curate` asks vLLM for. `batch_size` is clips per call of the engine.

    Options:
        prompt: what the model is asked.
        max_frames: more are thinned evenly, first and last kept; 0: never.
        max_new_tokens: a caption that does not end within them is cut after its last whole sentence.
        max_side: longer frames are scaled down to this many pixels; 0: the processor alone decides.
        workers: engines, each with its own GPUs.
        engine: further arguments of the vLLM engine, for example {tensor_parallel_size: 2}.
    """

    name = "vllm"

    def __init__(self, spec: ModelSpec) -> None:
        """Check what the engine will load; nothing is loaded here.

        Raises:
            RepriseError: the checkpoint is not here, damaged or without tokenizer; or an option is wrong.
        """
        self._given = read_options(
            spec, prompt=DEFAULT_PROMPT, max_frames=8, max_new_tokens=128, max_side=768, workers=1, engine={}
        )
        small = min(self._given[name] for name in ("max_new_tokens", "workers"))
        if small < 1 or min(self._given["max_frames"], self._given["max_side"]) < 0:
            raise RepriseError(
                "models: vllm options max_new_tokens, workers, max_frames and max_side must be positive"
            )
        checkpoint = resolve_checkpoint(spec)
        require_tokenizer(checkpoint, _MODEL_LABEL)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        self._path, self._batch_size = str(checkpoint.path), spec.batch_size

    def caption(self, clips: Sequence[Sequence[RGB]]) -> NoReturn:
        """As roles.Captioner, but it cannot be called by itself.

        Raises:
            RepriseError: always.
        """
        raise RepriseError(
            "models.captioner=vllm works in `reprise curate`, through Ray Data LLM; "
            "for one stage alone use models.captioner=vlm"
        )

    def build_engine_config(self) -> dict[str, Any]:
        """Arguments of `ray.data.llm.vLLMEngineProcessorConfig`."""
        frames = self._given["max_frames"]
        limit = {"limit_mm_per_prompt": {"image": frames}} if frames else {}
        return {
            "model_source": self._path,
            "batch_size": self._batch_size,
            "concurrency": self._given["workers"],
            "engine_kwargs": {**limit, **self._given["engine"]},
            "prepare_multimodal_stage": {"enabled": True, "chat_template_content_format": "openai"},
            # One clip without a caption, not a run without an end.
            "should_continue_on_error": True,
        }

    def build_chat_request(self, row: ClipRow) -> dict[str, Any]:
        """The request for a clip: OpenAI's chat messages, and how to answer.

        A clip that needs no caption takes its place in the engine's stream with the shortest of questions.
        """
        needed = needs_caption(row) and bool(row["frames"])
        content: list[dict[str, Any]] = []
        if needed:
            frames = [decode_image(frame["image"]) for frame in row["frames"]]
            shown = shrink_frames(thin_frames(frames, self._given["max_frames"]), self._given["max_side"])
            content += [{"type": "image_url", "image_url": {"url": encode_data_url(each)}} for each in shown]
        content.append({"type": "text", "text": self._given["prompt"] if needed else "Say: yes."})
        tokens = self._given["max_new_tokens"] if needed else 1
        return {
            "messages": [{"role": "user", "content": content}],
            # Greedy: the same frames give the same words.
            "sampling_params": {"temperature": 0.0, "max_tokens": tokens},
        }

    def store_caption(
        self, row: ClipRow, text: str | None, tokens: int, source: str, problem: str | None = None
    ) -> None:
        """Put an answer into a clip that has no caption; one that gets none stops here.

        Args:
            row: the clip.
            text: what was generated.
            tokens: how many were generated: all that were allowed means that it was cut.
            source: `registry.get_model_id` of this captioner.
            problem: what the engine says where it failed on this clip.
        """
        if not needs_caption(row):
            return
        if problem:
            stop_row(row, "failed", "caption", " ".join(f"vLLM: {problem}".split())[:300])
            return
        caption = clean_answer(text or "", cut=tokens >= self._given["max_new_tokens"])
        if caption:
            row["caption"], row["caption_source"] = caption, source
        else:
            stop_row(row, "rejected", "caption", "no caption")


def needs_caption(row: ClipRow) -> bool:
    """Whether a clip is still worked on and has no caption."""
    return row["status"] == "open" and not (row["caption"] or "").strip()


def encode_data_url(image: RGB) -> str:
    """A picture as JPEG in a `data:` address."""
    data = encode_image(np.ascontiguousarray(image))["bytes"]
    assert data is not None
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
