"""The pipeline object: used as one uses diffusers, and computing what its parts compute."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from reprise.errors import RepriseError
from tests.training.tiny_models import write_cogvideox, write_wan
from training.config import PositionsConfig

SIZE = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def pipeline(folder):
    from training.generate.pipeline import ReferenceToVideoPipeline

    loaded = ReferenceToVideoPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def dog():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8))


def latents(pipeline, *arguments, **options):
    return pipeline(*arguments, **SIZE | {"output_type": "latent", "seed": 0} | options).frames


def test_a_video_has_the_requested_size_and_range(pipeline, dog):
    frames = pipeline("a red dog", [dog], seed=0, **SIZE).frames
    assert frames.shape == (1, 5, 32, 48, 3)
    assert frames.min() >= 0 and frames.max() <= 1


def test_a_seed_fixes_the_video_and_the_references_change_it(pipeline, dog):
    first = latents(pipeline, "a red dog", [dog])
    assert torch.equal(first, latents(pipeline, "a red dog", [dog]))
    assert not torch.equal(first, latents(pipeline, "a red dog", [dog], seed=1))
    other = dog.transpose(Image.Transpose.ROTATE_180)
    assert not torch.equal(first, latents(pipeline, "a red dog", [other]))
    assert not torch.equal(first, latents(pipeline, "a red dog"))


def test_several_prompts_give_what_each_prompt_gives(pipeline, dog):
    together = latents(pipeline, ["a red dog", "a blue cup"], [[dog], [dog, dog]])
    single = latents(pipeline, "a blue cup", [dog, dog], seed=1)
    assert torch.equal(together[1:], single)


def test_without_references_it_is_diffusers_own_text_to_video(pipeline, folder):
    from diffusers import WanPipeline

    stock = WanPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(3))
    # shift 1 is a plain linear grid, which diffusers' scheduler walks down to 1/1000 and then to 0.
    ours = latents(pipeline, "a red dog", latents=noise, num_inference_steps=1, flow_shift=1.0)
    theirs = stock(
        "a red dog", latents=noise, height=32, width=48, num_frames=5, num_inference_steps=1,
        guidance_scale=6.0, output_type="latent",
    ).frames  # fmt: skip
    assert torch.allclose(ours, theirs, atol=1e-3)


def test_guidance_on_references_of_scale_one_changes_nothing(pipeline, dog):
    plain = latents(pipeline, "a red dog", [dog])
    assert torch.allclose(
        latents(pipeline, "a red dog", [dog], reference_guidance_scale=1.0), plain, atol=1e-4
    )
    assert not torch.allclose(
        latents(pipeline, "a red dog", [dog], reference_guidance_scale=4.0), plain, atol=1e-2
    )


def test_callbacks_see_every_step(pipeline, dog):
    seen = []
    latents(pipeline, "a", [dog], callback=lambda pipe, step, time, values: seen.append((step, time)))
    assert seen == [(0, 1000), (1, 875)]


@pytest.mark.parametrize("family", ["wan", "cogvideox"])
def test_latents_that_a_callback_returns_are_used(family, request, pipeline, dog):
    from training.generate.pipeline import ReferenceToVideoPipeline

    if family == "cogvideox":
        pipeline = ReferenceToVideoPipeline.from_pretrained(request.getfixturevalue("cogvideox"))
        pipeline.set_progress_bar_config(disable=True)
    fixed = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(5))

    def replace_latents(pipe, step, time, values):
        return {"latents": fixed} if step == 1 else {}

    made = latents(pipeline, "a", [dog], callback=replace_latents)
    assert torch.equal(made, fixed)
    continued = latents(pipeline, "a", [dog], callback=lambda *_: {"latents": fixed * 0})
    assert torch.equal(continued, fixed * 0)
    assert torch.equal(latents(pipeline, "a", [dog]), latents(pipeline, "a", [dog], callback=lambda *_: {}))


@pytest.mark.parametrize("write_model", [write_wan, write_cogvideox])
def test_parts_moved_module_by_module_make_the_same_video(write_model, dog, tmp_path):
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module, attach_align_device_hook

    from training.generate.pipeline import ReferenceToVideoPipeline

    folder = write_model(tmp_path)
    whole, offloaded = (ReferenceToVideoPipeline.from_pretrained(folder) for _ in range(2))
    # As `enable_sequential_cpu_offload` does on a GPU: weights are on "meta" between calls of their modules.
    for part in (offloaded.text_encoder, offloaded.transformer, offloaded.vae):
        weights = {name: tensor.clone() for name, tensor in part.state_dict().items()}
        own = bool(part._parameters)
        add_hook_to_module(part, AlignDevicesHook(io_same_device=True), append=True)
        attach_align_device_hook(part, "cpu", offload=True, weights_map=weights, offload_buffers=own)
    assert next(offloaded.transformer.parameters()).is_meta
    for each in (whole, offloaded):
        each.set_progress_bar_config(disable=True)
    frames = [each("a red dog", [dog], seed=0, **SIZE).frames for each in (whole, offloaded)]
    assert np.array_equal(*frames)


def test_references_may_keep_their_own_size(pipeline, dog):
    ready = pipeline.prepare_reference(dog, 32, 48, pad=False)
    assert ready.shape == (3, 32, 16)
    assert latents(pipeline, "a", [dog], pad_references=False).shape == (1, 16, 2, 4, 6)


def test_it_saves_and_loads_with_its_positions(folder, pipeline, dog, tmp_path):
    from training.generate.pipeline import ReferenceToVideoPipeline
    from training.models.components import record_positions

    other = ReferenceToVideoPipeline.from_pretrained(folder, positions=PositionsConfig(scheme="future"))
    other.set_progress_bar_config(disable=True)
    other.save_pretrained(tmp_path / "saved")
    again = ReferenceToVideoPipeline.from_pretrained(tmp_path / "saved")
    again.set_progress_bar_config(disable=True)
    assert again.positions.scheme == "future"
    made = latents(again, "a red dog", [dog])
    assert torch.equal(made, latents(other, "a red dog", [dog]))
    assert not torch.equal(made, latents(pipeline, "a red dog", [dog]))
    record_positions(tmp_path / "saved", PositionsConfig())
    assert ReferenceToVideoPipeline.from_pretrained(tmp_path / "saved").positions == PositionsConfig()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 6}, r"4n \+ 1, such as 5 or 9"),
        ({"height": 40}, "multiples of 16"),
        ({"references": ["no-such.png"]}, "no picture at no-such.png"),
        ({"references": [__file__]}, "is no readable picture"),
        ({"references": [["a.png"], ["b.png"]]}, "references of 2 prompts for 1"),
    ],
)
def test_bad_input_is_one_clear_line(pipeline, options, message):
    with pytest.raises(RepriseError, match=message) as caught:
        pipeline("a", **SIZE | {"references": ()} | options)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_pipeline_is_one_clear_line(folder, tmp_path):
    from training.generate.pipeline import ReferenceToVideoPipeline

    with pytest.raises(RepriseError, match="no folder and no hub id"):
        ReferenceToVideoPipeline.from_pretrained("./nothing/here")
    with pytest.raises(RepriseError, match=r"no transformer/config\.json"):
        ReferenceToVideoPipeline.from_pretrained(tmp_path)
    (tmp_path / "transformer").mkdir()
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(config))
    with pytest.raises(RepriseError, match=r"no model_index\.json"):
        ReferenceToVideoPipeline.from_pretrained(tmp_path)
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(config | {"_class_name": "Flux"}))
    with pytest.raises(RepriseError, match="holds a Flux"):
        ReferenceToVideoPipeline.from_pretrained(tmp_path)


def test_a_vae_of_ours_loads_from_the_same_folder_format(tmp_path):
    from tests.training.other_vae import OtherVAE
    from training.generate.pipeline import ReferenceToVideoPipeline
    from training.models.components import load_vae, register_vae

    register_vae(OtherVAE)
    saved = write_wan(tmp_path, vae=OtherVAE(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1))
    assert type(load_vae(str(saved))) is OtherVAE
    assert type(ReferenceToVideoPipeline.from_pretrained(saved).vae) is OtherVAE


@pytest.fixture(scope="module")
def cogvideox(tmp_path_factory):
    return write_cogvideox(tmp_path_factory.mktemp("cogvideox"))


def test_cogvideox_without_references_is_diffusers_own_text_to_video(cogvideox):
    from diffusers import CogVideoXPipeline

    from training.generate.pipeline import ReferenceToVideoPipeline

    noise = torch.randn(1, 2, 16, 4, 6, generator=torch.Generator().manual_seed(3))
    size = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 3, "guidance_scale": 6.0}
    stock = CogVideoXPipeline.from_pretrained(cogvideox)
    stock.set_progress_bar_config(disable=True)
    theirs = stock("a red dog", latents=noise, output_type="latent", max_sequence_length=226, **size).frames
    ours = ReferenceToVideoPipeline.from_pretrained(cogvideox)
    ours.set_progress_bar_config(disable=True)
    made = ours("a red dog", latents=noise.transpose(1, 2), output_type="latent", **size).frames
    assert torch.allclose(made, theirs.transpose(1, 2), atol=1e-4)


def test_cogvideox_takes_references_and_adapters(cogvideox, dog, tmp_path):
    from training.config import LoraConfig
    from training.generate.pipeline import ReferenceToVideoPipeline
    from training.lora.adapters import add_lora, save_lora

    pipeline = ReferenceToVideoPipeline.from_pretrained(cogvideox)
    pipeline.set_progress_bar_config(disable=True)
    before = latents(pipeline, "a red dog", [dog])
    assert not torch.equal(before, latents(pipeline, "a red dog"))
    assert not torch.equal(before, latents(pipeline, "a red dog", [dog], dynamic_guidance=True))
    trained = ReferenceToVideoPipeline.from_pretrained(cogvideox)
    add_lora(trained.transformer, LoraConfig(rank=4, alpha=2), "cogvideox")
    with torch.no_grad():
        for name, parameter in trained.transformer.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    trained.transformer.eval()
    trained.set_progress_bar_config(disable=True)
    save_lora(trained.transformer, tmp_path, "cogvideox")
    pipeline.add_lora(tmp_path)
    after = latents(pipeline, "a red dog", [dog])
    assert torch.equal(after, latents(trained, "a red dog", [dog]))
    assert not torch.allclose(after, before, atol=1e-3)


def test_released_weights_and_a_base_make_a_whole_pipeline(folder, pipeline, dog, tmp_path):
    from training.convert.files import convert_checkpoint
    from training.generate.pipeline import ReferenceToVideoPipeline

    convert_checkpoint(folder, tmp_path / "sat", heads=2)  # a pipeline folder: its transformer is meant
    convert_checkpoint(tmp_path / "sat", tmp_path / "whole", heads=2, base=folder)
    again = ReferenceToVideoPipeline.from_pretrained(tmp_path / "whole")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(latents(again, "a red dog", [dog]), latents(pipeline, "a red dog", [dog]))
