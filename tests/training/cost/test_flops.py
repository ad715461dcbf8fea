"""Counted FLOPs are those that PyTorch counts on the real model."""

from __future__ import annotations

from typing import Any

import pytest

from reprise.errors import RepriseError
from tests.training.sizes import COGVIDEOX, WAN
from training.cost import flops
from training.models.build import make_shape
from training.models.published import PUBLISHED

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


def count_flops(
    config: dict[str, Any], tokens: int, batch: int, checkpointing: Any = "none", backend: str = "MATH"
) -> tuple[int, int]:
    """(forward, forward and backward) by PyTorch's own counter; MATH: with attention as plain products."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from training.cost import activations

    model = activations.build_stock_model(config, device="cpu")
    activations.apply_recomputation(model, checkpointing)
    call = activations.make_inputs(model, tokens, batch, torch.float32)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(getattr(SDPBackend, backend)), counter:
        loss = model(**call, return_dict=False)[0].square().mean()
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize("config", [WAN, COGVIDEOX], ids=["wan", "cogvideox"])
@pytest.mark.parametrize(("tokens", "batch"), [(72, 1), (100, 2)])
def test_counts_are_exact(config: dict[str, Any], tokens: int, batch: int) -> None:
    shape = make_shape(config)
    forward, both = count_flops(config, tokens, batch)
    assert batch * flops.count_forward(shape, tokens) == forward
    assert batch * flops.count_training(shape, tokens) == both


@pytest.mark.parametrize("config", [WAN, COGVIDEOX], ids=["wan", "cogvideox"])
def test_what_is_computed_again_is_counted_exactly(config: dict[str, Any]) -> None:
    none, full = (count_flops(config, 72, 2, mode)[1] for mode in ("none", "full"))
    assert full - none == 2 * flops.count_recomputed(make_shape(config), 72, "full")
    # Selective: no matrix product is, nor attention where it has a kernel.
    assert count_flops(config, 72, 2, "selective", "FLASH_ATTENTION") == count_flops(
        config, 72, 2, "none", "FLASH_ATTENTION"
    )


def test_attention_grows_with_the_square_of_all_tokens_references_included() -> None:
    shape = make_shape(PUBLISHED["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"])
    video, reference = shape.count_tokens(21, 60, 104), shape.count_tokens(1, 60, 104)
    assert (video, reference) == (32_760, 1_560)

    def attention(tokens: int) -> int:
        return sum(each.forward for each in shape.iterate_products(tokens) if each.part == "self-attention")

    with_three = video + 3 * reference
    assert attention(with_three) / attention(video) == pytest.approx((with_three / video) ** 2)


def test_a_training_step_is_about_three_forward_passes_and_checkpointing_makes_it_four() -> None:
    shape = make_shape(PUBLISHED["Wan-AI/Wan2.1-T2V-14B-Diffusers"])
    forward = flops.count_forward(shape, 37_440)
    assert flops.count_training(shape, 37_440) / forward == pytest.approx(3, rel=1e-3)
    assert flops.count_recomputed(shape, 37_440, "full") / forward == pytest.approx(1, rel=1e-3)
    assert (
        flops.count_recomputed(shape, 37_440, "selective")
        == flops.count_recomputed(shape, 37_440, "none")
        == 0
    )


def test_frozen_weights_save_only_their_own_gradients() -> None:
    shape = make_shape(COGVIDEOX)
    frozen, trained = (flops.count_training(shape, 100, frozen=frozen) for frozen in (True, False))
    weights = sum(
        each.forward
        for each in shape.iterate_products(100)
        if each.part != "self-attention" and each.backward == 2
    )
    assert trained - frozen == weights


def test_shares_add_up() -> None:
    shares = flops.compute_part_shares(make_shape(WAN), 64)
    assert sum(shares.values()) == pytest.approx(1)


def test_an_unknown_class_is_one_line() -> None:
    with pytest.raises(RepriseError, match="the model holds a Other, which is not supported; known are"):
        make_shape({"_class_name": "Other"})
