"""Which way videos take through the workers, and that the rows are the same on either. No Ray is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curation.config import load_config
from curation.dataset.fragments import Fragments
from curation.dataset.shards import read_rows
from curation.rows.schema import VIDEOS, VideoRow
from curation.rows.tables import build_table
from curation.runner.graph import CLIP_STAGES, build_operators
from curation.runner.job import CurationJob
from curation.runner.ray_data import can_run_in_one_worker, plan_task_sizes, split_by_size
from curation.runner.worker import process_clip_block, process_video_block, slice_block
from curation.sources.list_videos import list_videos
from reprise.storage import Storage
from tests.pipelines.runs import LIGHT, make_videos


def make_sized_videos(*sizes: int) -> list[VideoRow]:
    return [
        VideoRow(
            source_path=f"{number}.mp4",
            source_key=str(number),
            size=size,
            caption=None,
            caption_source=None,
            license=None,
            extra=None,
            problem=None,
            skip_clip_ids=[],
        )
        for number, size in enumerate(sizes)
    ]


def test_a_video_of_more_than_its_share_is_spread_and_the_largest_come_first() -> None:
    videos = make_sized_videos(10, 400, 30, 20, 300, -1)
    spread, whole = split_by_size(videos, 1)
    assert [video["size"] for video in spread] == [400, 300]
    assert [video["size"] for video in whole] == [30, 20, 10, -1]


def test_many_alike_are_done_as_a_whole_and_a_few_are_spread() -> None:
    assert split_by_size(make_sized_videos(*[100] * 8), 2)[0] == []
    assert split_by_size(make_sized_videos(*[100] * 7), 2)[1] == []
    assert split_by_size(make_sized_videos(5), 2)[1] == []


@pytest.mark.parametrize("videos", [0, 1, 3, 19, 90, 1000, 300_000])
@pytest.mark.parametrize("cores", [1, 2, 64])
def test_first_tasks_take_several_videos_and_the_last_ones_of_every_core_take_one(
    videos: int, cores: int
) -> None:
    found = plan_task_sizes(videos, cores, 4)
    assert sum(found) == videos
    assert found == sorted(found, reverse=True)
    assert set(found[-2 * cores :]) <= {1}
    assert len(found) <= 20_000 + 16 * cores  # Ray Data is slow with more blocks
    assert max(found, default=0) <= max(4, videos / 20_000)
    assert videos > 20_000 or plan_task_sizes(videos, cores, 1) == [1] * videos


@pytest.mark.parametrize(
    ("changed", "one"),
    [
        ([], True),
        (["engine.stages.ground={batch_size: 2}"], True),
        (["engine.stages.ground={num_gpus: 0.5}"], False),
        (["engine.stages.slice={num_cpus: 2}"], False),
        (["engine.stages.segment={concurrency: 1}"], False),
    ],
)
def test_one_worker_does_it_all_only_where_every_stage_wants_the_same(changed: list[str], one: bool) -> None:
    assert can_run_in_one_worker(build_operators(load_config(None, changed))[:-1]) is one


def test_rows_are_the_same_whether_clips_travel_or_stay(tmp_path: Path) -> None:
    config = load_config(None, list(LIGHT))
    videos = list_videos(str(make_videos(tmp_path / "videos", 2)))
    table = build_table(videos, VIDEOS)
    jobs = [CurationJob(config, Storage.from_uri(tmp_path / name), "hash") for name in ("spread", "whole")]
    names = tuple(CLIP_STAGES)
    done = [
        [
            process_clip_block(jobs[0], names, True, block).to_pylist()[0]
            for block in slice_block(jobs[0], table)
        ],
        [row for block in process_video_block(jobs[1], names, 3, table) for row in block.to_pylist()],
    ]

    def rows(job: CurationJob) -> list[Any]:
        index = Fragments(job.dataset, "hash").read_index()
        assert set(index.seconds) == {"slice", *names}
        return next(read_rows(job.dataset, sorted(index.rows, key=lambda each: each.sort_key), 100))

    assert rows(jobs[0]) == rows(jobs[1])
    assert len(rows(jobs[0])) == 8
    kept = [sum(row["kept"] for row in each) for each in done]
    assert kept[0] == kept[1] > 0
    for each in done:
        assert sum(row["last"] for row in each) == 2
    # Never more than three at once.
    assert len(done[1]) == 4
