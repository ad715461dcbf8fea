"""The loss that most tasks share: noise the video, show the references clean, predict, compare."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.data import random_streams
from training.data.samples import Batch
from training.tasks.task import LossContext, Losses

if TYPE_CHECKING:
    from training.models.family import Conditioning


def denoising_loss(batch: Batch, context: LossContext, condition: Conditioning) -> Losses:
    """(B,) mean square error over each sample's video; references are conditions and have no loss.

    Noise and noise level are drawn per sample from its global index, so any layout sees the same numbers.
    """
    from training.models.family import take_own_part
    from training.objectives import compute_sample_losses

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
    """Noise (B, C, T, h, w) and noise levels (B,), both float32, of a batch's samples."""
    device, shape = batch.video.device, batch.video.shape[1:]
    patch = context.family.patch
    tokens_per_frame = shape[-2] * shape[-1] / (patch[1] * patch[2])
    noise, levels = [], []
    for index in batch.indices:
        generator = random_streams.make_generator(context.seed, "noise", index, device=device)
        noise.append(torch.randn(shape, generator=generator, device=device))
        # On the CPU, where a single number costs no launch and is the same for every kind of device.
        generator = random_streams.make_generator(context.seed, "level", index)
        levels.append(context.objective.draw_level(generator, tokens_per_frame))
    return torch.stack(noise), torch.stack(levels).to(device, non_blocking=True)
