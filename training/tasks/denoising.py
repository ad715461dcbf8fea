"""The parts that most tasks share: add noise to the video, keep the references clean, predict, compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from training.config import IdentityTask, ReplayTask, TaskBase
from training.data import random_streams
from training.data.samples import Batch, LatentSample, LatentSize, stack_samples
from training.models.family import Conditioning, take_own_part
from training.objectives import compute_sample_losses
from training.tasks.task import LossContext, Losses


class DenoisingTask:
    """The parts that tasks with a loss on the whole video share."""

    max_references = 1

    def __init__(self, config: TaskBase, name: str) -> None:
        """Take the batch sizes, the weight and the folder of latents from the task's config."""
        self.name = name
        self.latents, self.weight = config.latents, config.weight
        self.batch, self.micro_batch = config.batch, config.micro_batch
        self.caption_dropout = config.caption_dropout

    def collate_samples(self, samples: Sequence[LatentSample], text_length: int) -> Batch:
        """See `Task.collate_samples`."""
        return stack_samples(samples, text_length)

    def build_conditioning(self, batch: Batch, context: LossContext) -> Conditioning:
        """See `Task.build_conditioning`."""
        return Conditioning(batch.text, batch.references)

    def compute_loss(self, batch: Batch, context: LossContext) -> Losses:
        """See `Task.compute_loss`."""
        return compute_denoising_loss(batch, context, self.build_conditioning(batch, context))

    def get_target_size(self, video: LatentSize) -> LatentSize:
        """See `Task.get_target_size`."""
        return video

    def count_visible_tokens(self, tokens: int) -> int:
        """See `Task.count_visible_tokens`."""
        return tokens

    def draw_caption_dropout(self, generator: torch.Generator) -> bool:
        """Draw whether the caption of a sample is dropped: one number of the generator."""
        return float(torch.rand((), generator=generator)) < self.caption_dropout


class SingleReferenceTask(DenoisingTask):
    """The parts that tasks with one reference a sample share: a share of the steps goes without it."""

    def __init__(self, config: IdentityTask | ReplayTask, name: str) -> None:
        """Take the dropout of references from the config."""
        super().__init__(config, name)
        self.reference_dropout = config.reference_dropout

    def get_count_shares(self, capacity: int) -> Mapping[int, float]:
        """See `Task.get_count_shares`: 0 is `reference_dropout`."""
        if capacity == 0:
            return {0: 1.0}
        shares = {0: self.reference_dropout, capacity: 1.0 - self.reference_dropout}
        return {count: share for count, share in shares.items() if share > 0}

    def draw_count(self, capacity: int, generator: torch.Generator) -> int:
        """See `Task.draw_count`."""
        dropped = float(torch.rand((), generator=generator)) < self.reference_dropout
        return 0 if dropped else capacity


def compute_denoising_loss(batch: Batch, context: LossContext, condition: Conditioning) -> Losses:
    """Compute the mean square error over each sample's video: (B,) float32.

    References are conditions and have no loss. Noise and noise level are drawn per sample from its global
    index, so every layout of workers sees the same numbers.
    """
    family, positions = context.family, context.positions
    video = batch.video.float()
    noise, level = draw_noise(batch, context)
    noised = context.objective.add_noise(video, noise, level)
    prediction = family.predict(
        context.model,
        noised.input,
        noised.timestep,
        condition,
        positions,
        shard=context.shard,
        dtype=context.dtype,
    )
    target = take_own_part(family, noised.target, condition, positions, context.shard)
    losses = compute_sample_losses(prediction, target, elements=math.prod(video.shape[1:]))
    return losses, {}


def draw_noise(batch: Batch, context: LossContext) -> tuple[Tensor, Tensor]:
    """Draw noise (B, C, T, h, w) and noise levels (B,), both float32, for the samples of a batch."""
    device, shape = batch.video.device, batch.video.shape[1:]
    patch = context.family.patch
    tokens_per_frame = shape[-2] * shape[-1] / (patch[1] * patch[2])
    noise, levels = [], []
    for index in batch.indices:
        generator = random_streams.make_generator(context.seed, "noise", index, device=device)
        noise.append(torch.randn(shape, generator=generator, device=device))
        # On the CPU a single number needs no kernel launch, and is the same for every kind of device.
        generator = random_streams.make_generator(context.seed, "level", index)
        levels.append(context.objective.draw_level(generator, tokens_per_frame))
    return torch.stack(noise), torch.stack(levels).to(device, non_blocking=True)
