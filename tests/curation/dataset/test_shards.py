"""Fragments become shards: the same rows in the same files, however the work went."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.config import load_config
from curation.dataset.fragments import Fragments
from curation.dataset.row_index import RowIndex
from curation.dataset.shards import plan_shards, read_rows
from curation.rows.schema import CLIPS, ClipRow
from curation.runner.resume import select_current
from curation.runner.shards import finish_shard
from reprise.errors import RepriseError
from reprise.storage import Storage
from tests.curation.dataset.test_fragments import entry, row

ROWS = [row(video, 50 * number, 3 * (number == 2)) for video in range(5) for number in range(3)]


def dataset_of(folder: Path, groups: Sequence[Sequence[ClipRow]]) -> tuple[Storage, list[RowIndex]]:
    """Rows stored as fragments in these groups; the dataset and its entries."""
    dataset = Storage.from_uri(folder)
    fragments = Fragments(dataset, "abcdefabcdef")
    for group in groups:
        fragments.write_rows(group, {})
    return dataset, select_current(fragments.read_index().rows, [])


def shuffled_groups(seed: int) -> list[list[ClipRow]]:
    draw = random.Random(seed)
    rows = list(ROWS)
    draw.shuffle(rows)
    groups: list[list[ClipRow]] = []
    while rows:
        groups.append([rows.pop() for _ in range(min(len(rows), draw.randint(1, 4)))])
    return groups


# --- the plan -----------------------------------------------------------------------------------------


def sizes(entries: list[RowIndex], target: int, share: float = 0.0) -> list[int]:
    return [len(shard.entries) for shard in plan_shards(entries, target, share)]


def test_a_shard_is_closed_once_it_has_its_size() -> None:
    entries = [entry("a", number, payload_bytes=100) for number in range(10)]
    assert sizes(entries, 300) == [3, 3, 3, 1]
    assert sizes(entries, 299) == [3, 3, 3, 1]
    assert sizes(entries, 301) == [4, 4, 2]
    assert sizes(entries, 10_000) == [10]


def test_a_row_larger_than_a_shard_is_one() -> None:
    entries = [
        entry("a", 0, payload_bytes=10),
        entry("a", 1, payload_bytes=900),
        entry("a", 2, payload_bytes=10),
    ]
    assert sizes(entries, 100) == [2, 1]


def test_the_bytes_of_cross_pairs_are_expected_for_kept_rows_only() -> None:
    kept = [entry("a", number, payload_bytes=0) for number in range(4)]
    rejected = [entry("a", number, payload_bytes=0, status="rejected") for number in range(4)]
    assert len(sizes(kept, 100_000, 1.0)) == 4
    assert len(sizes(rejected, 100_000, 1.0)) == 1


def test_names_of_shards_have_their_number_and_the_total() -> None:
    entries = [entry("a", number) for number in range(3)]
    assert [shard.path for shard in plan_shards(entries, 100, 0.0)] == [
        f"data/clips-{number:05d}-of-00003.parquet" for number in range(3)
    ]


def test_every_row_is_in_one_shard_in_order() -> None:
    entries = [entry(name, number) for name in "bca" for number in range(5)]
    placed = [each for shard in plan_shards(entries, 350, 0.4) for each in shard.entries]
    assert placed == sorted(entries, key=lambda each: each.sort_key)


def test_the_plan_does_not_depend_on_who_finished_first() -> None:
    entries = [entry(name, number, payload_bytes=40 + number) for name in "abc" for number in range(7)]
    wanted = plan_shards(entries, 200, 0.4)
    for seed in range(5):
        random.Random(seed).shuffle(entries)
        assert plan_shards(entries, 200, 0.4) == wanted


def test_nothing_gives_no_shard() -> None:
    assert plan_shards([], 100, 0.4) == []


# --- the files ----------------------------------------------------------------------------------------


def write_shards(dataset: Storage, entries: list[RowIndex], target: int) -> dict[str, bytes]:
    for shard in plan_shards(entries, target, 0.0):
        finish_shard(dataset, shard, [], 2)
    return {file: dataset.read_bytes(file) for file in dataset.list_paths("data")}


def test_files_are_byte_equal_however_rows_were_grouped_into_fragments(tmp_path: Path) -> None:
    target = ROWS[0]["payload_bytes"] * 4 or 40_000
    wanted = write_shards(*dataset_of(tmp_path / "one", [ROWS]), target)
    assert len(wanted) > 1
    for seed in range(3):
        assert write_shards(*dataset_of(tmp_path / str(seed), shuffled_groups(seed)), target) == wanted


def test_rows_in_are_rows_out(tmp_path: Path) -> None:
    dataset, entries = dataset_of(tmp_path, shuffled_groups(7))
    results = [finish_shard(dataset, shard, [], 8) for shard in plan_shards(entries, 50_000, 0.0)]
    assert sum(result.rows for result in results) == len(ROWS)
    found = [each for result in results for each in dataset.read_table(result.path).to_pylist()]
    assert found == sorted(ROWS, key=lambda each: each["clip_id"])
    assert sum(result.tally.clips.total() for result in results) == len(ROWS)
    assert all(result.bytes == dataset.get_size(result.path) for result in results)


def test_row_groups_have_the_configured_length(tmp_path: Path) -> None:
    dataset, entries = dataset_of(tmp_path, [ROWS])
    (shard,) = plan_shards(entries, 1 << 30, 0.0)
    finish_shard(dataset, shard, [], load_config(None, ["shard.row_group_rows=4"]).shard.row_group_rows)
    parquet = pq.ParquetFile(tmp_path / shard.path)
    groups = [parquet.metadata.row_group(each).num_rows for each in range(parquet.num_row_groups)]
    assert groups == [4, 4, 4, 3]
    assert parquet.schema_arrow.equals(CLIPS)


class Marks:
    """A stage that fails on one clip."""

    name = "crosspair"

    def __call__(self, rows: Sequence[ClipRow]) -> None:
        for each in rows:
            each["caption"] = "marked"
            if each["clip_id"] == ROWS[4]["clip_id"]:
                raise ValueError("this one")


def test_a_row_that_fails_in_the_last_stage_is_in_its_shard_unmarked(tmp_path: Path) -> None:
    dataset, entries = dataset_of(tmp_path, [ROWS])
    (shard,) = plan_shards(entries, 1 << 30, 0.0)
    result = finish_shard(dataset, shard, [Marks()], 8)
    found = {each["clip_id"]: each for each in dataset.read_table(shard.path).to_pylist()}
    failed = found.pop(ROWS[4]["clip_id"])
    assert (failed["status"], failed["caption"]) == ("failed", ROWS[4]["caption"])
    assert {each["caption"] for each in found.values()} == {"marked"}
    assert result.tally.clips == {"open": len(ROWS) - 1, "failed": 1}
    assert result.seconds["crosspair"] > 0


def test_a_damaged_fragment_is_removed_and_the_error_names_the_next_step(tmp_path: Path) -> None:
    dataset, entries = dataset_of(tmp_path, [[each] for each in ROWS])
    file = tmp_path / entries[0].file
    data = bytearray(file.read_bytes())
    middle = data.index(b"\xff\xd8\xff")  # the pixels, which the index does not read
    data[middle - 40 : middle + 400] = bytes(440)
    file.write_bytes(bytes(data))
    with pytest.raises(RepriseError, match="run the same command again"):
        list(read_rows(dataset, entries, 4))
    assert not file.exists()
    assert len(select_current(Fragments(dataset, "abcdefabcdef").read_index().rows, [])) == len(ROWS) - 1
