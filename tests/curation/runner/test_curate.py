"""A run continues from the files of earlier runs. A loop replaces Ray."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from curation.config import CurationConfig, load_config
from curation.dataset.fragments import Fragments
from curation.dataset.row_index import RowIndex
from curation.dataset.shards import ShardPlan, ShardResult
from curation.rows.ids import hash_video, make_clip_id, make_stopped_video_id
from curation.rows.lifecycle import make_blank_row, stop_row
from curation.rows.schema import ClipRow, VideoRow
from curation.rows.verdicts import WORKER_DIED
from curation.runner import curate
from curation.runner.curate import CurationOutcome, curate_videos
from curation.runner.donors import DonorTable
from curation.runner.job import CurationJob, FinishedRows
from curation.runner.shards import finish_shard
from curation.sources.list_videos import list_videos
from curation.stages.crosspair import Crosspair
from curation.stages.plates import Plate
from pipelines.verify import main as verify
from reprise.digest import hash_stream
from reprise.errors import RepriseError
from reprise.ray_session import RaySession
from reprise.storage import Storage
from tests.curation.clips import frame, picture

CONFIG = load_config(None, ["shard.target_mb=1"])


@dataclass
class Loop:
    """A run without Ray. The text of a file is its number of clips; a `dying` file loses the last clip."""

    started: int = 0
    sliced: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    fails: Exception | None = None
    dying: set[str] = field(default_factory=set)  # files of which the last clip takes its worker down

    @contextlib.contextmanager
    def start(self, address: str | None, **options: Any) -> Iterator[RaySession]:
        self.started += 1
        yield RaySession(started_here=True)

    def annotate(
        self, job: CurationJob, videos: Sequence[VideoRow], *, one_clip_per_task: bool = False
    ) -> Iterator[Any]:
        for video in videos:
            self.sliced.append(Path(video["source_path"]).name)
            self.skipped += video["skip_clip_ids"]
            for row in self.rows(job, video):
                Fragments(job.dataset, job.config_hash).write_rows([row], {"slice": 1.0})
                yield FinishedRows(row["source_key"], int(row["status"] == "kept"), row["clip_count"] > 0)
            if self.fails:
                raise self.fails

    def rows(self, job: CurationJob, video: VideoRow) -> Iterator[ClipRow]:
        if video["problem"]:
            stopped = make_blank_row(video, make_stopped_video_id(None, video["source_key"]))
            stopped["clip_count"] = 1
            stop_row(stopped, "rejected", "slice", video["problem"])
            yield stopped
            return
        path = Path(video["source_path"])
        counts, identity = path.read_text().split(), hash_video(path)
        for number in range(int(counts[0])):
            last = number == int(counts[0]) - 1
            row: Any = make_blank_row(video, make_clip_id(identity, 50 * number, 50 * number + 50, "abcdef"))
            if row["clip_id"] in video["skip_clip_ids"]:
                continue
            if last and path.name in self.dying:
                return
            row.update(
                video_id=identity,
                status="kept",
                start_frame=50 * number,
                end_frame=50 * number + 50,
                clip_index=number,
                clip_count=int(counts[0]) if last else 0,
                clip_path=f"clips/{identity[:2]}/{row['clip_id']}.mp4",
                frames=[frame(0, picture(seed=number), motion=False)],
                config_hash=job.config_hash,
            )
            job.dataset.write_bytes(row["clip_path"] or "", identity.encode())
            row["clip_bytes"] = len(identity)
            row["clip_blake2b"] = hash_stream(io.BytesIO(identity.encode()))
            yield row

    def plates(self, job: CurationJob, entries: Sequence[RowIndex]) -> tuple[list[Plate], float]:
        return [], 0.0

    def shards(
        self, job: CurationJob, plans: Sequence[ShardPlan], plates: list[Plate], donors: DonorTable
    ) -> Iterator[ShardResult]:
        for shard in plans:
            yield finish_shard(
                job.dataset, shard, [Crosspair(job.config, plates)], job.config.shard.row_group_rows
            )


@pytest.fixture(autouse=True)
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop()
    monkeypatch.setattr(curate, "ray_session", made.start)
    monkeypatch.setattr(curate, "annotate_videos", made.annotate)
    monkeypatch.setattr(curate, "make_plates", made.plates)
    monkeypatch.setattr(curate, "write_shards", made.shards)
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return videos(tmp_path / "videos", a="3 alpha", b="2 beta")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "dataset"


def videos(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.mp4").write_text(text)
    return folder


def run(source: Path, output: Path, config: CurationConfig = CONFIG, **options: Any) -> CurationOutcome:
    return curate_videos(list_videos(str(source)), Storage.from_uri(output), config, **options)


def rows(output: Path) -> list[dict[str, Any]]:
    dataset = Storage.from_uri(output)
    found: list[dict[str, Any]] = []
    for shard in dataset.list_paths("data"):
        found += dataset.read_table(shard).to_pylist()
    return found


def contents(output: Path) -> dict[str, Any]:
    """All that must not depend on how the work went."""
    found: dict[str, Any] = {
        str(path.relative_to(output)): path.read_bytes()
        for folder in ("data", "clips")
        for path in (output / folder).rglob("*")
        if path.is_file()
    }
    found["manifest"] = json.loads((output / "manifest.json").read_text())
    del found["manifest"]["created_at"], found["manifest"]["seconds"]
    assert not (output / "work").exists()
    assert (output / "report" / "index.html").exists()
    return found


def assert_like_fresh(source: Path, output: Path) -> None:
    run(source, output.parent / "fresh")
    assert contents(output) == contents(output.parent / "fresh")


def clips(output: Path) -> set[str]:
    return {path.stem for path in (output / "clips").rglob("*.mp4")}


# --- the same input again -----------------------------------------------------------------------------


def test_a_run_accounts_for_every_video(source: Path, output: Path) -> None:
    done = run(source, output)
    assert done.manifest["videos"] == {"in": 2, "kept": 2, "rejected": 0, "failed": 0}
    assert len(rows(output)) == 5
    assert {row["clip_id"] for row in rows(output)} == clips(output)
    assert not (output / "work").exists()


def test_a_finished_dataset_has_nothing_to_do_and_does_not_start_ray(
    loop: Loop, source: Path, output: Path
) -> None:
    run(source, output)
    before = contents(output)
    again = run(source, output)
    assert again.nothing_to_do
    assert loop.started == 1
    assert contents(output) == before


def test_an_interrupted_run_goes_on_where_it_was(loop: Loop, source: Path, output: Path) -> None:
    loop.fails = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        run(source, output)
    assert loop.sliced == ["a.mp4"]
    loop.fails = None
    done = run(source, output)
    assert (done.resumed, loop.sliced) == (1, ["a.mp4", "b.mp4"])
    assert_like_fresh(source, output)


def test_killed_between_manifest_and_clean_up_the_next_run_does_the_rest(
    loop: Loop, source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("curation.runner.dataset_folder.write_report", killed)
        run(source, output)
    assert (output / "manifest.json").exists()
    assert (output / "work").exists()
    assert run(source, output).nothing_to_do
    assert loop.started == 1
    assert_like_fresh(source, output)


# --- the input grows or changes -----------------------------------------------------------------------


def test_new_videos_join_and_only_they_are_worked_on(loop: Loop, source: Path, output: Path) -> None:
    run(source, output)
    loop.sliced.clear()
    videos(source, c="4 gamma")
    done = run(source, output)
    assert (done.resumed, loop.sliced) == (2, ["c.mp4"])
    assert_like_fresh(source, output)


def test_growing_may_be_interrupted_too(loop: Loop, source: Path, output: Path) -> None:
    run(source, output)
    videos(source, c="4 gamma", d="1 delta")
    loop.fails = RuntimeError("killed")
    with pytest.raises(RuntimeError):
        run(source, output)
    assert not (output / "manifest.json").exists(), "it is not finished while it grows"
    loop.fails = None
    run(source, output)
    assert_like_fresh(source, output)


def test_seconds_are_carried_over_when_a_dataset_grows(source: Path, output: Path) -> None:
    run(source, output)
    videos(source, c="4 gamma")
    assert run(source, output).manifest["seconds"]["slice"] == 9.0


def test_a_changed_file_is_made_again_and_its_old_clips_go(loop: Loop, source: Path, output: Path) -> None:
    run(source, output)
    before = clips(output)
    loop.sliced.clear()
    videos(source, a="2 changed")
    run(source, output)
    assert loop.sliced == ["a.mp4"]
    assert len(clips(output) & before) == 2
    assert_like_fresh(source, output)


def test_a_file_that_was_only_touched_gives_the_same_clips(loop: Loop, source: Path, output: Path) -> None:
    run(source, output)
    os.utime(source / "a.mp4", (1, 1))
    loop.sliced.clear()
    run(source, output)
    assert set(loop.sliced) == {"a.mp4"}
    assert len(loop.sliced) == 1, "it is not taken for a video that kills its workers"
    assert_like_fresh(source, output)


def test_another_caption_is_another_input(loop: Loop, source: Path, output: Path) -> None:
    run(source, output)
    (source / "a.txt").write_text("a brown dog")
    loop.sliced.clear()
    run(source, output)
    assert loop.sliced == ["a.mp4"]
    assert {row["caption"] for row in rows(output)} == {"a brown dog", None}
    assert_like_fresh(source, output)


def test_a_copy_that_sorts_first_takes_the_place_of_the_original(source: Path, output: Path) -> None:
    run(source, output)
    (source / "0.mp4").write_bytes((source / "a.mp4").read_bytes())
    run(source, output)
    assert_like_fresh(source, output)


def test_videos_that_are_gone_stay_in_the_dataset(source: Path, output: Path, tmp_path: Path) -> None:
    run(source, output)
    run(videos(tmp_path / "more", c="4 gamma"), output)
    assert {Path(row["source_path"]).name for row in rows(output)} == {"a.mp4", "b.mp4", "c.mp4"}


@pytest.mark.parametrize("folder", ["earlier", "wider"])  # in order of path before and after `videos`
def test_a_copy_from_another_folder_is_a_duplicate(
    source: Path, output: Path, tmp_path: Path, folder: str
) -> None:
    run(source, output)
    done = run(videos(tmp_path / folder, z="3 alpha", y="1 new"), output)
    assert done.manifest["videos"] == {"in": 4, "kept": 3, "rejected": 1, "failed": 0}
    ids = [row["clip_id"] for row in rows(output)]
    assert len(ids) == len(set(ids)) == 7
    (copy,) = [row for row in rows(output) if row["source_path"].endswith("z.mp4")]
    assert copy["stop"]["reason"] == f"duplicate of {source / 'a.mp4'}"
    assert run(tmp_path / folder, output).nothing_to_do


def test_the_datasets_own_clips_are_no_input(loop: Loop, source: Path) -> None:
    run(source, source)
    assert run(source, source).nothing_to_do
    assert sorted(loop.sliced) == ["a.mp4", "b.mp4"]


# --- what goes wrong ----------------------------------------------------------------------------------


def test_a_video_that_kills_its_workers_is_a_failed_row_and_the_rest_is_kept(
    loop: Loop, source: Path, output: Path
) -> None:
    loop.dying = {"a.mp4"}
    done = run(source, output)
    assert done.manifest["videos"] == {"in": 2, "kept": 2, "rejected": 0, "failed": 0}
    assert loop.sliced == ["a.mp4", "b.mp4", "a.mp4"], "tried again, by itself"
    assert len(loop.skipped) == 2, "and only for what was missing"
    died = [row for row in rows(output) if row["status"] == "failed"]
    assert [Path(row["source_path"]).name for row in died] == ["a.mp4"]
    assert "worker process died" in died[0]["stop"]["reason"]
    assert len(rows(output)) == 5


def test_the_same_command_retries_only_videos_that_killed_their_workers(
    loop: Loop, source: Path, output: Path
) -> None:
    loop.dying = {"a.mp4"}
    run(source, output)
    before = contents(output)
    loop.sliced.clear()
    again = run(source, output)
    assert (again.resumed, loop.sliced) == (1, ["a.mp4", "a.mp4"])
    assert contents(output) == before, "it ends as it did before"

    loop.dying = set()
    loop.sliced.clear()
    done = run(source, output)
    assert (loop.sliced, done.manifest["videos"]["failed"]) == (["a.mp4"], 0)
    assert not [row for row in rows(output) if row["status"] == "failed"]
    assert_like_fresh(source, output)
    assert run(source, output).nothing_to_do


def test_killed_after_a_video_was_marked_failed_a_run_tries_it_again(
    loop: Loop, source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise SystemExit

    loop.dying = {"a.mp4"}
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(curate, "write_shards", killed)
        run(source, output)
    loop.dying = set()
    run(source, output)
    assert_like_fresh(source, output)


def test_what_failed_elsewhere_is_not_touched(loop: Loop, source: Path, output: Path, tmp_path: Path) -> None:
    loop.dying = {"a.mp4"}
    run(source, output)
    loop.sliced.clear()
    run(videos(tmp_path / "more", c="4 gamma"), output)
    assert loop.sliced == ["c.mp4"]
    assert [row["stop"]["reason"] for row in rows(output) if row["status"] == "failed"] == [WORKER_DIED]


def test_a_dataset_of_another_config_is_refused_naming_what_differs(source: Path, output: Path) -> None:
    run(source, output)
    before = contents(output)
    with pytest.raises(RepriseError, match=r"seed: 0 there, 7 now.*--overwrite"):
        run(source, output, load_config(None, ["seed=7"]))
    with pytest.raises(RepriseError, match="reprise refilter"):
        run(source, output, load_config(None, ["filter.brightness_min=55"]))
    assert contents(output) == before


def test_an_unfinished_run_of_another_config_is_refused(loop: Loop, source: Path, output: Path) -> None:
    loop.fails = RuntimeError("killed")
    with pytest.raises(RuntimeError):
        run(source, output)
    loop.fails = None
    with pytest.raises(RepriseError, match=r"seed: 0 there, 7 now"):
        run(source, output, load_config(None, ["seed=7"]))
    run(source, output)
    assert_like_fresh(source, output)


def test_where_it_runs_and_how_it_is_shown_is_no_other_config(source: Path, output: Path) -> None:
    run(source, output)
    config = load_config(None, ["engine.num_cpus=1", "report.clips_per_page=7", "shard.target_mb=9"])
    assert run(source, output, config).nothing_to_do


def test_overwrite_starts_over_and_removes_only_the_dataset(source: Path, output: Path) -> None:
    run(source, output)
    (output / "notes.txt").write_text("mine")
    (output / "data" / "mine.csv").write_text("mine")
    (output / "clips" / "holiday.mp4").write_text("mine")
    config = load_config(None, ["seed=7"])
    run(source, output, config, overwrite=True)
    assert json.loads((output / "manifest.json").read_text())["config"]["seed"] == 7
    mine = [output / "notes.txt", output / "data" / "mine.csv", output / "clips" / "holiday.mp4"]
    assert [path.read_text() for path in mine] == ["mine"] * 3


@pytest.mark.parametrize("place", ["report/thesis.html", "work/notes.txt", "notes.txt", "data/numbers.csv"])
def test_overwrite_refuses_a_folder_that_is_no_dataset(
    source: Path, output: Path, loop: Loop, place: str
) -> None:
    mine = output / place
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(RepriseError, match=f"no dataset, such as {place}"):
        run(source, output, overwrite=True)
    assert mine.read_text() == "mine"
    assert loop.started == 0


def test_overwrite_leaves_foreign_files_in_every_folder_of_a_dataset(source: Path, output: Path) -> None:
    mine = [output / name for name in ("report/mine.html", "report/data/mine.js", "work/mine.txt")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    run(source, output)
    run(source, output, load_config(None, ["seed=7"]), overwrite=True)
    assert [path.read_text() for path in mine] == ["mine"] * 3
    assert run(source, output, load_config(None, ["seed=7"])).nothing_to_do


def test_overwrite_goes_on_after_a_removal_that_was_killed(source: Path, output: Path) -> None:
    run(source, output)
    (output / "manifest.json").unlink()
    run(source, output, load_config(None, ["seed=7"]), overwrite=True)
    assert json.loads((output / "manifest.json").read_text())["config"]["seed"] == 7


def test_a_foreign_table_among_the_shards_is_refused_at_the_start(
    source: Path, output: Path, loop: Loop
) -> None:
    (output / "data").mkdir(parents=True)
    (output / "data" / "sales.parquet").write_bytes(b"mine")
    with pytest.raises(RepriseError, match=r"data/sales\.parquet is no shard of a dataset.*move it"):
        run(source, output)
    assert loop.started == 0


def test_two_runs_into_one_folder_do_not_meet(
    source: Path, output: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def meanwhile(address: str | None, **options: Any) -> Iterator[RaySession]:
        with pytest.raises(RepriseError, match="another run is writing"):
            run(source, output)
        yield RaySession(started_here=True)

    monkeypatch.setattr(curate, "ray_session", meanwhile)
    run(source, output)


def test_no_videos_are_an_error(output: Path) -> None:
    with pytest.raises(RepriseError, match="no videos"):
        curate_videos([], Storage.from_uri(output), CONFIG)


def test_temporary_files_of_killed_writers_are_removed(source: Path, output: Path) -> None:
    for folder in ("data", "clips/ab"):
        (output / folder).mkdir(parents=True)
        (output / folder / ".partial-0123456789abcdef-x").write_text("half")
    run(source, output)
    assert list(output.rglob(".partial-*")) == []


# --- damaged files ------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def run_verify(output: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(verify, [str(output), *options])
    return result.exit_code, result.output


@pytest.mark.parametrize("damage", [remove, cut_short])
@pytest.mark.parametrize("folder", ["clips", "data"])
def test_the_same_command_makes_again_what_is_missing_or_cut_short(
    loop: Loop, source: Path, output: Path, damage: Any, folder: str
) -> None:
    run(source, output)
    victim = sorted(path for path in (output / folder).rglob("*") if path.is_file())[0]
    damage(victim)
    name = str(victim.relative_to(output))
    code, text = run_verify(output, "--quick")
    assert (code, f"damaged  {name}: " in text, "run the `reprise curate` command" in text) == (1, True, True)
    loop.sliced.clear()
    outcome = run(source, output)
    assert (outcome.nothing_to_do, [each.path for each in outcome.damage]) == (False, [name])
    if folder == "clips":
        assert len(loop.sliced) == 1, "only the video of the clip is worked on"
    assert_like_fresh(source, output)
    assert run_verify(output)[0] == 0


@pytest.mark.parametrize("folder", ["clips", "data"])
def test_a_flipped_byte_is_found_by_reading_every_file(source: Path, output: Path, folder: str) -> None:
    run(source, output)
    assert run_verify(output) == (0, "6 of 6 files are as they were written\n")
    victim = sorted(path for path in (output / folder).rglob("*") if path.is_file())[0]
    flip_byte(victim)
    assert run_verify(output, "--quick")[0] == 0
    code, text = run_verify(output)
    assert (code, f"damaged  {victim.relative_to(output)}: its content has changed" in text) == (1, True)


def test_a_damaged_clip_of_a_video_that_is_not_listed_is_named_and_nothing_changes(
    loop: Loop, source: Path, output: Path, tmp_path: Path
) -> None:
    run(source, output)
    victim = next((output / "clips").rglob("*.mp4"))
    remove(victim)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    other = videos(tmp_path / "others", c="1 gamma")
    with pytest.raises(RepriseError, match=rf"{victim.name} is damaged \(missing\).*is not in --input"):
        run(other, output)
    for path, data in before.items():
        assert path.read_bytes() == data


def test_clips_that_vanish_during_a_run_are_made_again_by_it(
    loop: Loop, source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = loop.annotate
    calls: list[bool] = []

    def annotate_and_lose_clips(job: CurationJob, videos: Any, *, one_clip_per_task: bool = False) -> Any:
        yield from whole(job, videos, one_clip_per_task=one_clip_per_task)
        if not calls:
            shutil.rmtree(output / "clips")
        calls.append(one_clip_per_task)

    monkeypatch.setattr(curate, "annotate_videos", annotate_and_lose_clips)
    run(source, output)
    assert len(calls) == 2
    monkeypatch.setattr(curate, "annotate_videos", whole)
    assert_like_fresh(source, output)


def test_a_run_whose_output_was_deleted_at_its_end_says_so(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = curate.publish_report

    def publish_and_lose_data(dataset: Storage, *rest: Any) -> None:
        whole(dataset, *rest)
        shutil.rmtree(output / "data")

    with monkeypatch.context() as patch:
        patch.setattr(curate, "publish_report", publish_and_lose_data)
        with pytest.raises(RepriseError, match=r"damaged during the run: data/.*run the same command again"):
            run(source, output)
    run(source, output)
    assert_like_fresh(source, output)


def test_what_has_no_records_is_not_verified(tmp_path: Path) -> None:
    code, text = run_verify(tmp_path)
    assert (code, "holds no finished dataset" in " ".join(text.split())) == (2, True)
