"""What must hold for any bytes: no exception but those that a person is meant to read, each of one line."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from curation.config import CurationConfig
from curation.sources.list_videos import list_videos
from reprise.errors import RepriseError
from reprise.lists.captions import read_sidecar
from reprise.settings import load_settings
from training.config import TrainConfig
from training.latents.config import EncodeConfig

CONFIGS: tuple[type[BaseModel], ...] = (CurationConfig, EncodeConfig, TrainConfig)


def check_list(data: bytes, extension: str) -> None:
    """A list gives rows that can be stored, or one line."""
    with write_file(data, f"list.{extension}") as path, expect_one_line():
        for row in list_videos(str(path)):
            for value in (row["source_path"], row["caption"], row["license"], row["problem"]):
                assert value is None or value.encode("utf-8", "replace").decode() == value, ascii(value)
            assert row["caption"] is None or "\n" not in row["caption"]
            if row["extra"] is not None:
                json.loads(row["extra"].encode())


def check_caption(data: bytes, extension: str) -> None:
    """A caption file gives a text of one line, a reason, or nothing."""
    with write_file(data, f"a.{extension}") as path:
        caption = read_sidecar(str(path), str(path.with_suffix(".mp4")))
        assert not (caption.text and caption.problem)
        for text in (caption.text, caption.problem):
            assert text is None or ("\n" not in text and text.encode("utf-8", "replace").decode() == text)


def check_config(data: bytes, model: type[BaseModel]) -> None:
    """A config file gives a config or one line."""
    with write_file(data, "config.yaml") as path, expect_one_line():
        load_settings(model, path)


@contextlib.contextmanager
def expect_one_line() -> Iterator[None]:
    try:
        yield
    except RepriseError as error:
        message = str(error)
        is_one_line = 0 < len(message) < 2000 and "\n" not in message and message.isprintable()
        assert is_one_line, ascii(message[:300])


@contextlib.contextmanager
def write_file(data: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        yield path
