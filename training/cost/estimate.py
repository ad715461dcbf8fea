"""What a run needs, before it starts: FLOPs per step, bytes per GPU, the smallest layout that fits.

Parameters, gradients, optimizer and EMA are counted. Activations, and the VAE where validation makes videos,
are measured by tracing fake tensors (activations.py). What `torch.compile` saves is not included.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from reprise.errors import RepriseError
from training.config import TrainConfig
from training.cost import activations, flops
from training.cost.layout import CHECKPOINTING_MODES, GradientReduction, ParallelLayout
from training.cost.memory import GpuMemory, ParameterCounts
from training.cost.units import format_bytes
from training.cost.workload import Workload, estimate_workloads, measure_workloads, with_reference_channels
from training.loop.world import compute_mesh_sizes
from training.models.build import make_family
from training.models.published import get_model_shape, get_transformer_config, get_vae_config


def estimate_run(config: TrainConfig, size: tuple[int, int, int] | None = None) -> Estimate:
    """Estimate the FLOPs and memory of a config, for its latents or for videos of one size.

    Args:
        config: the config.
        size: frames, height and width of every video; None takes the sizes of the latents.

    Raises:
        RepriseError: the latents or the model's config do not exist.
    """
    transformer, vae = get_transformer_config(config.model), get_vae_config(config.model)
    shape = get_model_shape(config.model, with_reference_channels(config, transformer))
    if size:
        family = make_family(transformer, vae, config.model.path)
        workloads = estimate_workloads(config, family, shape, size)
    else:
        workloads = measure_workloads(config, shape)
    return Estimate(config, transformer, workloads, vae)


class Estimate:
    """What a run needs.

    Args:
        config: of the run.
        transformer: config of its transformer, as published.
        workloads: of its tasks.
        vae: config of its VAE, for the videos of validation; None: these are not counted.
    """

    def __init__(
        self,
        config: TrainConfig,
        transformer: Mapping[str, Any],
        workloads: Iterable[Workload],
        vae: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.vae = config, vae
        self.workloads = tuple(workloads)
        self.transformer = with_reference_channels(config, transformer)
        family = make_family(self.transformer, vae, config.model.path)
        self.shape = family.make_shape(self.transformer)
        #: Whether every token has its own timestep and modulation.
        self.has_token_timesteps = family.has_token_timesteps(config.positions)

    @cached_property
    def weights(self) -> ParameterCounts:
        """Numbers of parameters."""
        return ParameterCounts.from_config(self.transformer, self.config.lora)

    @cached_property
    def max_tokens(self) -> int:
        """Tokens of the longest sample, which decides the memory."""
        return max(length for work in self.workloads for length, _ in work.lengths)

    def count_tokens(self, work: Workload) -> float:
        """Tokens of a step of a task: mean over its draws, sum over all workers."""
        return work.batch * sum(length * share for length, share in work.lengths)

    def count_flops(self, work: Workload) -> float:
        """FLOPs of a step of a task, forward and backward: mean over its draws, sum over all workers."""
        frozen = self.config.lora is not None
        return work.batch * sum(
            share
            * flops.count_training(
                self.shape,
                length,
                text=work.text,
                timesteps=length if self.has_token_timesteps else 1,
                frozen=frozen,
            )
            for length, share in work.lengths
        )

    def count_recomputed_flops(self, work: Workload) -> float:
        """FLOPs that checkpointing adds to a step of a task: mean over its draws, sum over all workers."""
        mode = self.config.compute.checkpointing
        return work.batch * sum(
            share * flops.count_recomputed(self.shape, length, mode, text=work.text)
            for length, share in work.lengths
        )

    def get_layout(self) -> ParallelLayout:
        """Get the layout of the config.

        Raises:
            RepriseError: it does not add up to the workers.
        """
        replicate, shard, sequence = compute_mesh_sizes(self.config.parallel, self.config.run.workers)
        micro = max(work.micro_batch for work in self.workloads)
        mode = self.config.compute.checkpointing
        return ParallelLayout(replicate, shard, sequence, mode, micro, self.config.parallel.reduce)

    def find_problem(self, layout: ParallelLayout) -> str | None:
        """Find why a layout cannot run with any memory; None where it can."""
        if self.shape.heads % layout.sequence:
            return (
                f"{self.shape.heads} attention heads cannot be shared by parallel.sequence={layout.sequence}"
            )
        for work in self.workloads:
            for length, _ in work.lengths:
                if length < layout.sequence:
                    return f"{work.task}: {length} tokens are too few for parallel.sequence={layout.sequence}"
            if work.batch % layout.groups:
                return f"{work.task}: batch {work.batch} does not divide into {layout.groups} data workers"
        return None

    def estimate_memory(self, layout: ParallelLayout) -> GpuMemory:
        """Estimate the bytes on each GPU under a layout."""
        count, ways = self.weights, layout.shard * layout.sequence
        whole, trained = math.ceil(count.total / ways), math.ceil(count.trained / ways)
        compute = 2 if self.config.compute.precision == "bf16" else 4
        frozen = compute if self.config.lora is not None and self.config.lora.frozen == "compute" else 4
        # FSDP keeps, in the type of the computation, what is outside the blocks, the current block and the
        # next one (all blocks where nothing is sharded). While the gradients of a block are reduced it holds
        # them twice, as computed and in float32.
        held = count.rest + 2 * count.block if ways > 1 else count.total
        accumulates = layout.reduce == "step" and any(
            work.batch > layout.groups * layout.micro_batch for work in self.workloads
        )
        return GpuMemory(
            parameters=frozen * (whole - trained) + 4 * trained,
            # Over several micro-batches each worker adds up whole gradients, and reduces them once.
            gradients=4 * (count.trained if accumulates else trained),
            optimizer=8 * trained,
            ema=4 * trained if self.config.optimizer.ema else 0,
            gathered=compute * held + (0 if self.config.lora else (compute + 4) * count.block),
            activations=self.estimate_activations(layout),
            decoding=self.decoding_bytes,
        )

    @cached_property
    def decoding_bytes(self) -> int:
        """Peak bytes of decoding the largest video that validation samples, the VAE included."""
        validation = self.config.validation
        if self.vae is None or not validation.every or not validation.videos:
            return 0
        # In bf16, as validation has it on a GPU (callbacks/validation.py).
        videos = {work.video for work in self.workloads}
        return max(activations.measure_decoding(self.vae, video, "bf16") for video in videos)

    def estimate_activations(self, layout: ParallelLayout) -> int:
        """Estimate the peak bytes of one micro-batch, forward and backward, of the longest samples."""
        batches = {
            (max(length for length, _ in work.lengths), min(work.micro_batch, layout.micro_batch), work.text)
            for work in self.workloads
        }
        # Only those that no other exceeds in every respect have to be measured.
        most = {
            one
            for one in batches
            if not any(one != other and all(map(operator.le, one, other)) for other in batches)
        }
        return max(self._estimate_peak(layout, *each) for each in most)

    def _estimate_peak(self, layout: ParallelLayout, tokens: int, micro_batch: int, text: int) -> int:
        few, more = (
            activations.measure_activations(
                self.transformer,
                math.ceil(tokens / layout.sequence),
                micro_batch,
                layout.checkpointing,
                self.config.compute.precision,
                layers=layers,
                text=text,
                token_timesteps=self.has_token_timesteps,
                lora=self.config.lora,
            )
            for layers in (2, 4)
        )
        return few.peak + (more.peak - few.peak) * (self.shape.layers - 2) // 2

    def find_smallest_layout(self, gpu_bytes: int, *, max_gpus: int = 1024) -> ParallelLayout | None:
        """Find the layout with the fewest GPUs that fits; None: none fits.

        Of layouts with equally many GPUs the order is: the micro-batches of the config, gradients reduced
        once a step, samples shared by few workers, little recomputed.

        Args:
            gpu_bytes: memory of each GPU.
            max_gpus: where the search ends.
        """
        micros = sorted({max(work.micro_batch for work in self.workloads), 1}, reverse=True)
        reduces: tuple[GradientReduction, ...] = ("step", "micro_batch")
        workers = 1
        while workers <= max_gpus:
            sequences = [2**power for power in range(int(math.log2(min(workers, 64))) + 1)]
            for micro, reduce, sequence in itertools.product(micros, reduces, sequences):
                least = ParallelLayout(1, workers // sequence, sequence, "full", micro, reduce)
                if self.find_problem(least) is not None or self.estimate_memory(least).total > gpu_bytes:
                    continue
                layouts = (replace(least, checkpointing=mode) for mode in CHECKPOINTING_MODES)
                return next(layout for layout in layouts if self.estimate_memory(layout).total <= gpu_bytes)
            workers *= 2
        return None

    def check_fit(self, gpu_bytes: int | None) -> None:
        """Check that the run fits into GPUs of `gpu_bytes`; None: only that its layout adds up.

        Raises:
            RepriseError: it does not; the message names the smallest layout that fits.
        """
        layout = self.get_layout()
        if problem := self.find_problem(layout):
            raise RepriseError(f"{problem}: change run.workers, the parallel section or the task")
        if gpu_bytes is None or (needed := self.estimate_memory(layout).total) <= gpu_bytes:
            return
        fitting = self.find_smallest_layout(gpu_bytes)
        hint = f"the smallest layout that fits: {fitting}" if fitting else "no layout of up to 1024 GPUs fits"
        raise RepriseError(
            f"needs {format_bytes(needed)} on each GPU, which has {format_bytes(gpu_bytes)}; {hint}"
        )
