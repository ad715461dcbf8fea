"""The FLUX backends on tiny random pipelines in the layout of the published ones: what code can get wrong."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("diffusers")

import torch

from curation.imaging.codec import RGB, BoolMask
from curation.model_spec import ModelSpec
from curation.models.pretrained import flux
from curation.models.pretrained.device import BatchRunner
from curation.models.pretrained.flux_fill import FluxFill
from curation.models.pretrained.flux_kontext import FluxKontext
from curation.models.pretrained.flux_redux import FluxRedux, paste_on_white
from reprise.errors import RepriseError

diffusers: Any = importlib.import_module("diffusers")

WIDTH = 32  # of the text tokens
POOLED = 32
LATENTS = 4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def text_parts() -> dict[str, Any]:
    """Both tokenizers and encoders, with a vocabulary of letters."""
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTokenizer,
        T5Config,
        T5EncoderModel,
        T5Tokenizer,
    )

    letters = "abcdefghijklmnopqrstuvwxyz"
    clip = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in letters:
        clip[letter] = len(clip)
        clip[f"{letter}</w>"] = len(clip)
    t5 = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in letters)]
    torch.manual_seed(0)
    return {
        "tokenizer": CLIPTokenizer(vocab=clip, merges=[], model_max_length=16),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip), hidden_size=POOLED, intermediate_size=37, num_hidden_layers=1,
                num_attention_heads=4, projection_dim=POOLED, max_position_embeddings=16,
                bos_token_id=0, eos_token_id=1, pad_token_id=1,
            )
        ),
        "tokenizer_2": T5Tokenizer(vocab=t5),
        "text_encoder_2": T5EncoderModel(
            T5Config(vocab_size=40, d_model=WIDTH, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
        ),
    }  # fmt: skip


def painting_parts(in_channels: int, out_channels: int | None = None) -> dict[str, Any]:
    """Transformer, VAE (8 px to a latent, as the published one) and scheduler."""
    torch.manual_seed(1)
    return {
        "transformer": diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=in_channels, out_channels=out_channels, num_layers=1,
            num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=WIDTH,
            pooled_projection_dim=POOLED, guidance_embeds=True, axes_dims_rope=(4, 4, 8),
        ),
        "vae": diffusers.AutoencoderKL(
            in_channels=3, out_channels=3, block_out_channels=(4, 4, 4, 4), latent_channels=LATENTS,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1, norm_num_groups=1, use_quant_conv=False, use_post_quant_conv=False,
            shift_factor=0.06, scaling_factor=1.5,
        ),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fill, kontext, base and redux, each a folder in diffusers layout."""
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    folder = tmp_path_factory.mktemp("flux")
    text = text_parts()
    packed = 4 * LATENTS
    fill = painting_parts(2 * packed + 4 * 64, packed)  # noise, masked picture, mask of 8 x 8 px a latent
    diffusers.FluxFillPipeline(**fill, **text).save_pretrained(folder / "fill")
    edit = painting_parts(packed)
    diffusers.FluxKontextPipeline(**edit, **text).save_pretrained(folder / "kontext")
    diffusers.FluxPipeline(**edit, **text).save_pretrained(folder / "base")
    torch.manual_seed(2)
    diffusers.FluxPriorReduxPipeline(
        image_encoder=SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=24, intermediate_size=37, num_hidden_layers=1, num_attention_heads=4,
                image_size=32, patch_size=16,
            )
        ),
        feature_extractor=SiglipImageProcessor(size={"height": 32, "width": 32}),
        image_embedder=diffusers.pipelines.flux.modeling_flux.ReduxImageEncoder(24, WIDTH),
    ).save_pretrained(folder / "redux")  # fmt: skip
    return folder


def spec(folder: Path, batch_size: int = 4, **options: Any) -> ModelSpec:
    given = {"steps": 2, "side": 64, "tokens": 16, **options}
    return ModelSpec(
        backend="flux", checkpoint=str(folder), device="cpu", batch_size=batch_size, options=given
    )


def redux_spec(checkpoints: Path, **options: Any) -> ModelSpec:
    return spec(checkpoints / "redux", base=str(checkpoints / "base"), **options)


@pytest.fixture(scope="module")
def fill(checkpoints: Path) -> FluxFill:
    return FluxFill(spec(checkpoints / "fill"))


@pytest.fixture(scope="module")
def kontext(checkpoints: Path) -> FluxKontext:
    return FluxKontext(spec(checkpoints / "kontext", tokens=256))  # a letter each


@pytest.fixture(scope="module")
def redux(checkpoints: Path) -> FluxRedux:
    return FluxRedux(redux_spec(checkpoints))


def picture(height: int, width: int, seed: int = 0) -> RGB:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def mask_around_middle(height: int, width: int) -> BoolMask:
    """Everything but the middle."""
    mask = np.ones((height, width), bool)
    mask[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = False
    return mask


def subject(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    alpha = np.where(mask_around_middle(height, width), 0, 255).astype(np.uint8)
    return np.dstack([picture(height, width, seed), alpha])


SIZES = [(64, 64), (37, 91), (130, 33), (200, 171)]


@pytest.mark.parametrize("backend", ["fill", "kontext"])
def test_what_is_not_masked_stays_bit_for_bit_at_any_size(
    backend: str, request: pytest.FixtureRequest
) -> None:
    inpainter = request.getfixturevalue(backend)
    images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    masks = [mask_around_middle(*size) for size in SIZES]
    painted = inpainter.inpaint(images, masks, ["a cat on a beach", None, "a cup", ""], [1, 2, 3, 4])
    for image, mask, result in zip(images, masks, painted, strict=True):
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        assert np.array_equal(result[~mask], image[~mask])
        assert (result[mask] != image[mask]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("backend", ["fill", "kontext"])
def test_a_picture_depends_on_its_seed_and_not_on_its_batch(
    backend: str, request: pytest.FixtureRequest
) -> None:
    inpainter = request.getfixturevalue(backend)
    images, masks = [picture(64, 64, n) for n in range(3)], [mask_around_middle(64, 64)] * 3
    prompts, seeds = ["a dog", "a cat", "a cup"], [5, 6, 7]
    together = inpainter.inpaint(images, masks, prompts, seeds)
    apart = [
        inpainter.inpaint([image], [mask], [prompt], [seed])[0]
        for image, mask, prompt, seed in zip(images, masks, prompts, seeds, strict=True)
    ]
    for one, other in zip(together, apart, strict=True):
        # Sums of a batch run in another order, which may tip a pixel over.
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
    again = inpainter.inpaint(images[:1], masks[:1], prompts[:1], [8])[0]
    assert not np.array_equal(again, apart[0])


def test_an_empty_mask_runs_no_model_and_changes_nothing(fill: FluxFill) -> None:
    image = picture(40, 50)
    painted = fill.inpaint([image], [np.zeros((40, 50), bool)], [None], [0])[0]
    assert np.array_equal(painted, image)
    assert painted is not image
    assert fill.inpaint([], [], [], []) == []


def test_a_mask_of_another_size_is_refused(fill: FluxFill) -> None:
    with pytest.raises(ValueError, match="mask of"):
        fill.inpaint([picture(40, 50)], [np.ones((50, 40), bool)], [None], [0])


def test_the_prompt_reaches_the_model(fill: FluxFill, kontext: FluxKontext) -> None:
    image, mask = picture(64, 64), mask_around_middle(64, 64)
    for inpainter in (fill, kontext):
        results = [inpainter.inpaint([image], [mask], [prompt], [1])[0] for prompt in ("a", "zebra", None)]
        assert not np.array_equal(results[0], results[1])
        assert not np.array_equal(results[0], results[2])
    assert "shows a cup on a beach." in kontext.build_instruction("a cup on a beach")
    assert kontext.build_instruction(None).startswith("Remove")


def test_redux_returns_opaque_pictures_of_the_subjects_shape(redux: FluxRedux) -> None:
    made = redux.vary([subject(64, 64), subject(150, 60)], ["a cat", None], [1, 2])
    assert [each.shape for each in made] == [(64, 64, 4), (96, 48, 4)]  # multiples of 16, area near 64 x 64
    assert all((each[..., 3] == 255).all() for each in made)


def test_redux_depends_on_seed_subject_and_prompt_and_not_on_the_batch(redux: FluxRedux) -> None:
    subjects, prompts, seeds = [subject(64, 64, n) for n in (1, 2)], ["a dog", "a cat"], [3, 4]
    together = redux.vary(subjects, prompts, seeds)
    single = [redux.vary([s], [p], [n])[0] for s, p, n in zip(subjects, prompts, seeds, strict=True)]
    for one, other in zip(together, single, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
    for changed in (
        ([subjects[1]], ["a dog"], [3]),
        ([subjects[0]], ["zzz"], [3]),
        ([subjects[0]], ["a dog"], [9]),
    ):
        assert not np.array_equal(redux.vary(*changed)[0], single[0])


def test_redux_conditions_its_base_as_the_published_prior_does(checkpoints: Path, redux: FluxRedux) -> None:
    base = diffusers.FluxPipeline.from_pretrained(checkpoints / "base")
    parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    prior = diffusers.FluxPriorReduxPipeline.from_pretrained(
        checkpoints / "redux", **{part: getattr(base, part) for part in parts}
    )
    from PIL import Image

    shown = paste_on_white(subject(60, 40))
    theirs = prior(image=Image.fromarray(shown), prompt="a cat")
    ours = FluxRedux(redux_spec(checkpoints, tokens=512)).encode_conditions([shown], ["a cat"])
    torch.testing.assert_close(ours[0], theirs.prompt_embeds, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ours[1], theirs.pooled_prompt_embeds, atol=1e-4, rtol=1e-3)


def test_the_subject_is_shown_to_the_prior_whole_and_on_white() -> None:
    shown = paste_on_white(subject(40, 20))
    assert shown.shape == (40, 40, 3)
    assert (shown[:, :10] == 255).all()
    assert (shown[0] == 255).all()
    assert np.array_equal(shown[20, 20], subject(40, 20)[20, 10, :3])


@pytest.mark.parametrize("size", [(1, 1), (17, 400), (720, 1280), (1000, 1000), (3, 2000)])
def test_a_canvas_holds_the_whole_picture_in_its_shape(size: tuple[int, int]) -> None:
    height, width = size
    for side in (0, 64, 1024):
        canvas = flux.choose_canvas(height, width, side, 16)
        assert canvas.size[0] % 16 == canvas.size[1] % 16 == 0
        assert 1 <= canvas.content[0] <= canvas.size[0]
        assert 1 <= canvas.content[1] <= canvas.size[1]
        image = picture(height, width)
        laid = flux.place_on_canvas(image, canvas)
        assert laid.shape[:2] == canvas.size
        back = flux.crop_from_canvas(laid, canvas, height, width)
        assert back.shape == image.shape
        if side == 0:
            assert np.array_equal(back, image)


def test_ordinary_pictures_share_few_canvases() -> None:
    sizes = {flux.choose_canvas(720, width, 1024, 16).size for width in range(480, 1281, 10)}
    assert len(sizes) < 20
    assert all(abs(height * width / 1024**2 - 1) < 0.12 for height, width in sizes)


def test_pictures_come_back_in_order_however_they_are_grouped() -> None:
    sizes = [(16, 16), (32, 16), (16, 16), (16, 32), (32, 16)]
    jobs = [flux.PaintJob(None, n, size, picture(*size, n)) for n, size in enumerate(sizes)]
    seen: list[int] = []

    def painter(batch: Any) -> list[RGB]:
        seen.append(len(batch))
        assert len({job.size for job in batch}) == 1
        return [job.image for job in batch]

    painted = flux.paint_jobs(jobs, BatchRunner(8), painter)
    assert all(np.array_equal(a, job.image) for a, job in zip(painted, jobs, strict=True))
    assert sorted(seen) == [1, 2, 2]


def refusal(build: Any) -> str:
    with pytest.raises(RepriseError) as caught:
        build()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_checkpoint_of_another_pipeline_is_named(checkpoints: Path) -> None:
    assert "FluxPipeline, not of FluxFillPipeline" in refusal(lambda: FluxFill(spec(checkpoints / "base")))
    message = refusal(lambda: FluxKontext(spec(checkpoints / "fill")))
    assert "FluxFillPipeline, not of FluxKontextPipeline or FluxKontextInpaintPipeline" in message
    assert "not of FluxPriorReduxPipeline" in refusal(
        lambda: FluxRedux(spec(checkpoints / "base", base=str(checkpoints / "base")))
    )
    assert "not of FluxPipeline" in refusal(
        lambda: FluxRedux(spec(checkpoints / "redux", base=str(checkpoints / "kontext")))
    )


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder_2", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(checkpoints: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(checkpoints / "fill", tmp_path / "fill")
    shutil.rmtree(tmp_path / "fill" / part)
    assert f"no folder {part}" in refusal(lambda: FluxFill(spec(tmp_path / "fill")))


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_a_tokenizer_without_vocabulary_is_refused(checkpoints: Path, tmp_path: Path, part: str) -> None:
    """Only from its settings, transformers builds a tokenizer without a vocabulary, and does not warn."""
    shutil.copytree(checkpoints / "fill", tmp_path / "fill")
    for file in (tmp_path / "fill" / part).iterdir():
        if file.name != "tokenizer_config.json":
            file.unlink()
    assert f"no vocabulary in {part}" in refusal(lambda: FluxFill(spec(tmp_path / "fill")))


def test_half_a_download_is_one_line(checkpoints: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fill"
    shutil.copytree(checkpoints / "fill", folder)
    weights = next((folder / "transformer").glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refusal(lambda: FluxFill(spec(folder)))
    weights.unlink()
    assert "no weights in transformer" in refusal(lambda: FluxFill(spec(folder)))
    (folder / "model_index.json").write_text("{", encoding="utf-8")
    assert "cannot be read" in refusal(lambda: FluxFill(spec(folder)))
    (folder / "model_index.json").unlink()
    assert "no model_index.json" in refusal(lambda: FluxFill(spec(folder)))


def test_weights_of_another_shape_are_one_line(checkpoints: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fill"
    shutil.copytree(checkpoints / "fill", folder)
    settings = folder / "transformer" / "config.json"
    changed = {**json.loads(settings.read_text(encoding="utf-8")), "in_channels": 64}
    settings.write_text(json.dumps(changed), encoding="utf-8")
    assert "FluxFillPipeline" in refusal(lambda: FluxFill(spec(folder)))


def test_a_prior_for_another_base_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    folder = tmp_path / "redux"
    shutil.copytree(checkpoints / "redux", folder)
    other = diffusers.pipelines.flux.modeling_flux.ReduxImageEncoder(24, 2 * WIDTH)
    other.save_pretrained(folder / "image_embedder")
    assert "choose a prior and a base that match" in refusal(
        lambda: FluxRedux(spec(folder, base=str(checkpoints / "base")))
    )


def test_wrong_options_are_named(checkpoints: Path) -> None:
    assert "steps must be at least 1" in refusal(lambda: FluxFill(spec(checkpoints / "fill", steps=0)))
    assert "offload must be one of" in refusal(lambda: FluxFill(spec(checkpoints / "fill", offload="disk")))
    assert "side must be" in refusal(lambda: FluxFill(spec(checkpoints / "fill", side=3)))
    assert "no option step" in refusal(lambda: FluxFill(spec(checkpoints / "fill", step=3)))


def test_what_was_used_is_recorded(fill: FluxFill, kontext: FluxKontext, redux: FluxRedux) -> None:
    for backend in (fill, kontext, redux):
        assert backend.name
        assert backend.revision
        assert len(backend.sha256) == 64
    assert fill.paints_around
    assert kontext.paints_around
