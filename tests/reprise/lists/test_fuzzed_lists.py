"""Whatever bytes a list, a caption file or a config holds, the outcome is rows or one line for people."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import CONFIGS, check_caption, check_config, check_list

BYTES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text(max_size=100).map(lambda text: text.encode("utf-16", "surrogatepass")),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(10**400), 10**400)
    | st.text(max_size=20)
    | st.text(st.characters(categories=["Cs"]), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from(["path", "caption", "license", "text", "video", ""]) | st.text(max_size=8)
ROWS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=5)
CELLS = st.text('ab,"\n\r;\t\0é\ud800', max_size=12)
EXTENSIONS = st.sampled_from(["csv", "jsonl", "json", "parquet"])


@settings(max_examples=150, deadline=None)
@given(
    data=BYTES,
    extension=EXTENSIONS,
    head=st.sampled_from([b"", b"path,caption\na.mp4,x\n", b'[{"path":"a.mp4"},']),
)
@example(data=b"[" * 100_000, extension="jsonl", head=b"")
@example(data=b"\xff\xfe\x00", extension="csv", head=b"")
@example(data=b"path,,\n\0,,\n", extension="csv", head=b"")
def test_any_bytes_are_a_list_or_one_line(data: bytes, extension: str, head: bytes) -> None:
    check_list(head + data, extension)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, extension=st.sampled_from(["jsonl", "json"]))
def test_any_values_are_rows(rows: list[dict[str, object]], extension: str) -> None:
    lines = [json.dumps(row) for row in rows]
    text = "\n".join(lines) if extension == "jsonl" else f"[{','.join(lines)}]"
    check_list(text.encode(), extension)


@settings(max_examples=100, deadline=None)
@given(cells=st.lists(st.lists(CELLS, max_size=3), max_size=5))
def test_any_cells_are_rows(cells: list[list[str]]) -> None:
    lines = ["path,caption", *(",".join(row) for row in cells)]
    check_list("\n".join(lines).encode("utf-8", "surrogatepass"), "csv")


@settings(max_examples=100, deadline=None)
@given(data=BYTES, extension=st.sampled_from(["txt", "json"]))
@example(data=b'{"caption": "\\ud800"}', extension="json")
@example(data=b'{"caption": ' + b"[" * 100_000 + b"}", extension="json")
def test_any_bytes_are_a_caption_or_a_reason(data: bytes, extension: str) -> None:
    check_caption(data, extension)


@settings(max_examples=40, deadline=None)
@given(data=BYTES | VALUES.map(lambda value: json.dumps({"slice": value}).encode()))
@example(data=b"a: &a [*a]\n")
@example(data=b"slice: " + b"[" * 1500)
@example(data=b"slice: {min_length: " + b"9" * 5000 + b"}")
@example(data=b"slice: {min_length: 2024-99-99}")
@example(data=b"{[1]: 2}")
@example(data=b"slice: {1: 2}")
@example(data=b"slice: !!python/object/apply:os.system [echo]")
def test_any_bytes_are_a_config_or_one_line(data: bytes) -> None:
    for config in CONFIGS:
        check_config(data, config)
