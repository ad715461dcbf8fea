"""What a run needs, as lines for a person."""

from __future__ import annotations

from training.cost import flops, replay_cost
from training.cost.estimate import Estimate
from training.cost.memory import FRAGMENTATION_SHARE
from training.cost.units import format_bytes, format_gpu_hours, format_si


def describe_estimate(estimate: Estimate, gpu_bytes: int | None = None) -> list[str]:
    """Describe an estimate in lines for a person: layout, tokens and FLOPs of each task, bytes per GPU.

    Args:
        estimate: of the run.
        gpu_bytes: memory of each GPU; None: not known.
    """
    layout, shape = estimate.get_layout(), estimate.shape
    config = estimate.config
    count = estimate.weights
    lines = [
        f"model     {count.total / 1e9:.3g} B parameters, {shape.layers} blocks of width {shape.dim}"
        + (f", {count.trained / 1e6:.3g} M of adapters trained" if config.lora else ""),
        f"layout    {layout.workers} worker(s) = replicate {layout.replicate} x shard {layout.shard} x "
        f"sequence {layout.sequence}, checkpointing {layout.checkpointing}, {config.compute.precision}",
    ]
    total = 0.0
    for work in estimate.workloads:
        lengths = [length for length, _ in work.lengths]
        span = f"{min(lengths):,}" + (f" to {max(lengths):,}" if len(lengths) > 1 else "")
        flops_step = estimate.count_flops(work)
        total += work.share * flops_step
        parts = flops.compute_part_shares(shape, max(lengths), text=work.text)
        most = sorted(parts, key=lambda part: -parts[part])[:4]
        micro = -(-work.batch // (layout.groups * work.micro_batch))
        lines += [
            f"task      {work.task}: {100 * work.share:.0f} % of the steps, {work.batch} samples a step "
            f"({micro} forward pass(es) of {work.micro_batch} on each worker)",
            f"  tokens  {span} a sample, references included; "
            f"{format_si(estimate.count_tokens(work))} a step",
            f"  FLOPs   {format_si(flops_step)} a step"
            + (
                f", {format_si(estimate.count_recomputed_flops(work))} more recomputed"
                if estimate.count_recomputed_flops(work)
                else ""
            )
            + f" ({', '.join(f'{part} {100 * parts[part]:.0f} %' for part in most)})",
        ]
    lines += replay_cost.describe_cost(replay_cost.compute_cost(estimate))
    whole = total * config.steps
    lines.append(
        f"run       {config.steps:,} steps, {format_si(whole)} FLOPs; "
        f"{format_gpu_hours(whole / (0.4 * 989e12))} of an H100 at 40 % MFU"
    )
    memory = estimate.estimate_memory(layout)
    parts = {
        "parameters": memory.parameters,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "EMA": memory.ema,
        "gathered": memory.gathered,
        "activations": memory.activations,
        "CUDA and NCCL": memory.context,
    }
    lines.append(
        f"memory    {format_bytes(memory.total)} on each GPU, "
        f"with {100 * FRAGMENTATION_SHARE:.0f} % for fragmentation"
    )
    lines += [f"  {name:<14}{format_bytes(count):>10}" for name, count in parts.items() if count]
    if memory.decoding:
        lines.append(
            f"  {'VAE':<14}{format_bytes(memory.decoding):>10}, for videos of validation, when there are no "
            "gradients and activations"
        )
    if gpu_bytes is None:
        lines.append("  no GPU here: pass --gpu-memory 80GB to see whether it fits")
    elif memory.total <= gpu_bytes:
        lines.append(f"  fits into {format_bytes(gpu_bytes)}")
    return lines
