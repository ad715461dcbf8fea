"""Captions by vLLM: its requests, its responses, and the error if it is not installed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("torch", reason="the pretrained profile is not installed")

from curation.config import load_config
from curation.imaging.codec import decode_image
from curation.model_spec import ModelSpec
from curation.models import catalogue, registry
from curation.models.pretrained.vllm_captioner import VllmCaptioner
from curation.rows.lifecycle import stop_row
from curation.runner.graph import build_stage
from curation.runner.transport import (
    TRANSIT_SCHEMA,
    build_error_table,
    decode_transit,
    encode_transit,
)
from curation.runner.vllm_captions import apply_caption, build_request, pack_rows, parse_response
from curation.stages.stage import run_stage
from reprise.errors import RepriseError
from reprise.worker_errors import encode_error
from tests.curation.clips import clip, picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint as far as anybody looks at it before vLLM does."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def load(folder: Path, **options: Any) -> VllmCaptioner:
    return VllmCaptioner(ModelSpec(backend="vllm", checkpoint=str(folder), batch_size=4, options=options))


def test_a_clip_without_a_caption_is_requested_with_its_frames(folder: Path) -> None:
    images = [picture(("red", 0.1 * number, 0.5, 0.2)) for number in range(10)]
    request = load(folder, prompt="What is it?", max_frames=4, max_side=160).build_chat_request(
        clip(caption=None, images=images)
    )
    (message,) = request["messages"]
    *pictures, text_part = message["content"]
    assert (message["role"], text_part) == ("user", {"type": "text", "text": "What is it?"})
    assert len(pictures) == 4 and {each["type"] for each in pictures} == {"image_url"}
    for each in pictures:
        kind, _, data = each["image_url"]["url"].partition(",")
        assert kind == "data:image/jpeg;base64"
        assert decode_image({"bytes": base64.b64decode(data), "path": None}).shape == (90, 160, 3)
    assert request["sampling_params"] == {"temperature": 0.0, "max_tokens": 128}


def test_a_clip_with_a_caption_or_a_stop_takes_one_token_and_is_not_changed(
    folder: Path,
) -> None:
    captioner = load(folder)
    stopped = clip(caption=None)
    stop_row(stopped, "failed", "slice", "damaged")
    for row in (clip(), stopped):
        before = dict(row)
        request = captioner.build_chat_request(row)
        assert request["sampling_params"]["max_tokens"] == 1
        assert [part["type"] for part in request["messages"][0]["content"]] == ["text"]
        captioner.store_caption(row, "yes", 1, "vllm@1")
        assert row == before


def test_responses_become_captions_and_truncated_ones_end_with_a_sentence(folder: Path) -> None:
    captioner = load(folder, max_new_tokens=20)
    row = clip(caption=None)
    captioner.store_caption(row, "Sure! A red ball rolls by. It then", 20, "vllm@1#sha256=ab")
    assert (row["caption"], row["caption_source"]) == ("A red ball rolls by.", "vllm@1#sha256=ab")
    nothing, failed = clip(1, caption=None), clip(2, caption=None)
    captioner.store_caption(nothing, " ", 1, "vllm@1")
    captioner.store_caption(failed, None, 0, "vllm@1", "ValueError: prompt too\nlong")
    assert nothing["stop"] is not None and failed["stop"] is not None
    assert (nothing["status"], nothing["stop"]["reason"]) == ("rejected", "no caption")
    assert (failed["status"], failed["stop"]["reason"]) == ("failed", "vLLM: ValueError: prompt too long")
    assert failed["stop"]["stage"] == "caption"


def test_rows_go_through_the_engine_unharmed(folder: Path) -> None:
    """All steps of Ray Data LLM except vLLM: wrap a row, build the request, parse the response, store it."""
    captioner = load(folder)
    rows = [clip(0, caption=None), clip(1), clip(2, caption=None)]
    sent = encode_transit(rows, {"slice": 1.5})
    responses: list[dict[str, Any]] = []
    for number, wrapped in enumerate(pack_rows(sent).to_pylist()):
        request = build_request(captioner, wrapped)
        assert request["messages"] and request["row"] == wrapped["row"]
        if number == 2:  # as Ray Data LLM hands on what the engine failed on
            responses.append({"row": request["row"], "__inference_error__": "RuntimeError: no"})
        else:
            generated = {**request, "generated_text": f"A ball, {number}.", "num_generated_tokens": 5}
            responses.append({**parse_response(generated), "__inference_error__": ""})
    response_table = pa.Table.from_pylist(responses, schema=ANSWERS)
    done, seconds = decode_transit(apply_caption(captioner, "vllm@1", response_table))
    assert seconds == {"slice": 1.5}
    assert [row["caption"] for row in done] == ["A ball, 0.", rows[1]["caption"], None]
    assert [row["status"] for row in done] == ["open", "open", "failed"]
    for before, after in zip(rows, done, strict=True):
        assert [frame["image"] for frame in after["frames"]] == [
            frame["image"] for frame in before["frames"]
        ][: len(after["frames"])]


ANSWERS = pa.schema(
    [
        ("row", pa.binary()),
        ("message", pa.string()),
        ("tokens", pa.int64()),
        ("__inference_error__", pa.string()),
    ]
)


def test_an_error_of_an_earlier_worker_is_passed_on(folder: Path) -> None:
    table = build_error_table(encode_error(RepriseError("the disk is full")), TRANSIT_SCHEMA)
    (wrapped,) = pack_rows(table).to_pylist()
    request = build_request(load(folder), wrapped)
    response_table = pa.Table.from_pylist(
        [{"row": request["row"], "message": "yes", "tokens": 1}], schema=ANSWERS
    )
    (row,) = apply_caption(load(folder), "vllm@1", response_table).to_pylist()
    assert "the disk is full" in row["error"]


def test_the_installed_ray_takes_the_engines_settings(folder: Path) -> None:
    llm = pytest.importorskip("ray.data.llm")
    settings = load(folder, workers=2, engine={"tensor_parallel_size": 2}).build_engine_config()
    made = llm.vLLMEngineProcessorConfig(**settings)
    assert made.model_source == str(folder) and made.concurrency == 2
    assert made.engine_kwargs["tensor_parallel_size"] == 2
    assert made.engine_kwargs["limit_mm_per_prompt"] == {"image": 8}


def test_without_vllm_the_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(None, ["models.captioner=vllm"])
    published = registry.get_model_spec(config, "captioner")
    assert (
        published is not None and published.checkpoint == catalogue.list_published(role="captioner")[0].source
    )
    if registry.importlib.util.find_spec("vllm") is None:
        with pytest.raises(RepriseError, match=r"captioner=vllm needs vllm.*: pip install 'ray\[llm\]'"):
            registry.list_model_ids(config)


def test_a_single_stage_names_the_backend_to_use_instead(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "require_packages", lambda role, spec: None)
    config = load_config(None, [f"models.captioner={{backend: vllm, checkpoint: {folder}}}"])
    with pytest.raises(RepriseError, match=r"for a single stage use models\.captioner=vlm"):
        run_stage(build_stage("caption", config), [clip(caption=None)], {})


def test_wrong_options_and_checkpoints_are_one_line(folder: Path) -> None:
    with pytest.raises(RepriseError, match="must be positive"):
        load(folder, workers=0)
    with pytest.raises(RepriseError, match="has no option frames"):
        load(folder, frames="video")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(RepriseError, match="it has no tokenizer"):
        load(folder)
