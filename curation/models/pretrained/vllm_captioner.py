"""Caption many clips at once with a vision-language model under vLLM, through Ray Data LLM.

vLLM schedules its own batches over its own workers. So it is no stage that is called with rows, but an
operator of the graph (`curation.runner.vllm_captions`). This file builds its requests and reads its results.
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
    """The requests of `reprise curate` to vLLM. `batch_size` is the number of clips per call of the engine.

    Options:
        prompt: the instruction to the model.
        max_frames: most frames of a clip, evenly spread, with the first and the last; 0: all.
        max_new_tokens: a longer caption is cut after its last complete sentence.
        max_side: larger frames are reduced to this longer side, px; 0: the processor decides.
        workers: number of engines, each with its own GPUs.
        engine: further arguments of the vLLM engine, for example {tensor_parallel_size: 2}.
    """

    name = "vllm"

    def __init__(self, spec: ModelSpec) -> None:
        """Check the checkpoint and the options without loading the model.

        Raises:
            RepriseError: the checkpoint is not here, damaged or lacks its tokenizer; or an option is wrong.
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
        """Refuse the call of roles.Captioner, because vLLM runs only in the graph.

        Raises:
            RepriseError: always.
        """
        raise RepriseError(
            "models.captioner=vllm works in `reprise curate`, through Ray Data LLM; "
            "for a single stage use models.captioner=vlm"
        )

    def build_engine_config(self) -> dict[str, Any]:
        """Return the arguments of `ray.data.llm.vLLMEngineProcessorConfig`."""
        frames = self._given["max_frames"]
        limit = {"limit_mm_per_prompt": {"image": frames}} if frames else {}
        return {
            "model_source": self._path,
            "batch_size": self._batch_size,
            "concurrency": self._given["workers"],
            "engine_kwargs": {**limit, **self._given["engine"]},
            "prepare_multimodal_stage": {"enabled": True, "chat_template_content_format": "openai"},
            # A failed request costs one clip its caption, and does not stop the run.
            "should_continue_on_error": True,
        }

    def build_chat_request(self, row: ClipRow) -> dict[str, Any]:
        """Build the request for a clip: OpenAI's chat messages and the sampling parameters.

        A clip that needs no caption stays in the engine's stream with a minimal request of one token.
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
            # Decoding is greedy, so that the same frames give the same caption.
            "sampling_params": {"temperature": 0.0, "max_tokens": tokens},
        }

    def store_caption(
        self, row: ClipRow, text: str | None, tokens: int, source: str, problem: str | None = None
    ) -> None:
        """Store the generated caption in a clip that has none. A clip without a result stops here.

        Args:
            row: the clip.
            text: the generated text.
            tokens: number of generated tokens; the maximum means that the text was cut.
            source: `registry.get_model_id` of this captioner.
            problem: the engine's error for this clip, if any.
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
    """Return whether a clip is still open and has no caption."""
    return row["status"] == "open" and not (row["caption"] or "").strip()


def encode_data_url(image: RGB) -> str:
    """Encode a picture as JPEG in a `data:` address."""
    data = encode_image(np.ascontiguousarray(image))["bytes"]
    assert data is not None
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
