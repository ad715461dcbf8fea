"""Run `energon prepare` on an export, by the export's own command, and print one JSON line per sample."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from megatron.energon import (
    Cooker,
    DefaultTaskEncoder,
    WorkerConfig,
    get_loader,
    get_train_dataset,
    stateless,
)


@stateless
def cook(sample: dict[str, Any]) -> dict[str, Any]:
    """Take a raw sample as it is."""
    return sample


class Encoder(DefaultTaskEncoder):
    """Passes samples through."""

    decoder = None
    cookers = [Cooker(cook)]  # noqa: RUF012


def main(folder: Path) -> None:
    """Run the command that the export printed, then read the training split once."""
    command = json.loads((folder / "export.json").read_text())["commands"][0]
    program, *arguments = shlex.split(command)
    subprocess.run([str(Path(sys.executable).with_name(program)), *arguments], check=True, stdout=sys.stderr)
    dataset = get_train_dataset(
        str(folder),
        batch_size=None,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        task_encoder=Encoder(),
        repeat=False,
    )
    for sample in get_loader(dataset):
        parts = sorted(name for name in sample if not name.startswith("__"))
        caption = json.loads(sample["json"])["caption"]
        print(json.dumps({"key": sample["__key__"], "parts": parts, "caption": caption}))


main(Path(sys.argv[1]))
