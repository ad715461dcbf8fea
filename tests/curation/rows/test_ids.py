from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from curation.rows import ids
from reprise.digest import compute_digest


def test_equal_bytes_have_equal_ids_whatever_their_name(tmp_path: Path) -> None:
    for name, data in {"a.mp4": b"x" * 3_000_000, "b.mov": b"x" * 3_000_000, "c.mp4": b"y"}.items():
        (tmp_path / name).write_bytes(data)
    first, second, third = (ids.hash_video(path) for path in sorted(tmp_path.iterdir()))
    assert first == second != third
    assert len(first) == 20


def test_ids_do_not_change_between_versions() -> None:
    """They are in published datasets: these are fixed for good."""
    clip = ids.make_clip_id("0e73e9b795218c8a92a5", 70, 130, compute_digest({"max_length": 10}))
    assert clip == "0e73e9b795218c8a92a5-0000070-0000130-65cd0d"
    assert (
        ids.make_subject_id(clip, "Red Cup", 2, 0)
        == "0e73e9b795218c8a92a5-0000070-0000130-65cd0d-s743d929ab000"
    )
    assert ids.make_reference_id("S", "crop") == "S-crop0"
    assert ids.derive_seed(0, "a", 1) == 1796375253


def test_clips_of_one_video_sort_in_time() -> None:
    spans = [(0, 50), (50, 1000), (1000, 20_000), (20_000, 20_001)]
    named = [ids.make_clip_id("v", start, end, "abcdef") for start, end in spans]
    assert named == sorted(named)


def test_another_span_or_slicing_is_another_clip() -> None:
    variants = itertools.product([0, 1], [50, 51], ["abcdef", "abcdee"])
    assert len({ids.make_clip_id("v", *each) for each in variants}) == 8


def test_the_phrase_counts_without_its_case_and_with_its_place() -> None:
    assert ids.make_subject_id("c", "Red Cup", 2, 0) == ids.make_subject_id("c", "red cup", 2, 0)
    assert ids.make_subject_id("c", "red cup", 2, 0) != ids.make_subject_id("c", "red cup", 30, 0)


def test_boxes_of_one_phrase_differ_only_in_their_number() -> None:
    first = ids.make_subject_id("c", "cups", 0, 0)
    others = [ids.make_instance_id(first, number) for number in range(100)]
    assert others[0] == first
    assert len(set(others)) == 100
    assert ids.make_instance_id(others[7], 3) == others[3]


def test_a_video_that_gave_no_clip_still_has_a_row_id() -> None:
    assert ids.make_stopped_video_id("abc", "x.mp4") == "abc-none"
    assert ids.make_stopped_video_id(None, "x.mp4") != ids.make_stopped_video_id(None, "y.mp4")


def test_seeds_are_spread_evenly() -> None:
    seeds = [ids.derive_seed(0, number) for number in range(2000)]
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == 2000
    assert sum(seeds) / 2000 / 2**31 == pytest.approx(0.5, abs=0.03)
