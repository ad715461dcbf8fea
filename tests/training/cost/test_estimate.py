"""The estimate of a run equals what the run needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reprise.errors import RepriseError
from reprise.settings import load_settings
from tests.training.sizes import COGVIDEOX, WAN
from training.config import TrainConfig
from training.models.published import PUBLISHED, VAE_CONFIGS
from training.precision import DTYPES

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from training.cost import activations  # noqa: E402
from training.cost.estimate import Estimate  # noqa: E402
from training.cost.layout import CHECKPOINTING_MODES, ParallelLayout  # noqa: E402
from training.cost.memory import ParameterCounts  # noqa: E402
from training.cost.units import GIB  # noqa: E402
from training.cost.workload import Workload, estimate_workloads  # noqa: E402
from training.latents.buckets import list_sizes  # noqa: E402
from training.latents.config import BucketsConfig  # noqa: E402
from training.models.build import make_family, make_shape  # noqa: E402

SMALL = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
LARGE = "Wan-AI/Wan2.1-T2V-14B-Diffusers"


def works_of(config: TrainConfig, name: str, size: tuple[int, int, int]) -> list[Workload]:
    family = make_family(PUBLISHED[name], VAE_CONFIGS[name])
    return estimate_workloads(config, family, make_shape(PUBLISHED[name]), size)


def estimate_recipe(name: str, *overrides: str, size: tuple[int, int, int] = (81, 480, 832)) -> Estimate:
    config = load_settings(TrainConfig, None, ["tasks.0.kind=kaleido", "tasks.0.latents=there", *overrides])
    works = works_of(config, name, size)
    return Estimate(config, PUBLISHED[name], works, VAE_CONFIGS[name])


def measure_saved_bytes(
    config: dict[str, Any], tokens: int, batch: int, mode: Any, dtype: Any, *, each_token: bool = False
) -> int:
    """Bytes that autograd keeps on the CPU, weights and inputs left out, each storage once."""
    model = activations.build_stock_model(config, device="cpu", dtype=dtype)
    activations.apply_recomputation(model, mode)
    call = activations.make_inputs(model, tokens, batch, dtype, token_timesteps=each_token)
    given = [*model.parameters(), *(each for each in call.values() if isinstance(each, torch.Tensor))]
    theirs = {each.untyped_storage().data_ptr() for each in given}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**call, return_dict=False)[0].float().square().mean()
    assert loss.requires_grad
    return sum(each.untyped_storage().nbytes() for place, each in kept.items() if place not in theirs)


# What a checkpointed CogVideoX block keeps are its named arguments, which autograd's hooks do not see, and
# neither do they see what selective checkpointing keeps.
@pytest.mark.parametrize(
    ("config", "mode", "each_token"),
    [(WAN, "none", False), (WAN, "full", False), (WAN, "none", True), (COGVIDEOX, "none", False)],
    ids=["wan-none", "wan-full", "wan-none-each-token", "cogvideox-none"],
)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_followed_activations_are_those_that_autograd_keeps(
    config: dict[str, Any], mode: Any, each_token: bool, precision: Any
) -> None:
    dtype = DTYPES[precision]
    trace = activations.measure_activations(
        config, 240, 2, mode, precision, layers=4, token_timesteps=each_token
    )
    kept = measure_saved_bytes(config, 240, 2, mode, dtype, each_token=each_token)
    assert trace.saved == pytest.approx(kept, rel=0.02)
    assert trace.peak > trace.saved


@pytest.mark.parametrize("config", [WAN, COGVIDEOX], ids=["wan", "cogvideox"])
def test_selective_checkpointing_keeps_what_products_and_attention_made(config: dict[str, Any]) -> None:
    """Beside what full checkpointing keeps: the results themselves, counted as a plain pass makes them."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    kept = 0

    class Results(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal kept
            made = func(*args, **(kwargs or {}))
            if "addmm" in func.name() or "attention" in func.name():
                tensors = [each for each in tree_leaves(made) if isinstance(each, torch.Tensor)]
                kept += sum(each.numel() * each.element_size() for each in tensors)
            return made

    model = activations.build_stock_model(config, device="cpu")
    for block in model.blocks if hasattr(model, "blocks") else model.transformer_blocks:
        block.register_forward_pre_hook(lambda *_: watch.__enter__() and None)
        block.register_forward_hook(lambda *_: watch.__exit__(None, None, None))
    watch = Results()
    with torch.no_grad():
        model(**activations.make_inputs(model, 240, 2, torch.float32))
    full, selective = (
        activations.measure_activations(config, 240, 2, mode, "fp32", layers=4).saved
        for mode in ("full", "selective")
    )
    assert selective - full == pytest.approx(kept, rel=0.02)


def test_a_timestep_for_each_token_is_a_modulation_for_each_token() -> None:
    one, zero = (estimate_recipe(SMALL, f"positions.reference_time={time}") for time in ("video", "zero"))
    layout = ParallelLayout(1, 1, 1, "none", 1)
    # Six vectors per token and block in float32, and the tensors computed from them.
    added = (zero.estimate_activations(layout) - one.estimate_activations(layout)) / (
        one.max_tokens * 30 * 1536 * 4
    )
    assert 6 < added < 18


def test_what_a_block_adds_is_the_same_for_every_block() -> None:
    for mode in CHECKPOINTING_MODES:
        two, four, six = (
            activations.measure_activations(WAN, 240, 2, mode, "bf16", layers=n).peak for n in (2, 4, 6)
        )
        assert six == pytest.approx(two + 2 * (four - two), rel=0.01)


TINY_VAES: list[dict[str, Any]] = [
    {"_class_name": "AutoencoderKLWan", "base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
    {
        "_class_name": "AutoencoderKLCogVideoX",
        "block_out_channels": [8, 8, 8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 2,
    },
]


@pytest.mark.parametrize("config", TINY_VAES, ids=["wan", "cogvideox"])
@pytest.mark.parametrize("video", [(3, 6, 8), (3, 34, 4)], ids=["whole", "in-tiles"])
def test_decoding_takes_at_most_the_estimate_and_not_much_less(
    config: dict[str, Any], video: tuple[int, int, int]
) -> None:
    from training.models.vae import decode_latents

    vae, latents = activations.build_stock_model(config, device="cpu"), torch.randn(1, 16, *video)
    vae.enable_tiling()
    with torch.no_grad(), activations.MemoryTracer() as following:
        decode_latents(vae, latents).float()
    needed = following.peak + sum(4 * parameter.numel() for parameter in vae.parameters())
    # With so few channels the pixels dominate, and their estimate is higher than their number.
    assert needed <= activations.measure_decoding(config, video, "fp32") <= 2 * needed


def test_the_vae_is_counted_where_validation_makes_videos_and_never_beside_gradients() -> None:
    layout = ParallelLayout(1, 1, 1, "full", 1)
    plain, videos = (
        estimate_recipe(SMALL, "validation.every=9", f"validation.videos={count}").estimate_memory(layout)
        for count in (0, 2)
    )
    assert plain.decoding == 0 and videos.decoding > GIB
    assert videos.total == plain.total, "less than a step of training needs"
    assert (
        replace(videos, activations=0, gradients=0).total > replace(plain, activations=0, gradients=0).total
    )


def test_parameters_of_the_published_models() -> None:
    small, large = (ParameterCounts.from_config(PUBLISHED[name]) for name in (SMALL, LARGE))
    assert small.total == 1_418_996_800
    assert large.total == 14_288_491_584
    assert small.total == 30 * small.block + small.rest


def test_sharding_divides_what_is_held_and_sequence_parallelism_the_activations() -> None:
    estimated = estimate_recipe(SMALL)
    one = ParallelLayout(1, 1, 1, "full", 1)
    memory = estimated.estimate_memory(one)
    assert memory.gradients == memory.parameters
    four = estimated.estimate_memory(replace(one, shard=4))
    assert four.parameters * 4 == memory.parameters
    assert four.optimizer * 4 == memory.optimizer
    assert four.activations == memory.activations
    shared = estimated.estimate_memory(replace(one, sequence=4))
    assert shared.activations == pytest.approx(memory.activations / 4, rel=0.05)
    assert estimated.estimate_memory(replace(one, replicate=4)) == memory


def test_whole_gradients_are_held_while_they_are_accumulated() -> None:
    layout = ParallelLayout(1, 8, 1, "full", 1)
    once, twice = (
        estimate_recipe(SMALL, f"tasks.0.batch={batch}").estimate_memory(layout) for batch in (8, 16)
    )
    assert twice.gradients == 8 * once.gradients
    assert replace(twice, gradients=once.gradients) == once
    sharded = replace(layout, reduce="micro_batch")
    assert estimate_recipe(SMALL, "tasks.0.batch=16").estimate_memory(sharded).gradients == once.gradients


def test_the_less_is_recomputed_the_more_is_kept() -> None:
    estimated = estimate_recipe(SMALL)
    none, selective, full = (
        estimated.estimate_activations(ParallelLayout(1, 1, 1, mode, 1))
        for mode in ("none", "selective", "full")
    )
    assert none > 1.8 * selective > 3.6 * full


def test_what_does_not_fit_is_refused_with_the_smallest_layout_that_does() -> None:
    with pytest.raises(RepriseError) as caught:
        estimate_recipe(LARGE).check_fit(80 * GIB)
    message = str(caught.value)
    assert "\n" not in message
    assert "needs " in message
    assert "the smallest layout that fits: run.workers=" in message
    named = dict(part.split("=") for part in message.split("fits: ")[1].split())
    estimate_recipe(LARGE, *(f"{key}={value}" for key, value in named.items())).check_fit(80 * GIB)
    estimate_recipe(SMALL).check_fit(80 * GIB)


def test_no_smaller_layout_fits() -> None:
    estimated = estimate_recipe(LARGE)
    found = estimated.find_smallest_layout(80 * GIB)
    assert found is not None
    for workers in (found.workers // 2, found.workers // 4):
        for sequence in (each for each in (1, 2, 4, 8) if each <= workers):
            layout = ParallelLayout(1, workers // sequence, sequence, "full", 1, "micro_batch")
            assert estimated.estimate_memory(layout).total > 80 * GIB


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["run.workers=3", "parallel.shard=2"], "does not make run.workers=3"),
        (
            ["run.workers=5", "parallel.sequence=5"],
            "12 attention heads cannot be shared by parallel.sequence=5",
        ),
        (["run.workers=3"], "batch 256 does not divide into 3 data workers"),
    ],
)
def test_a_layout_that_cannot_be_is_one_line(overrides: list[str], pattern: str) -> None:
    with pytest.raises(RepriseError, match=pattern):
        estimate_recipe(SMALL, *overrides).check_fit(None)


def test_sizes_that_a_video_cannot_have_are_refused() -> None:
    config = load_settings(TrainConfig, None, ["tasks.0.kind=video", "tasks.0.latents=there"])
    for size in ((80, 480, 832), (81, 480, 830)):
        with pytest.raises(RepriseError, match="needs 4n \\+ 1 frames, a height that 16 divides"):
            works_of(config, SMALL, size)


def test_channel_concatenation_adds_channels_and_no_tokens() -> None:
    concat, sequence = estimate_recipe(SMALL, "positions.scheme=channel_concat"), estimate_recipe(SMALL)
    assert concat.max_tokens == 32_760
    assert sequence.max_tokens == 37_440
    assert concat.weights.total - sequence.weights.total == 3 * 16 * 4 * 1536


def test_tasks_share_the_steps_by_weight() -> None:
    both = estimate_recipe(
        SMALL, "tasks.1.kind=video", "tasks.1.latents=there", "tasks.1.weight=3", "tasks.1.batch=64"
    )
    kaleido, video = both.workloads
    assert (kaleido.share, video.share) == (0.25, 0.75)
    assert both.count_tokens(video) == 64 * 32_760
    assert both.count_tokens(kaleido) == 256 * (32_760 + 2 * 1_560)


def test_lora_keeps_frozen_weights_in_the_type_of_the_computation() -> None:
    layout = ParallelLayout(1, 1, 1, "full", 1)
    counts = estimate_recipe(LARGE, "lora.rank=16").weights
    for overrides, size in (([], 2), (["lora.frozen=fp32"], 4), (["compute.precision=fp32"], 4)):
        found = estimate_recipe(LARGE, "lora.rank=16", *overrides).estimate_memory(layout).parameters
        assert found == size * (counts.total - counts.trained) + 4 * counts.trained


@pytest.mark.parametrize("sequence", [2, 4, 8])
def test_workers_can_share_every_bucket_of_encode(sequence: int) -> None:
    config = BucketsConfig()
    sizes = list_sizes(config.area, 16)
    assert len(sizes) > 30
    for height, width in sizes:
        for frames in (17, 81):
            estimated = estimate_recipe(LARGE, size=(frames, height, width))
            assert estimated.find_problem(ParallelLayout(1, 1, sequence, "full", 1)) is None
