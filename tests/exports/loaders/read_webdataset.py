"""Read an export with webdataset: prints one JSON line per sample."""

import json
import sys
from pathlib import Path

import webdataset


def main(folder: Path) -> None:
    """Iterate the shards that `train.txt` lists."""
    shards = [str(folder / name) for name in (folder / "train.txt").read_text().split()]
    for sample in webdataset.WebDataset(shards, shardshuffle=False):
        parts = sorted(name for name in sample if not name.startswith("__"))
        print(
            json.dumps(
                {"key": sample["__key__"], "parts": parts, "caption": json.loads(sample["json"])["caption"]}
            )
        )


main(Path(sys.argv[1]))
