"""Captions by vLLM: what it is asked, what becomes of its answers, and what is said where it is not here."""

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


def test_a_silent_clip_is_asked_about_with_its_frames(folder: Path) -> None:
    images = [picture(("red", 0.1 * number, 0.5, 0.2)) for number in range(10)]
    asked = load(folder, prompt="What is it?", max_frames=4, max_side=160).build_chat_request(
        clip(caption=None, images=images)
    )
    (message,) = asked["messages"]
    *pictures, words = message["content"]
    assert (message["role"], words) == ("user", {"type": "text", "text": "What is it?"})
    assert len(pictures) == 4 and {each["type"] for each in pictures} == {"image_url"}
    for each in pictures:
        kind, _, data = each["image_url"]["url"].partition(",")
        assert kind == "data:image/jpeg;base64"
        assert decode_image({"bytes": base64.b64decode(data), "path": None}).shape == (90, 160, 3)
    assert asked["sampling_params"] == {"temperature": 0.0, "max_tokens": 128}


def test_a_clip_with_a_caption_or_that_has_stopped_costs_one_token_and_keeps_what_it_says(
    folder: Path,
) -> None:
    captioner = load(folder)
    stopped = clip(caption=None)
    stop_row(stopped, "failed", "slice", "damaged")
    for row in (clip(), stopped):
        before = dict(row)
        asked = captioner.build_chat_request(row)
        assert asked["sampling_params"]["max_tokens"] == 1
        assert [part["type"] for part in asked["messages"][0]["content"]] == ["text"]
        captioner.store_caption(row, "yes", 1, "vllm@1")
        assert row == before


def test_answers_become_captions_and_cut_ones_end_with_a_sentence(folder: Path) -> None:
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
    """All of Ray Data LLM but vLLM itself: wrapped, asked, answered, heard."""
    captioner = load(folder)
    rows = [clip(0, caption=None), clip(1), clip(2, caption=None)]
    sent = encode_transit(rows, {"slice": 1.5})
    answers: list[dict[str, Any]] = []
    for number, wrapped in enumerate(pack_rows(sent).to_pylist()):
        asked = build_request(captioner, wrapped)
        assert asked["messages"] and asked["row"] == wrapped["row"]
        if number == 2:  # as Ray Data LLM hands on what the engine failed on
            answers.append({"row": asked["row"], "__inference_error__": "RuntimeError: no"})
        else:
            generated = {**asked, "generated_text": f"A ball, {number}.", "num_generated_tokens": 5}
            answers.append({**parse_response(generated), "__inference_error__": ""})
    said = pa.Table.from_pylist(answers, schema=ANSWERS)
    done, seconds = decode_transit(apply_caption(captioner, "vllm@1", said))
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


def test_trouble_of_an_earlier_worker_is_handed_on(folder: Path) -> None:
    table = build_error_table(encode_error(RepriseError("the disk is full")), TRANSIT_SCHEMA)
    (wrapped,) = pack_rows(table).to_pylist()
    asked = build_request(load(folder), wrapped)
    said = pa.Table.from_pylist([{"row": asked["row"], "message": "yes", "tokens": 1}], schema=ANSWERS)
    (row,) = apply_caption(load(folder), "vllm@1", said).to_pylist()
    assert "the disk is full" in row["error"]


def test_the_installed_ray_takes_the_engines_settings(folder: Path) -> None:
    llm = pytest.importorskip("ray.data.llm")
    settings = load(folder, workers=2, engine={"tensor_parallel_size": 2}).build_engine_config()
    made = llm.vLLMEngineProcessorConfig(**settings)
    assert made.model_source == str(folder) and made.concurrency == 2
    assert made.engine_kwargs["tensor_parallel_size"] == 2
    assert made.engine_kwargs["limit_mm_per_prompt"] == {"image": 8}


def test_where_vllm_is_not_installed_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(None, ["models.captioner=vllm"])
    published = registry.get_model_spec(config, "captioner")
    assert (
        published is not None and published.checkpoint == catalogue.list_published(role="captioner")[0].source
    )
    if registry.importlib.util.find_spec("vllm") is None:
        with pytest.raises(RepriseError, match=r"captioner=vllm needs vllm.*: pip install 'ray\[llm\]'"):
            registry.list_model_ids(config)


def test_a_stage_alone_says_what_to_use_instead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "require_packages", lambda role, spec: None)
    config = load_config(None, [f"models.captioner={{backend: vllm, checkpoint: {folder}}}"])
    with pytest.raises(RepriseError, match=r"for one stage alone use models\.captioner=vlm"):
        run_stage(build_stage("caption", config), [clip(caption=None)], {})


def test_wrong_options_and_checkpoints_are_one_line(folder: Path) -> None:
    with pytest.raises(RepriseError, match="must be positive"):
        load(folder, workers=0)
    with pytest.raises(RepriseError, match="has no option frames"):
        load(folder, frames="video")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(RepriseError, match="it has no tokenizer"):
        load(folder)
