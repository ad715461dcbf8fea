"""Proof that all workers of a run see the same `run.output`."""

from __future__ import annotations

import secrets
import socket
import time

import torch.distributed as dist

from reprise.errors import RepriseError, StorageError
from training.loop.run_folder import RunFolder
from training.loop.world import World

WAIT_S = 10.0  # how long a shared disk may take to show a new file; ours


def check_shared_output(folder: RunFolder, world: World) -> None:
    """Check that every worker reads what the first one writes. Collective.

    Raises:
        RepriseError: on all workers; names those that do not see it, with their machines.
    """
    if world.size == 1:
        return
    message: list[str] = [secrets.token_hex(16)]
    if world.is_main:
        folder.root.write_bytes(f"shared-{message[0]}", message[0].encode())
    dist.broadcast_object_list(message)
    place = None if _can_read(folder, message[0]) else f"{world.rank} on {socket.gethostname()}"
    places: list[str | None] = [None] * world.size
    dist.all_gather_object(places, place)
    if world.is_main:
        folder.root.delete_file(f"shared-{message[0]}")
    if blind := [each for each in places if each is not None]:
        raise RepriseError(
            f"run.output: worker {', '.join(blind)} does not see what worker 0 writes to {folder.root.uri}: "
            "use a folder that all machines share, or s3://"
        )


def _can_read(folder: RunFolder, nonce: str) -> bool:
    """Whether the file of the nonce is there, now or within the wait."""
    until = time.monotonic() + WAIT_S
    while True:
        try:
            return folder.root.read_bytes(f"shared-{nonce}") == nonce.encode()
        except StorageError:
            if time.monotonic() > until:
                return False
            time.sleep(0.2)
