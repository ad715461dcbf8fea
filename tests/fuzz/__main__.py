"""Fuzz lists, captions and configs under atheris, which follows coverage: `make fuzz`.

python -m tests.fuzz [list|caption|config] [options of libFuzzer, such as -max_total_time=60]
"""

from __future__ import annotations

import sys

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed here: pip install atheris (it has no wheel for every Python)")

with atheris.instrument_imports(include=["reprise", "curation.sources"]):
    from tests.fuzz.targets import CONFIGS, check_caption, check_config, check_list

EXTENSIONS = ("csv", "jsonl", "json", "parquet")


def fuzz_list(data: bytes) -> None:
    """The first byte chooses the extension."""
    check_list(data[1:], EXTENSIONS[data[0] % len(EXTENSIONS)] if data else "csv")


def fuzz_caption(data: bytes) -> None:
    check_caption(data[1:], "json" if data[:1] > b"\x7f" else "txt")


def fuzz_config(data: bytes) -> None:
    check_config(data[1:], CONFIGS[data[0] % len(CONFIGS)] if data else CONFIGS[0])


TARGETS = {"list": fuzz_list, "caption": fuzz_caption, "config": fuzz_config}


if __name__ == "__main__":
    name = sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in TARGETS else "list"
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
