"""`reprise generate` on a tiny random model: its files, its output and its exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipelines.cli import main
from tests.training.tiny_models import write_wan
from training.models.generation_defaults import GenerationDefaults, encode_defaults


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two pictures."""
    room = tmp_path_factory.mktemp("room")
    write_wan(room / "model")
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(room / name)
    return room


def generate(room: Path, *arguments: object) -> Result:
    size = ("--height", 32, "--width", 48, "--frames", 5, "--steps", 1, "--device", "cpu")
    command = ["generate", "--model", room / "model", *size, *arguments]
    return CliRunner().invoke(main, [str(part) for part in command])


def test_one_video_per_seed_with_its_record(room: Path, tmp_path: Path) -> None:
    arguments = ("--ref", room / "a.png", "--prompt", "a red dog", "--seed", 1, "--seed", 2)
    result = generate(room, *arguments, "--output", tmp_path / "v.mp4")
    assert result.exit_code == 0, result.output
    assert "loading " in result.output
    assert "steps: 2 of 2, video 2 of 2" in result.output
    for seed in (1, 2):
        with av.open(str(tmp_path / f"v-seed{seed}.mp4")) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert len(frames) == 5 and frames[0].shape == (32, 48, 3)
        record = json.loads((tmp_path / f"v-seed{seed}.json").read_text())
        assert record["seed"] == seed and record["guidance"] == 6.0 and record["flow_shift"] == 7.0


def test_what_training_recorded_is_the_default(room: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(room / "model", model)
    recorded = GenerationDefaults(height=16, width=32, frames=5, fps=10.0, steps=2, guidance=3.0)
    (model / "generation.json").write_bytes(encode_defaults(recorded))
    command = ["generate", "--model", model, "--ref", room / "a.png", "--prompt", "a red dog"]

    def run(*more: object) -> tuple[Result, dict[str, object]]:
        words = [*command, *more, "--output", tmp_path / "v.mp4", "--device", "cpu"]
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result, json.loads((tmp_path / "v.json").read_text())

    result, record = run()
    assert {name: record[name] for name in recorded.model_dump()} == recorded.model_dump()
    assert "note" not in result.output
    with av.open(str(tmp_path / "v.mp4")) as video:
        assert (video.streams.video[0].height, video.streams.video[0].average_rate) == (16, 10)
    result, record = run("--height", 48, "--steps", 1)
    assert (record["height"], record["width"], record["steps"], record["guidance"]) == (48, 32, 1, 3.0)
    assert "note 5 frames of 48x32 px are far from the 5 frames of 16x32 px" in result.output


def test_a_bad_line_fails_only_that_line_and_finished_videos_stay(room: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text(
        f"a red dog@@{room}/a.png@@{room}/b.png\n\na cup@@missing.png\na dog\na cup@@{room}/b.png\n"
    )
    result = generate(room, "--batch", lines, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mp4")) == ["0001.mp4", "0005.mp4"]
    assert "line 3: no picture at" in result.output and "line 4: no references" in result.output
    record = json.loads((tmp_path / "out" / "0001.json").read_text())
    assert record["prompt"] == "a red dog" and len(record["references"]) == 2
    again = generate(room, "--batch", lines, "--output", tmp_path / "out")
    assert "2 of 2 videos were made by an earlier run" in again.output
    lines.write_text(f"a red dog@@{room}/a.png\n")
    whole = generate(room, "--batch", lines, "--output", tmp_path / "out", "--whole-line")
    assert whole.exit_code == 0, whole.output
    assert "@@" in json.loads((tmp_path / "out" / "0001.json").read_text())["prompt"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--prompt", "a dog", "--ref", "none.png"), 2, "no picture at none.png"),
        (("--prompt", "a dog"), 2, "no references"),
        (("--prompt", "a dog", "--ref", "{a}", "--frames", 6), 2, "4n + 1, such as 5 or 9"),
        (("--prompt", "a dog", "--ref", "{a}", "--height", 33), 2, "multiples of 16"),
        (("--prompt", "a dog", "--ref", "{a}", "--positions", "scheme=shift"), 2, "scheme"),
        (("--prompt", "a dog", "--ref", "{a}", "--model", "./none"), 2, "no folder and no hub id"),
        (("--batch", "{bad}"), 1, "line 1: no picture at"),
        ((), 2, "either --prompt"),
    ],
)
def test_bad_input_is_one_clear_line(
    room: Path, tmp_path: Path, arguments: tuple[object, ...], status: int, message: str
) -> None:
    (tmp_path / "bad.txt").write_text("a dog@@none.png\n")
    given = [str(word).format(a=room / "a.png", bad=tmp_path / "bad.txt") for word in arguments]
    result = generate(room, *given, "--output", tmp_path / "v.mp4")
    assert result.exit_code == status, result.output
    assert message in result.output and result.output.count("\n") == 1
    assert not (tmp_path / "v.mp4").exists()
