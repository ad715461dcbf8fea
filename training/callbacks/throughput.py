"""The speed of a run: tokens per second, share of the hardware's peak, time spent waiting for data."""

from __future__ import annotations

from collections.abc import Mapping

from training.cost import flops
from training.models.shape import TransformerShape

# Metrics with another rule between two records. All others are averaged.
_SPECIAL_METRICS = ("seconds", "data_wait", "tokens", "samples", "memory", "micro_steps")


class Throughput:
    """Collect the metrics of steps and aggregate them for each record.

    Args:
        shape: of the model, for its FLOPs; None: no MFU.
        peak: FLOP/s of all workers' devices together; None: no MFU.
        steps: of the whole run, for the time that is left.
        frozen: only adapters are trained.
        token_timesteps: every token has its own timestep.
    """

    def __init__(
        self,
        shape: TransformerShape | None,
        peak: float | None,
        steps: int,
        *,
        frozen: bool = False,
        token_timesteps: bool = False,
    ) -> None:
        self.shape, self.peak, self.steps = shape, peak, steps
        self.frozen, self.token_timesteps = frozen, token_timesteps
        self._window: list[tuple[Mapping[str, float], float]] = []
        self._pace: float | None = None  # seconds a step, smoothed over windows

    def add_step(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of one step; see `Callback.on_step`."""
        self._window.append((dict(metrics), self._count_flops(metrics)))

    def pop_scalars(self, step: int) -> dict[str, float]:
        """Aggregate the steps since the last call; empty if there was none.

        `loss` and other plain metrics are means over the steps that had them; then:
            speed/step_seconds, speed/tokens_per_second, speed/samples_per_second (all workers together)
            speed/mfu          model FLOPs over the devices' peak, 0..1; where both are known
            speed/tflops       model FLOPs per second, all workers, in 1e12
            speed/data_wait    share of the time, 0..1, that this worker waited for data
            memory/peak_gib    of this worker's device
            eta_seconds        until the last step, at the recent pace
        """
        if not self._window:
            return {}
        window, self._window = self._window, []
        values: dict[str, list[float]] = {}
        for metrics, _ in window:
            for name, value in metrics.items():
                if name not in _SPECIAL_METRICS:
                    values.setdefault(name, []).append(value)
        result = {name: sum(each) / len(each) for name, each in values.items()}
        result["lr"] = window[-1][0].get("lr", result.get("lr", 0.0))

        def sum_metric(name: str) -> float:
            return sum(metrics.get(name, 0.0) for metrics, _ in window)

        seconds = max(sum_metric("seconds"), 1e-9)
        pace = seconds / len(window)
        self._pace = pace if self._pace is None else 0.7 * self._pace + 0.3 * pace
        result |= {
            "speed/step_seconds": pace,
            "speed/tokens_per_second": sum_metric("tokens") / seconds,
            "speed/samples_per_second": sum_metric("samples") / seconds,
            "speed/data_wait": min(1.0, sum_metric("data_wait") / seconds),
            "eta_seconds": self._pace * max(0, self.steps - step),
        }
        done = sum(count for _, count in window)
        if done:
            result["speed/tflops"] = done / seconds / 1e12
        if done and self.peak:
            result["speed/mfu"] = done / seconds / self.peak
        memory = max(metrics.get("memory", 0.0) for metrics, _ in window)
        if memory:
            result["memory/peak_gib"] = memory / (1 << 30)
        return result

    def _count_flops(self, metrics: Mapping[str, float]) -> float:
        samples, tokens = metrics.get("samples", 0.0), metrics.get("tokens", 0.0)
        if self.shape is None or not samples or not tokens:
            return 0.0
        each = round(tokens / samples)  # all samples of a step have equal lengths
        timesteps = each if self.token_timesteps else 1
        return samples * flops.count_training(self.shape, each, timesteps=timesteps, frozen=self.frozen)
