"""`reprise convert kaleido`: its output and its exit status."""

from click.testing import CliRunner
from safetensors.torch import save_file

from pipelines.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["convert", "kaleido", *map(str, arguments)])


def test_it_prints_source_and_target(tmp_path):
    import torch
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=1, text_dim=8, freq_dim=16
    )
    save_file(model.state_dict() | {"vae.decoder.weight": torch.ones(1)}, tmp_path / "in.safetensors")
    result = run(tmp_path / "in.safetensors", tmp_path / "out", "--heads", 2)
    assert result.exit_code == 0, result.output
    assert "diffusers -> sat: 1 blocks" in result.output and "vae.decoder.* (1)" in result.output
    back = run(tmp_path / "out", tmp_path / "back", "--heads", 2)
    assert back.exit_code == 0 and "--base FOLDER" in back.output


def test_no_checkpoint_is_one_line_and_status_2(tmp_path):
    result = run(tmp_path / "nothing", tmp_path / "out")
    assert result.exit_code == 2
    assert result.output.startswith("error no checkpoint at") and result.output.count("\n") == 1
