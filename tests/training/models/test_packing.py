"""A strip of patches: nothing is lost, and it may be cut between any two tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise.errors import RepriseError
from training.models.packing import (
    SequenceShard,
    make_layout,
    pack_strip,
    select_tokens,
    slice_tokens,
    unpack_strip,
)

SIZES = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=30)
@given(SIZES, st.sampled_from([(1, 2, 2), (1, 1, 1), (2, 2, 3)]))
def test_a_strip_gives_back_the_frames_it_was_made_of(grids, patch):
    sizes = [tuple(n * p for n, p in zip(grid, patch, strict=True)) for grid in grids]
    frames = [torch.randn(2, 3, *size) for size in sizes]
    strip = pack_strip(frames, patch)
    assert strip.shape[2:4] == patch[:2]
    for before, after in zip(frames, unpack_strip(strip, sizes, patch), strict=True):
        assert torch.equal(before, after)


def test_tokens_lie_in_time_height_width_order():
    # Each patch is filled with its own number, in (t, h, w) order.
    video = torch.arange(12.0).reshape(1, 1, 2, 2, 3).repeat_interleave(2, 3).repeat_interleave(2, 4)
    strip = pack_strip([video], (1, 2, 2))
    assert strip[0, 0, 0, 0, ::2].tolist() == list(range(12))


def test_a_stock_convolution_embeds_a_strip_as_it_embeds_frames():
    conv = torch.nn.Conv3d(4, 8, kernel_size=(1, 2, 2), stride=(1, 2, 2)).double()
    video, reference = torch.randn(2, 4, 3, 4, 6).double(), torch.randn(2, 4, 1, 2, 4).double()
    tokens = conv(pack_strip([reference, video], (1, 2, 2))).flatten(2)
    apart = torch.cat([conv(part).flatten(2) for part in (reference, video)], dim=-1)
    assert torch.allclose(tokens, apart)


def test_one_reference_serves_a_whole_batch():
    strip = pack_strip([torch.ones(1, 2, 1, 2, 2), torch.zeros(3, 2, 1, 2, 2)], (1, 2, 2))
    assert strip.shape == (3, 2, 1, 2, 4)


def test_chosen_tokens_keep_the_order_they_are_named_in():
    strip = torch.arange(8.0).reshape(1, 1, 1, 1, 8)
    assert select_tokens(strip, torch.tensor([3, 0]), (1, 1, 2)).flatten().tolist() == [6, 7, 0, 1]


@pytest.mark.parametrize("after", [False, True])
def test_the_ranks_of_a_group_have_every_video_token_once(after):
    place = make_layout([(1, 4, 4), (1, 2, 4)], (3, 4, 6), (1, 2, 2), video_first=after)
    video = torch.randn(1, 2, 3, 4, 6)
    strip = pack_strip([video], place.patch)
    parts = [
        slice_tokens(strip, place.get_own_video(SequenceShard(rank, 4)), place.patch) for rank in range(4)
    ]
    assert torch.equal(torch.cat(parts, dim=-1), strip)
    assert place.total_tokens == 4 + 2 + 18


@given(st.integers(1, 9), st.integers(0, 60))
def test_ranks_share_any_number_of_tokens_in_order(size, more):
    total = size + more
    ranges = [SequenceShard(rank, size).get_token_range(total) for rank in range(size)]
    assert [token for own in ranges for token in own] == list(range(total))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def test_fewer_tokens_than_workers_are_one_clear_line():
    with pytest.raises(RepriseError, match="4 tokens"):
        SequenceShard(0, 5).get_token_range(4)
