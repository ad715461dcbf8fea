"""Positions of references: every scheme of Kaleido's tables, and what the released code really computes."""

import pytest
import torch

from tests.training.goldens import names, positions_of, read, references_of
from training.config import PositionsConfig
from training.positions import (
    convert_released_config,
    list_reference_starts,
    make_reference_positions,
    make_rotary_tables,
    make_sequence_positions,
    split_wan_head,
)

VIDEO = (5, 3, 4)


@pytest.mark.parametrize(
    ("scheme", "starts"),
    [
        ("none", [(0, 0, 0), (1, 0, 0), (2, 0, 0)]),
        ("shift_w", [(0, 0, 80), (1, 0, 80), (2, 0, 80)]),
        ("shift_h", [(0, 80, 0), (1, 80, 0), (2, 80, 0)]),
        ("shift_hw", [(0, 80, 80), (1, 80, 80), (2, 80, 80)]),
        ("no_overlap", [(0, 80, 80), (1, 160, 160), (2, 240, 240)]),
        ("negative_staggered", [(-3, 0, 0), (-2, 0, 0), (-1, 0, 0)]),
        ("negative_fixed", [(-1, 0, 0)] * 3),
        ("future", [(5, 0, 0), (6, 0, 0), (7, 0, 0)]),
    ],
)
def test_each_scheme_starts_references_at_its_formula(scheme, starts):
    assert list_reference_starts(3, VIDEO, PositionsConfig(scheme=scheme)) == starts


def test_the_papers_shift_is_the_size_of_the_video():
    paper = PositionsConfig(scheme="shift_hw", shift="video")
    assert list_reference_starts(2, VIDEO, paper) == [(0, 3, 4), (1, 3, 4)]
    apart = PositionsConfig(scheme="no_overlap", shift="video")
    assert list_reference_starts(2, VIDEO, apart) == [(0, 3, 4), (1, 6, 8)]


def test_references_after_the_video_go_on_in_time():
    config = PositionsConfig(scheme="shift_hw", place="after")
    assert list_reference_starts(2, VIDEO, config) == [(5, 80, 80), (6, 80, 80)]
    sequence = make_sequence_positions([(1, 1, 1)], VIDEO, config)
    assert sequence[0].tolist() == [0, 0, 0] and sequence[-1].tolist() == [5, 80, 80]


def test_a_reference_of_its_own_size_is_counted_on_its_own_grid():
    (positions,) = make_reference_positions([(1, 2, 1)], VIDEO, PositionsConfig())
    assert positions.tolist() == [[0, 80, 80], [0, 81, 80]]


def test_a_rotation_depends_only_on_the_distance_between_positions():
    # The property that makes rotary positions relative: <R(p) q, R(s) k> = <R(p + d) q, R(s + d) k>.
    split = split_wan_head(24)
    q, k = torch.randn(2, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()

    def score(p, s):
        cos, sin = make_rotary_tables(torch.tensor([p, s]), split, angles=torch.float64, dtype=torch.float64)
        turned = []
        for vector, c, n in zip((q, k), cos, sin, strict=True):
            even, odd = vector[0::2], vector[1::2]
            turned.append(torch.stack([even * c - odd * n, even * n + odd * c]))
        return (turned[0] * turned[1]).sum()

    assert torch.allclose(score((1, 2, 3), (0, 80, 80)), score((-2, 7, 4), (-3, 85, 81)))


def test_a_setting_of_the_released_yaml_has_a_name_here():
    assert convert_released_config() == PositionsConfig(scheme="shift_hw")
    assert list_reference_starts(3, VIDEO, PositionsConfig()) == list_reference_starts(
        3, VIDEO, convert_released_config()
    )
    assert convert_released_config(shiftH=False, shiftW=False).scheme == "none"
    assert convert_released_config(overloop=False, rope_continue=True).scheme == "no_overlap"
    with pytest.raises(ValueError, match="has no name"):
        convert_released_config(overloop=False, shiftH=False)


@pytest.mark.parametrize("name", names("kaleido_A[0-5]*.safetensors"))
def test_positions_and_tables_are_those_of_the_released_code(name):
    tensors, metadata = read(name)
    config = positions_of(metadata)
    video = tuple(
        size // patch for size, patch in zip(latent_size(tensors["latents"]), (1, 2, 2), strict=True)
    )
    references = [(1, part.shape[-2] // 2, part.shape[-1] // 2) for part in references_of(tensors)]
    sequence = make_sequence_positions(references, video, config)
    order = [part for part in ("ref", "vid") if f"{part}_rope_pos" in tensors]
    order = order[::-1] if config.place == "after" else order
    if (
        config.scheme != "unrotated" or not references
    ):  # recorded as the filler 1, and not turned: see cos and sin
        assert torch.equal(sequence, torch.cat([tensors[f"{part}_rope_pos"] for part in order]))
    head = 2 * tensors["vid_rope_cos"].shape[-1]
    cos, sin = make_rotary_tables(sequence, split_wan_head(head))
    for table, kind in ((cos, "cos"), (sin, "sin")):
        recorded = torch.cat([tensors[f"{part}_rope_{kind}"] for part in order])
        assert torch.allclose(table, recorded, rtol=0, atol=2e-6)


def latent_size(recorded):
    """(frames, height, width) of latents recorded as (b, t, c, h, w)."""
    return recorded.shape[1], recorded.shape[3], recorded.shape[4]
