"""reprise lora and reprise conflict, from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipelines.cli import main
from pipelines.console import EXIT_USAGE

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder `model/`, and `lora.safetensors` for it that does something."""
    from tests.training.lora.test_lora import add_trained_lora
    from tests.training.tiny_cogvideox import tiny_cogvideox
    from training.lora.adapters import save_lora

    made = tmp_path_factory.mktemp("commands")
    tiny_cogvideox().save_pretrained(made / "model" / "transformer")
    (made / "model" / "scheduler").mkdir()
    (made / "model" / "scheduler" / "scheduler_config.json").write_text("{}")
    save_lora(add_trained_lora(tiny_cogvideox()), made / "lora.safetensors", "cogvideox")
    return made


def weights(path: Path) -> dict[str, torch.Tensor]:  # type: ignore[name-defined]
    from safetensors.torch import load_file

    return load_file(path / "transformer" / "diffusion_pytorch_model.safetensors")


def test_check_prints_the_contents_of_a_file(folder: Path) -> None:
    result = invoke("lora", "check", folder / "lora.safetensors", "--model", folder / "model")
    assert result.exit_code == 0, result.output
    assert "rank 2, alpha 1, 18 modules; fits" in " ".join(result.output.split())


def test_a_file_goes_to_comfyui_and_back(folder: Path) -> None:
    from safetensors.torch import load_file

    there, back = folder / "comfyui.safetensors", folder / "back.safetensors"
    for source, target, layout in (
        (folder / "lora.safetensors", there, "comfyui"),
        (there, back, "diffusers"),
    ):
        result = invoke("lora", "export", source, target, "--to", layout, "--model", folder / "model")
        assert result.exit_code == 0, result.output
    assert float(load_file(there)["diffusion_model.blocks.0.q.alpha"]) == 1
    one, other = load_file(folder / "lora.safetensors"), load_file(back)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_merging_adds_what_unmerging_takes_out(folder: Path) -> None:
    from safetensors.torch import load_file

    for command, model, target in (("merge", "model", "merged"), ("unmerge", "merged", "again")):
        result = invoke(
            *("lora", command, folder / "lora.safetensors", folder / target),
            *("--model", folder / model, "--dtype", "fp32"),
        )
        assert result.exit_code == 0, result.output
    before, merged, after = (weights(folder / name) for name in ("model", "merged", "again"))
    lora = load_file(folder / "lora.safetensors")
    module = "transformer_blocks.1.attn1.to_q"
    update = lora[f"transformer.{module}.lora_B.weight"] @ lora[f"transformer.{module}.lora_A.weight"]
    # alpha / rank = 1 / 2
    torch.testing.assert_close(merged[f"{module}.weight"], before[f"{module}.weight"] + update / 2)
    assert before.keys() == merged.keys() == after.keys()
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight)
    assert (folder / "merged" / "scheduler" / "scheduler_config.json").is_file()
    again = invoke(
        "lora", "merge", folder / "lora.safetensors", folder / "merged", "--model", folder / "model"
    )
    assert again.exit_code == EXIT_USAGE and "is there already" in again.output


def test_adapters_of_another_model_and_no_adapters_are_one_line(folder: Path) -> None:
    from tests.training.tiny_cogvideox import tiny_cogvideox

    tiny_cogvideox(num_layers=1).save_pretrained(folder / "other" / "transformer")
    other = invoke("lora", "check", folder / "lora.safetensors", "--model", folder / "other")
    assert other.exit_code == EXIT_USAGE and "not in the model" in other.output
    none = invoke("lora", "check", folder / "nothing", "--model", folder / "model")
    assert none.exit_code == EXIT_USAGE and "no such LoRA file" in none.output


# ---- conflict --------------------------------------------------------------------------------------------


def test_a_runs_conflict_is_plotted(tmp_path: Path) -> None:
    records = [{"step": 5, "loss": 0.5}] + [
        {
            "step": step,
            "conflict/cosine": 0.8 * 0.97**step,
            "conflict/norm/identity": 1.0,
            "conflict/norm/replay": 0.5,
        }
        for step in range(0, 100, 10)
    ]
    lines = [json.dumps(record) for record in records]
    # The last line is still being written.
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 100, "conf')
    result = invoke("conflict", tmp_path, "--output", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "out.png").width > 500


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no metrics.jsonl"), ("{}\n", "no gradient conflict")]
)
def test_a_run_without_conflict_is_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    result = invoke("conflict", tmp_path, "--output", tmp_path / "out.png")
    assert result.exit_code == EXIT_USAGE and message in result.output
    assert not (tmp_path / "out.png").exists()
