"""The workers of a run: ranks, device, and the mesh (replicate, shard, sequence) that shares the work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from reprise.errors import RepriseError
from training.config import ParallelConfig


@dataclass(frozen=True)
class World:
    """All workers, and the place of this one among them. With one worker all sizes are 1.

    Rank order is (replicate, shard, sequence), sequence fastest: the workers of one sequence group are
    neighbours, and on one node where the group fits.
    """

    mesh: DeviceMesh  # (replicate, shard, sequence)
    #: What `fully_shard` wants: weights are sharded over shard x sequence and copied over replicate.
    #: Workers of one sequence group hold shards of one model like any others: a gradient is a sum over all
    #: of them, whether they saw other samples or other tokens of the same one.
    fsdp: DeviceMesh
    device: torch.device
    local_rank: int
    local_size: int

    @property
    def rank(self) -> int:
        """0 to `size` - 1."""
        return dist.get_rank()

    @property
    def size(self) -> int:
        """Number of workers."""
        return dist.get_world_size()

    @property
    def is_main(self) -> bool:
        """Whether this worker writes the files of the run."""
        return self.rank == 0

    @property
    def data_size(self) -> int:
        """Number of groups that see different samples; a sequence group is one of them."""
        return self.size // self.sequence_size

    @property
    def data_rank(self) -> int:
        """Which of these groups this worker is in: 0 to `data_size` - 1."""
        return self.rank // self.sequence_size

    @property
    def sequence_size(self) -> int:
        """Number of workers that share one sample."""
        return self.mesh["sequence"].size()

    @property
    def sequence_rank(self) -> int:
        """Place of this worker in its sequence group."""
        return self.mesh["sequence"].get_local_rank()

    def sum_values(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all workers, in place. Collective."""
        dist.all_reduce(values)
        return values

    def wait_for_all(self) -> None:
        """Wait until all workers are here. Collective."""
        dist.barrier()


def compute_mesh_sizes(parallel: ParallelConfig, workers: int) -> tuple[int, int, int]:
    """Compute (replicate, shard, sequence), whose product is `workers`.

    Raises:
        RepriseError: the config does not allow it.
    """
    fixed = parallel.replicate * parallel.sequence
    shard = workers // fixed if parallel.shard == -1 else parallel.shard
    if shard < 1 or fixed * shard != workers:
        wanted = "what is left" if parallel.shard == -1 else str(parallel.shard)
        raise RepriseError(
            f"parallel: replicate {parallel.replicate} x shard {wanted} x sequence {parallel.sequence} "
            f"does not make run.workers={workers}: change one of them"
        )
    return parallel.replicate, shard, parallel.sequence


def make_world(
    parallel: ParallelConfig, *, device: torch.device | None = None, timeout_s: float = 1800
) -> World:
    """Make the world that the environment describes.

    Under Ray Train the process group exists already. Under torchrun it is made from RANK, WORLD_SIZE,
    MASTER_ADDR and MASTER_PORT. With neither, this process is the only worker.

    Args:
        parallel: how the workers share the work.
        device: None: this worker's GPU, else the CPU.
        timeout_s: limit of a collective, seconds.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if device is None:
        device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        timeout = timedelta(seconds=timeout_s)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend, timeout=timeout)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    shape = compute_mesh_sizes(parallel, dist.get_world_size())
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard", "sequence"))
    replicate, together = shape[0], shape[1] * shape[2]
    if replicate > 1:
        fsdp = init_device_mesh(device.type, (replicate, together), mesh_dim_names=("replicate", "shard"))
    else:
        fsdp = init_device_mesh(device.type, (together,), mesh_dim_names=("shard",))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))
    return World(mesh=mesh, fsdp=fsdp, device=device, local_rank=local_rank, local_size=local_size)
