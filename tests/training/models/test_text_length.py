"""A model is run with texts as long as those it was trained with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.training.tiny_models import write_cogvideox, write_wan
from training.callbacks import validation
from training.config import KaleidoTask, TrainConfig
from training.cost.estimate import estimate_run
from training.data.loader import Loader
from training.data.sampler import Sampler
from training.generate.pipeline import ReferenceToVideoPipeline
from training.latents.config import EncodeConfig
from training.latents.encoders import read_model_facts
from training.latents.store import Latents
from training.playground.random_latents import write_latents
from training.tasks.build import build_tasks


@pytest.mark.parametrize(("write", "released"), [(write_wan, 512), (write_cogvideox, 226)])
@pytest.mark.parametrize("limit", [12, None])
def test_encoding_generation_and_the_estimate_agree(
    tmp_path: Path, write: Any, released: int, limit: int | None
) -> None:
    model = str(write(tmp_path / "M", text_limit=limit))
    wanted = limit or released
    assert read_model_facts(model, None, EncodeConfig()).text.length == wanted
    pipeline = ReferenceToVideoPipeline.from_pretrained(model)
    assert pipeline._encode_prompts(["a red dog", ""]).shape == (2, wanted, 32)
    config = TrainConfig.model_validate(
        {"model": {"path": model}, "tasks": [{"kind": "video", "latents": "none yet"}]}
    )
    (work,) = estimate_run(config, (9, 64, 96)).workloads
    assert work.text == wanted


def test_validation_pads_captions_as_training_does(tmp_path: Path) -> None:
    latents = Latents(write_latents(tmp_path / "L", 8, text_length=7))
    (task,) = build_tasks([KaleidoTask(latents="L", batch=2)])
    sampler = Sampler([task], [latents.records], seed=0)
    trained = Loader(sampler, {task.name: latents}).read_batch(sampler.plan_step(0), 0)
    state: Any = SimpleNamespace(config=TrainConfig(), tasks={task.name: task}, latents={task.name: latents})
    judged = validation.read_example(
        state, validation.HeldOutExample(task.name, row=0, references=1, index=0)
    )
    assert judged.text.shape[1:] == trained.text.shape[1:] == (7, 32)
