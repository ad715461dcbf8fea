"""Parallelism of a model, applied from outside: Ulysses, recomputation, compilation, FSDP2.

Order matters: sequence parallelism and the attention backend change processors, recomputation wraps the
forward of a block, compilation compiles the wrapped forward, and FSDP2 comes last, around all of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from reprise.errors import RepriseError
from training.config import ComputeConfig
from training.loop.world import World
from training.models.family import Family
from training.models.sequence_attention import SequenceExchange


def parallelize_model(model: nn.Module, family: Family, world: World, compute: ComputeConfig) -> None:
    """Parallelize a prepared model in place. On the meta device no rank ever holds the whole model."""
    blocks = family.list_blocks(model)
    if world.sequence_size > 1:
        share_sequences(model, family, world)
    if compute.attention is not None:
        _set_attention(model, compute.attention)
    recompute_blocks(blocks, compute.checkpointing)
    if compute.compile:
        for block in blocks:
            # Only the forward: FSDP's hooks stay outside the graph, and parameters keep their names.
            block.forward = torch.compile(block.forward)
    shard_model(model, blocks, world, compute)


def convert_frozen_weights(model: nn.Module, family: Family, dtype: torch.dtype) -> None:
    """Convert weights that are not trained to the type of the computation, before the model is sharded.

    FSDP2 casts a weight to this type whenever it gathers it, so the result is the same. Modules that compute
    in float32 keep their weights.
    """
    exact = {
        id(parameter)
        for module in _list_exact_modules(model, family.list_blocks(model))
        for parameter in module.parameters()
    }
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad and id(parameter) not in exact:
                module.register_parameter(name, nn.Parameter(parameter.to(dtype), requires_grad=False))


def shard_model(model: nn.Module, blocks: Sequence[nn.Module], world: World, compute: ComputeConfig) -> None:
    """FSDP2 per block and around the rest. Weights and the reduction of gradients are float32.

    Inputs are not cast: the family casts what it must, and timesteps and rotary tables stay float32.
    """
    bf16 = compute.precision == "bf16"
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    exact = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = world.fsdp
    # Where each worker has the whole model anyway, gathering it twice a step saves no memory.
    again = mesh["shard"].size() > 1
    # The warning comes for every output that is a view. It concerns changes in place; we make none.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for module in _list_exact_modules(model, blocks) if bf16 else ():
        fully_shard(module, mesh=mesh, mp_policy=exact, reshard_after_forward=again)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=again)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Sum, not mean: losses are divided by the size of the whole batch already, and the workers of a
            # sequence group hold parts of one loss.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def set_gradient_sync(model: nn.Module, world: World, last: bool, *, always: bool = False) -> None:
    """Set whether the next backward pass reduces gradients over the workers, or accumulates them locally.

    Args:
        model: parallelized.
        world: all workers.
        last: whether it is the last backward pass of the step.
        always: reduce in every pass, so that no worker holds more than its shard of the gradients. Copies of
            the model still exchange theirs once a step.
    """
    model.set_is_last_backward(last)
    if world.fsdp["shard"].size() == 1:
        # The whole model is here and does not change until the optimizer's step: no need to gather it again.
        model.set_reshard_after_backward(last)
    model.set_requires_gradient_sync(last or always)
    model.set_requires_all_reduce(last)


def recompute_blocks(blocks: Sequence[nn.Module], mode: str) -> None:
    """Recompute activations of blocks in the backward pass instead of keeping them.

    Args:
        blocks: changed in place.
        mode: "full": all activations. "selective": all but the results of matrix products and attention,
            which are most of the work and a third of the memory. "none": nothing.
    """
    for block in blocks if mode != "none" else ():
        block.forward = _wrap_forward(block, selective=mode == "selective")


def share_sequences(model: nn.Module, family: Family, world: World) -> None:
    """Make self-attention exchange tokens for heads inside a sequence group (Ulysses).

    Args:
        model: prepared by the family; changed in place.
        family: of the model.
        world: all workers.

    Raises:
        RepriseError: the number of workers does not divide the heads.
    """
    heads, workers = model.config.num_attention_heads, world.sequence_size
    if heads % workers:
        raise RepriseError(
            f"{heads} attention heads cannot be shared by {workers} workers of a sequence group; choose a "
            "`parallel.sequence` that divides them"
        )
    exchange = SequenceExchange(world.mesh["sequence"].get_group(), world.sequence_rank)
    model.exchange = exchange
    family.share_attention(model, exchange)


def _wrap_forward(block: nn.Module, *, selective: bool) -> Callable[..., Any]:
    forward = block.forward
    drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in block.modules())
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": drops}
    if selective:
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _choose_policy)

    def run_forward(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, **options, **kwargs)

    return run_forward


# Products with weights. Not `bmm`: where attention has no kernel, `bmm` makes all its scores.
_MATRIX_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.linear.default)


def _choose_policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """What selective recomputation keeps: by name, because each attention kernel is a separate operation."""
    if operation in _MATRIX_PRODUCTS or "attention" in operation.name() or "flash_attn" in operation.name():
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _list_exact_modules(model: nn.Module, blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """Modules outside the blocks that diffusers keeps in float32: for Wan, what embeds the timestep."""
    names = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    inside = {id(module) for block in blocks for module in block.modules()}
    return [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in names
        and id(module) not in inside
        and any(parameter.requires_grad for parameter in module.parameters())
    ]


def _set_attention(model: nn.Module, backend: str) -> None:
    try:
        model.set_attention_backend(backend)
    except (ValueError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise RepriseError(f"compute.attention: {backend} cannot be used here: {reason}") from error
