"""The whole of proxy replay on the playground's tiny CogVideoX: encoded, trained, generated, in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from curation.playground.plain import (
    CELLS,
    IDENTITIES,
    draw_identity,
    make_plain_scene,
    render_pairs,
    write_scene,
)
from reprise.settings import load_settings
from reprise.storage import Storage
from tests.training.replay_worlds import run
from tests.training.worlds import launch
from training.config import TrainConfig
from training.generate.pipeline import ReferenceToVideoPipeline
from training.latents.config import EncodeConfig
from training.latents.encode import encode_dataset, execute_here
from training.latents.sources.open_pairs import open_pairs
from training.latents.sources.videos import VideoSource
from training.latents.store import Latents
from training.models.subject_token import read_subject_token
from training.playground.model import TEXT_WIDTH, write_model

RECIPES = Path("training/recipes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, six videos and six pairs, encoded."""
    made = tmp_path_factory.mktemp("playground")
    model = str(write_model(made / "model", family="cogvideox"))
    for index in range(6):
        write_scene(make_plain_scene(0, index), f"plain-{index}", made / "videos")
    listed = render_pairs(made / "pairs", pairs=6)
    config = load_settings(EncodeConfig, "training/playground/encode.yaml", ("frames_alone=3",))
    encode_dataset(
        VideoSource(str(made / "videos"), config),
        model,
        Storage.from_uri(made / "video-latents"),
        config,
        execute_here,
    )
    config = load_settings(EncodeConfig, "training/playground/encode.yaml", ())
    encode_dataset(
        open_pairs(str(listed), config), model, Storage.from_uri(made / "pair-latents"), config, execute_here
    )
    return made


def config(folder: Path, recipe: str, name: str, *overrides: str) -> TrainConfig:
    latents = {"playground-t2v": ("video",), "playground-replay": ("pair", "video")}[recipe]
    paths = [f"tasks.{number}.latents={folder / each}-latents" for number, each in enumerate(latents)]
    small = [f"tasks.{number}.{key}=2" for number in range(len(latents)) for key in ("batch", "micro_batch")]
    common = ("steps=2", "log.tensorboard=false", f"run.name={name}", f"run.output={folder / 'runs'}")
    return load_settings(TrainConfig, RECIPES / f"{recipe}.yaml", [*paths, *small, *common, *overrides])


@pytest.fixture(scope="module")
def trained(folder: Path) -> list[dict[str, Any]]:
    """Pretrained on videos, then the two stages of S2I and I2V, one after the other; each two steps."""
    pretrained = config(folder, "playground-t2v", "t2v", f"model.path={folder / 'model'}")
    begin = f"model.path={folder / 'runs' / 't2v' / 'model'}"
    images = config(folder, "playground-replay", "images", begin, "replay=0", "conflict.every=1")
    begin = f"model.path={folder / 'runs' / 'images' / 'model'}"
    videos = config(folder, "playground-replay", "videos", begin, "replay=1")
    return [launch(run, 1, each)[0] for each in (pretrained, images, videos)]


def test_pictures_and_videos_are_encoded_as_the_family_takes_them(folder: Path) -> None:
    videos, pairs = Latents(str(folder / "video-latents")), Latents(str(folder / "pair-latents"))
    assert [len(each.records) for each in (videos, pairs)] == [6, 6]
    assert (videos.records.sizes == [3, 6, 6]).all() and (pairs.records.sizes == [1, 6, 6]).all()
    assert (videos.manifest.model.family, videos.manifest.text.length) == ("cogvideox", 8)
    assert videos.records.count_subjects(("frame",)).min() == 1


def test_each_stage_goes_on_from_the_one_before(folder: Path, trained: list[dict[str, Any]]) -> None:
    t2v, images, videos = (found["weights"] for found in trained)
    name = "patch_embed.subject_token.weight"
    assert name not in t2v and not torch.equal(images["proj_out.weight"], t2v["proj_out.weight"])
    # No replay step has <cls>: it stays what image steps made of it (averaged), but for weight decay.
    made = read_subject_token(folder / "runs" / "images" / "model", TEXT_WIDTH)
    assert torch.allclose(videos[name], made, rtol=1e-5, atol=0) and not torch.equal(made, torch.zeros(32))


def test_a_model_that_was_trained_whole_generates_with_its_token(
    folder: Path, trained: list[dict[str, Any]]
) -> None:
    pipeline = ReferenceToVideoPipeline.from_pretrained(folder / "runs" / "videos" / "model")
    pipeline.set_progress_bar_config(disable=True)
    token = pipeline.transformer.patch_embed.subject_token.weight
    size = {"height": CELLS, "width": CELLS, "num_frames": 3, "num_inference_steps": 2}
    thing = Image.fromarray(draw_identity(IDENTITIES[0]))
    video = pipeline("A thing moves up.", [thing], **size, seed=0).frames
    assert video.shape == (1, 3, CELLS, CELLS, 3) and np.isfinite(video).all()
    with torch.no_grad():
        token.add_(10)
    assert not np.allclose(pipeline("A thing moves up.", [thing], **size, seed=0).frames, video)


def test_pairs_show_one_thing_twice(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "pairs" / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and {row["caption"] for row in rows} == {"A thing."}
    for index, row in enumerate(rows):
        identity = make_plain_scene(0, index).identity
        shown = np.array(Image.open(folder / "pairs" / row["reference"]))
        assert np.array_equal(shown, draw_identity(identity))
        assert Image.open(folder / "pairs" / row["target"]).size == (96, 96)
