"""The output, the files and the plots of a run show what happened."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reprise.errors import RepriseError
from reprise.settings import load_settings
from reprise.storage import Storage
from tests.training.sizes import WAN
from training.callbacks import console, curves, wandb
from training.callbacks.contact_sheet import THUMBNAIL_HEIGHT, SheetRow, draw_sheet, make_thumbnails
from training.callbacks.metrics_file import MetricsFile, read_metrics
from training.callbacks.throughput import Throughput
from training.config import TrainConfig
from training.cost import flops
from training.cost.devices import get_peak_flops
from training.models.build import make_shape


def step(loss: float = 1.0, **changes: float) -> dict[str, float]:
    return {
        "loss": loss,
        "lr": 1e-5,
        "seconds": 2.0,
        "data_wait": 0.5,
        "samples": 4.0,
        "tokens": 400.0,
        "memory": 3.0 * (1 << 30),
    } | changes


# ---- speed -----------------------------------------------------------------------------------------------


def test_speed_is_work_over_time() -> None:
    shape = make_shape(WAN)
    throughput = Throughput(shape, peak=1e9, steps=10)
    throughput.add_step(step(loss=1.0))
    throughput.add_step(step(loss=3.0, seconds=4.0, data_wait=0.1, memory=5.0 * (1 << 30)))
    scalars = throughput.pop_scalars(2)
    assert scalars["loss"] == 2.0
    assert scalars["speed/tokens_per_second"] == pytest.approx(800 / 6)
    assert scalars["speed/samples_per_second"] == pytest.approx(8 / 6)
    assert scalars["speed/data_wait"] == pytest.approx(0.6 / 6)
    assert scalars["speed/mfu"] == pytest.approx(8 * flops.count_training(shape, 100) / 6 / 1e9)
    assert scalars["memory/peak_gib"] == 5.0
    assert scalars["eta_seconds"] == pytest.approx(8 * 3.0)
    assert throughput.pop_scalars(2) == {}


def test_unknown_values_are_left_out() -> None:
    throughput = Throughput(None, None, steps=10)
    throughput.add_step(step(memory=0.0))
    scalars = throughput.pop_scalars(1)
    assert not {"speed/mfu", "speed/tflops", "memory/peak_gib"} & set(scalars)


def test_metrics_of_one_task_are_averaged_over_its_own_steps() -> None:
    throughput = Throughput(None, None, steps=10)
    throughput.add_step(step() | {"loss/kaleido": 1.0})
    throughput.add_step(step() | {"loss/video": 5.0})
    scalars = throughput.pop_scalars(2)
    assert (scalars["loss/kaleido"], scalars["loss/video"]) == (1.0, 5.0)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA B200", 2250),
    ],
)
def test_peaks_of_devices_are_known_by_name(name: str, tera: int) -> None:
    assert get_peak_flops(name) == tera * 1e12


def test_an_unknown_device_has_no_peak() -> None:
    assert get_peak_flops("Some Accelerator 9000") is None


def test_the_line_shows_the_progress() -> None:
    scalars = {
        "loss": 0.12345,
        "grad_norm": 0.0712,
        "speed/tokens_per_second": 12_345.0,
        "speed/mfu": 0.512,
        "speed/data_wait": 0.013,
        "memory/peak_gib": 61.27,
        "eta_seconds": 7_380.0,
    }
    assert console.format_line(40, 10_000, scalars) == (
        "step 40/10000  loss 0.1235  grad 0.0712  12.3k tokens/s  MFU 51.2 %  data wait 1 %  61.3 GiB  "
        "2 h 03 min left"
    )
    assert (
        console.format_line(5, 9, {"validation/kaleido": 0.5, "time": 1.0})
        == "step 5/9  validation/kaleido 0.5"
    )


# ---- files -----------------------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_after_the_step_that_it_goes_on_from(tmp_path: Path) -> None:
    folder = Storage.from_uri(tmp_path)
    first = MetricsFile()
    first.open_file(folder, 0)
    for number in range(1, 6):
        first.write(number, {"loss": number, "bad": float("nan")})
    # Killed: nothing is closed, and the last line is cut short.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    again = MetricsFile()
    again.open_file(folder, 4)
    again.write(5, {"loss": 50.0})
    again.close()
    records = list(read_metrics(folder))
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert records[-1]["loss"] == 50.0
    assert records[0]["bad"] is None
    assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_curves_are_drawn_from_the_file(tmp_path: Path) -> None:
    folder = Storage.from_uri(tmp_path)
    assert not curves.draw_curves(folder, "empty")
    file = MetricsFile()
    file.open_file(folder, 0)
    for number in range(1, 80):
        scalars = {"loss": 1 / number, "loss/kaleido": 1 / number, "lr": 1e-5, "grad_norm": 0.1}
        file.write(number, scalars | {"validation/kaleido/q0.1": 1.0} if number % 20 == 0 else scalars)
    file.close()
    assert curves.draw_curves(folder, "a run")
    image = Image.open(tmp_path / "curves.png")
    assert image.width > 1000
    assert np.asarray(image.convert("L")).std() > 1, "something is drawn"


def test_smoothing_has_no_bias_at_the_beginning() -> None:
    assert curves.smooth_values([3.0] * 5) == pytest.approx([3.0] * 5)


def test_a_contact_sheet_shows_references_what_was_made_and_what_was_true() -> None:
    red, green, blue = (
        np.full((9, 32, 48, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    )
    row = SheetRow("a ball " * 40, make_thumbnails(red, 1), make_thumbnails(green), make_thumbnails(blue))
    page = np.asarray(Image.open(io.BytesIO(draw_sheet([row, row]))))

    def area(colour: tuple[int, int, int]) -> int:
        return int((page == colour).all(axis=-1).sum())

    each = THUMBNAIL_HEIGHT * round(48 * THUMBNAIL_HEIGHT / 32)
    assert (area((255, 0, 0)), area((0, 255, 0)), area((0, 0, 255))) == (2 * each, 12 * each, 12 * each)


def test_a_video_of_one_frame_has_one_thumbnail() -> None:
    assert len(make_thumbnails(np.zeros((1, 8, 8, 3), np.uint8))) == 1


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RepriseError, match="pip install wandb"):
        wandb.WandbWriter("project")


# ---- in a run --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with its VAE, and latents."""
    torch = pytest.importorskip("torch")
    from diffusers import AutoencoderKLWan

    from tests.training.worlds import tiny_config

    folder = tmp_path_factory.mktemp("runs")
    tiny_config(folder)
    torch.manual_seed(0)
    AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).save_pretrained(folder / "model" / "vae")
    return folder


def watching(folder: Path, name: str, **changes: Any) -> tuple[Any, ...]:
    """A run of three or six steps with all callbacks, for `together`."""
    from tests.training import worlds
    from training.callbacks.build import build_callbacks

    validation = {"holdout": 0.4, "every": 3, "batches": 3, "quantiles": (0.2, 0.8), "videos": 2, "steps": 2}
    config = worlds.tiny_config(folder, run__name=name, validation=validation, log__every=2, **changes)
    return worlds.run, config, *build_callbacks(config)


@pytest.fixture(scope="module")
def one(runs: Path) -> list[Any]:
    """On one worker: a run that is not watched, one that is, and one with nothing held out to watch."""
    from tests.training import worlds
    from training.callbacks.build import build_callbacks

    plain = worlds.tiny_config(runs, run__name="plain", validation__holdout=0.4)
    none = worlds.tiny_config(runs, run__name="none", validation={"holdout": 0.0, "every": 3})
    calls = [(worlds.run, plain), watching(runs, "watched"), (worlds.run, none, *build_callbacks(none))]
    found: list[Any] = worlds.launch(worlds.together, 1, *calls)[0]
    return found


@pytest.fixture(scope="module")
def two(runs: Path) -> None:
    """Watched runs of two workers, that share the model or each sample."""
    from tests.training import worlds

    calls = [
        watching(runs, layout, steps=3, parallel={layout: 2}, log__tensorboard=False)
        for layout in ("shard", "sequence")
    ]
    worlds.launch(worlds.together, 2, *calls)


def records_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(read_metrics(Storage.from_uri(folder / "runs" / name)))


def test_callbacks_do_not_change_training_and_write_numbers_and_pictures(runs: Path, one: list[Any]) -> None:
    single, seen, _ = one
    for kind in ("weights", "optimizer", "ema"):
        for name, tensor in single[kind].items():
            assert bool((seen[kind][name] == tensor).all()), (kind, name)
    assert seen["losses"] == single["losses"]

    records = records_of(runs, "watched")
    assert [record["step"] for record in records if "loss" in record] == [2, 4, 6]
    first = records[0]
    assert first["loss"] == pytest.approx(sum(single["losses"][:2]) / 2, rel=1e-6)
    assert first["speed/tokens_per_second"] > 0
    folder = runs / "runs" / "watched"
    for rel in ("curves.png", "samples/step-00000003.png", "samples/step-00000006.png"):
        assert Image.open(folder / rel).width > 100
    import av

    for number in (0, 1):
        with av.open(str(folder / f"samples/step-00000006/{number:02d}.mp4")) as video:
            assert sum(1 for _ in video.decode(video=0)) in (1, 5)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6]
    assert [event.step for event in events.Scalars("validation/kaleido/q0.2")] == [3, 6]


@pytest.mark.parametrize("layout", ["shard", "sequence"])
def test_held_out_losses_and_videos_do_not_depend_on_who_computes_them(
    runs: Path, one: list[Any], two: None, layout: str
) -> None:
    single, shared = (
        {
            name: value
            for record in records_of(runs, run)
            for name, value in record.items()
            if record["step"] == 3 and name.startswith("validation/kaleido")
        }
        for run in ("watched", layout)
    )
    assert len(single) == 3
    assert shared == pytest.approx(single, rel=1e-4)
    one_page, two_page = (
        np.asarray(Image.open(runs / "runs" / run / "samples/step-00000003.png"), np.int16)
        for run in ("watched", layout)
    )
    assert abs(one_page - two_page).mean() < 1


def test_a_run_without_held_out_samples_is_one_line(one: list[Any]) -> None:
    assert isinstance(one[2], RepriseError)
    assert "no sample is held out" in str(one[2])


def test_a_config_for_watching_is_valid() -> None:
    config = load_settings(
        TrainConfig, None, ["log.peak_tflops=400", "validation.every=10", "log.wandb=project"]
    )
    assert config.log.peak_tflops == 400
