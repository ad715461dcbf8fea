"""The loss of a batch is that of the paper, per sample, and the same on every layout of workers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from training.config import KaleidoTask, ObjectiveConfig, PositionsConfig
from training.data import random_streams
from training.data.samples import Batch
from training.objectives import FlowMatching
from training.schedules import get_shift_factor, shift_sigma
from training.tasks.kaleido import Kaleido
from training.tasks.task import LossContext

SEED = 3


class Echo:
    """A family whose model returns its input plus the mean of the references, and records its inputs."""

    patch = (1, 2, 2)

    def predict(
        self, model: Any, noisy: Tensor, timestep: Tensor, condition: Any, *_: Any, **__: Any
    ) -> Tensor:
        self.timestep, self.text = timestep, condition.text
        return noisy + sum(reference.mean(dim=(2, 3, 4), keepdim=True) for reference in condition.references)

    def own(self, video: Tensor, *_: Any) -> Tensor:
        return video


def batch(indices: tuple[int, ...]) -> Batch:
    def of(index: int, *shape: int) -> Tensor:
        return torch.randn(shape, generator=random_streams.make_generator(0, "test", index, *shape))

    return Batch(
        indices=indices,
        sample_ids=tuple(map(str, indices)),
        video=torch.stack([of(i, 4, 3, 6, 8) for i in indices]),
        references=(torch.stack([of(i, 4, 1, 6, 8) for i in indices]),),
        text=torch.stack([of(i, 5, 7) for i in indices]),
    )


def context(family: Echo, seed: int = SEED) -> LossContext:
    objective = FlowMatching(ObjectiveConfig())
    return LossContext(nn.Identity(), family, objective, PositionsConfig(), seed)  # type: ignore[arg-type]


def losses(indices: tuple[int, ...], family: Echo | None = None, seed: int = SEED) -> Tensor:
    return Kaleido(KaleidoTask(latents="L")).compute_loss(batch(indices), context(family or Echo(), seed))[0]


def test_the_loss_is_rectified_flow_only_on_the_video() -> None:
    family, given = Echo(), batch((5, 9))
    got = losses((5, 9), family)
    for n, index in enumerate((5, 9)):
        noise = torch.randn(4, 3, 6, 8, generator=random_streams.make_generator(SEED, "noise", index))
        raw = torch.sigmoid(torch.randn((), generator=random_streams.make_generator(SEED, "level", index)))
        sigma = shift_sigma(raw, get_shift_factor(ObjectiveConfig(), 6 * 8 / 4))
        clean, reference = given.video[n], given.references[0][n]
        output = (1 - sigma) * clean + sigma * noise + reference.mean(dim=(1, 2, 3), keepdim=True)
        torch.testing.assert_close(got[n], (output - (noise - clean)).square().mean())
        torch.testing.assert_close(family.timestep[n], 1000 * sigma)
    assert torch.equal(family.text, given.text)


def test_a_sample_has_the_same_loss_in_any_batch_and_another_in_another_run() -> None:
    together = losses((1, 2, 3))
    torch.testing.assert_close(together, torch.cat([losses((n,)) for n in (1, 2, 3)]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(losses((3, 1)), together[[2, 0]], rtol=1e-6, atol=1e-6)
    assert not torch.isclose(losses((1,), seed=4), together[:1])


def test_stored_bfloat16_is_noised_in_float32() -> None:
    given = batch((1,))
    half = replace(given, video=given.video.bfloat16())
    whole = replace(given, video=half.video.float())
    task, place = Kaleido(KaleidoTask(latents="L")), context(Echo())
    assert torch.equal(task.compute_loss(half, place)[0], task.compute_loss(whole, place)[0])
