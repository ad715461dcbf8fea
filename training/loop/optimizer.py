"""AdamW, its learning rate as a function of the step, and the clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Make AdamW over the trainable parameters, in a fused kernel where the device has one."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        trainable,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=trainable[0].device.type in ("cpu", "cuda"),
    )


def compute_learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Compute the learning rate of step `step` (from 0) of `steps`.

    A linear warm-up reaches `lr` at its last step. Then the schedule runs over the remaining steps and,
    unless it is constant, falls to 0 after the last one.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, steps - config.warmup)
    if config.schedule == "linear":
        return config.lr * (1 - progress)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "cosine_restarts":
        return config.lr * 0.5 * (1 + math.cos(math.pi * (config.cycles * progress % 1.0)))
    return config.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients to a global norm of at most `limit`; returns the norm before, over all workers."""
    having = [parameter for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in having])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    torch.nn.utils.clip_grads_with_norm_(having, limit, norm)
    return norm
