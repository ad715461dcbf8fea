"""Captions by vLLM, which schedules its own batches and workers, through Ray Data LLM.

A row travels as one Arrow file beside its request and comes back with the response.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa

from curation.config import CurationConfig
from curation.models import registry
from curation.models.backends import VLLM
from curation.rows.tables import build_table


def is_vllm_captioner(config: CurationConfig) -> bool:
    """Return whether vLLM writes the captions. It is a separate operator."""
    return registry.get_backend_name(config, "captioner") == VLLM


def add_vllm_captions(ds: Any, config: CurationConfig) -> Any:
    """Add vLLM to a Ray Data dataset of transit rows.

    Raises:
        RepriseError: vLLM is not installed, or its checkpoint is not on this machine.
    """
    captioner = registry.load_required_backend(config, "captioner")
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    processor = build_processor(
        vLLMEngineProcessorConfig(**captioner.build_engine_config()),
        preprocess=partial(build_request, captioner),
        postprocess=parse_response,
    )
    packed = ds.map_batches(pack_rows, batch_size=1, batch_format="pyarrow", zero_copy_batch=True)
    apply = partial(apply_caption, captioner, registry.get_model_id(captioner))
    return processor(packed).map_batches(apply, batch_size=1, batch_format="pyarrow")


def pack_rows(clips: pa.Table) -> pa.Table:
    """Pack transit rows into one column, `row`, of Arrow files with one row each."""
    files = []
    for position in range(clips.num_rows):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, clips.schema) as writer:
            writer.write_table(clips.slice(position, 1))
        files.append(sink.getvalue().to_pybytes())
    return pa.table({"row": pa.array(files, pa.binary())})


def unpack_row(file: bytes) -> pa.Table:
    """Read the transit table of one row from its Arrow file."""
    with pa.ipc.open_stream(file) as reader:
        return reader.read_all()


def build_request(captioner: Any, packed: dict[str, Any]) -> dict[str, Any]:
    """Build the chat request about a packed row, beside it."""
    (row,) = unpack_row(packed["row"]).to_pylist()
    return {"row": packed["row"], **captioner.build_chat_request(row)}


def parse_response(response: dict[str, Any]) -> dict[str, Any]:
    """Take the packed row, the text and its number of tokens from what Ray Data LLM gives back."""
    return {
        "row": response["row"],
        "message": response["generated_text"],
        "tokens": int(response["num_generated_tokens"]),
    }


def apply_caption(captioner: Any, source: str, responses: pa.Table) -> pa.Table:
    """Unpack the rows and give them their captions; returns transit rows.

    Args:
        captioner: The backend, which accepts or rejects a response.
        source: Its id, for the column `caption_source`.
        responses: What `parse_response` took from each response.
    """
    done = []
    for response in responses.to_pylist():
        table = unpack_row(response["row"])
        (row,) = table.to_pylist()
        if row["error"] is None:
            problem = response.get("__inference_error__") or None
            captioner.store_caption(
                row, response.get("message"), response.get("tokens") or 0, source, problem
            )
        done.append(build_table([row], table.schema))
    return pa.concat_tables(done)
