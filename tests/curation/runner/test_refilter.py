"""Other thresholds for a finished dataset, from its stored scores."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from curation.config import CurationConfig, compute_config_hash, load_config
from curation.dataset.fragments import Fragments
from curation.dataset.manifest import build_manifest, write_manifest
from curation.dataset.payload import count_payload_bytes
from curation.dataset.shards import ShardResult
from curation.dataset.tally import tally_rows
from curation.models.registry import list_model_ids, load_required_backend
from curation.rows.lifecycle import stop_row
from curation.rows.schema import CLIPS, SCHEMA_VERSION, ClipRow
from curation.rows.tables import build_table
from curation.rows.thresholds import build_rules
from curation.rows.verdicts import decide_clip
from curation.runner import refilter as module
from curation.runner.config_guard import refuse_other_config
from curation.runner.graph import build_stage
from curation.runner.refilter import refilter_dataset
from curation.runner.resume import reopen_dataset
from curation.stages.crosspair import Crosspair
from curation.stages.filter import keep_needed_frames
from curation.stages.plates import collect_plates
from curation.stages.stage import run_stage
from pipelines.refilter import main
from reprise.errors import RepriseError
from reprise.file_records import compute_file_digest
from reprise.lock import lock_folder
from reprise.settings import with_overrides
from reprise.storage import Storage
from tests.curation.clips import clip, kept_clip, subject

SHARPNESS = [300.0, 100.0, 60.0, 45.0, 37.0, 20.0]  # of one subject per clip; the default threshold is 40
CAPTIONS = [
    "A red ball.",
    "Dogs at noon.",
    "One blue cup.",
    "Cars in rain.",
    "Kites above.",
    "Boats far out.",
]


def make_undecided_rows() -> list[ClipRow]:
    rows = []
    for number, sharpness in enumerate(SHARPNESS):
        row = kept_clip(number, CAPTIONS[number], scores={"sharpness": sharpness})
        keep_needed_frames(row)
        rows.append(row)
    silent = clip(90, caption=None)
    stop_row(silent, "rejected", "caption", "no caption")
    lost = clip(91)
    lost["subjects"] = [subject(lost, None)]
    keep_needed_frames(lost)
    return [*rows, silent, lost]


def finish(rows: list[ClipRow], config: CurationConfig) -> list[ClipRow]:
    """What a curation makes of rows from their verdicts on."""
    models = list_model_ids(config)
    for row in rows:
        row["config_hash"] = compute_config_hash(config, models)
        decide_clip(row, build_rules(config.filter))
    for name in ("crop", "inpaint", "redux"):
        rows = run_stage(build_stage(name, config), rows, {})
    pool = collect_plates(rows, load_required_backend(config, "inpainter"), config.seed)
    rows = run_stage(Crosspair(config, pool), rows, {})
    for row in rows:
        row["payload_bytes"] = count_payload_bytes(row)
    return rows


def write(root: Path, rows: list[ClipRow], config: CurationConfig) -> Storage:
    """Two shards of two row groups and a manifest."""
    storage = Storage.from_uri(root)
    results = []
    for part in range(2):
        path = f"data/clips-{part:05d}-of-00002.parquet"
        mine = rows[part * 4 : part * 4 + 4]
        storage.write_parquet(path, [build_table(mine[:2], CLIPS), build_table(mine[2:], CLIPS)], CLIPS)
        results.append(
            ShardResult(
                path,
                len(mine),
                storage.get_size(path),
                compute_file_digest(storage, path),
                tally_rows(mine),
                {},
            )
        )
    models = list_model_ids(config)
    made = build_manifest(config, compute_config_hash(config, models), models, results, {"slice": 1.5})
    write_manifest(storage, {**made, "created_at": "2026-01-01T00:00:00+00:00"})
    return storage


@pytest.fixture(scope="module")
def finished() -> list[ClipRow]:
    return finish(make_undecided_rows(), load_config())


@pytest.fixture
def dataset(tmp_path: Path, finished: list[ClipRow]) -> Storage:
    return write(tmp_path / "dataset", copy.deepcopy(finished), load_config())


def rows_of(storage: Storage) -> list[Any]:
    return [row for file in list_dataset_shards(storage) for row in storage.read_table(file).to_pylist()]


def list_dataset_shards(storage: Storage) -> list[str]:
    return [shard["path"] for shard in json.loads(storage.read_bytes("manifest.json"))["shards"]]


def files_of(storage: Storage) -> dict[str, bytes]:
    """Every file but those of the report."""
    paths = [file for file in storage.list_paths() if not file.startswith("report/")]
    return {file: storage.read_bytes(file) for file in paths}


def verdicts_of(rows: Iterable[Any]) -> list[Any]:
    return [(row["status"], row["stop"], [each["verdict"] for each in row["subjects"]]) for row in rows]


def test_the_same_thresholds_change_no_byte(dataset: Storage) -> None:
    before = files_of(dataset)
    changes, _ = refilter_dataset(dataset, [])
    assert not changes.has_changes
    assert (changes.kept_before, changes.kept_after) == (4, 4)
    after = files_of(dataset)
    assert {file for file in after if after[file] != before[file]} == set()


def test_tightening_counts_what_is_lost_by_reason(dataset: Storage) -> None:
    changes, config = refilter_dataset(dataset, ["filter.sharpness_min=80"])
    assert config.filter.sharpness_min == 80
    assert changes.newly_rejected == {"sharpness_min": 2}
    assert changes.newly_kept == {}
    assert (changes.kept_before, changes.kept_after) == (4, 2)
    assert (changes.clips_before, changes.clips_after) == (4, 2)
    statuses = [row["status"] for row in rows_of(dataset)]
    assert statuses == ["kept", "kept", *["rejected"] * 6]


def test_tighten_then_loosen_returns_to_the_original_rows(dataset: Storage) -> None:
    before = [dataset.read_bytes(file) for file in list_dataset_shards(dataset)]
    refilter_dataset(dataset, ["filter.sharpness_min=1000", "filter.area_share_min=0.7"])
    assert {row["status"] for row in rows_of(dataset)} == {"rejected"}
    assert sum(len(each["references"]) for row in rows_of(dataset) for each in row["subjects"]) > 12
    refilter_dataset(dataset, ["filter.sharpness_min=40", "filter.area_share_min=0.03125"])
    assert [dataset.read_bytes(file) for file in list_dataset_shards(dataset)] == before


def test_the_result_equals_a_fresh_verdict_over_the_same_scores(dataset: Storage) -> None:
    overrides = ["filter.sharpness_min=25", "filter.brightness_max=130", "filter.label_min=null"]
    _, config = refilter_dataset(dataset, overrides)
    fresh = make_undecided_rows()
    for row in fresh:
        decide_clip(row, build_rules(config.filter))
    assert verdicts_of(rows_of(dataset)) == verdicts_of(build_table(fresh, CLIPS).to_pylist())


def test_with_references_the_result_equals_a_curation_under_these_thresholds(dataset: Storage) -> None:
    refilter_dataset(dataset, ["filter.sharpness_min=25"], references=True)
    fresh = finish(make_undecided_rows(), load_config(None, ["filter.sharpness_min=25"]))
    assert rows_of(dataset) == build_table(fresh, CLIPS).to_pylist()


def test_without_them_a_newly_kept_subject_gets_its_crops_and_the_rest_is_counted(dataset: Storage) -> None:
    changes, _ = refilter_dataset(dataset, ["filter.sharpness_min=25"])
    assert changes.newly_kept == {"sharpness_min": 1}
    assert changes.lacking["inpaint"] == changes.lacking["redux"] == 1
    new = rows_of(dataset)[4]["subjects"][0]
    assert [each["variant"] for each in new["references"]] == ["crop", "segment"]
    changes, _ = refilter_dataset(dataset, [], references=True)
    assert changes.lacking == {}


def test_crops_are_made_with_the_padding_of_the_dataset(tmp_path: Path) -> None:
    config = load_config(None, ["crop.padding=0.5"])
    storage = write(tmp_path, finish(make_undecided_rows(), config), config)
    before = rows_of(storage)[0]["subjects"][0]["references"][0]["width"]
    refilter_dataset(storage, ["filter.sharpness_min=25"])
    assert rows_of(storage)[4]["subjects"][0]["references"][0]["width"] == before


def test_variants_that_the_config_switched_off_are_not_missed(tmp_path: Path) -> None:
    config = load_config(None, ["redux.enabled=false", "crosspair.share=0"])
    storage = write(tmp_path, finish(make_undecided_rows(), config), config)
    changes, _ = refilter_dataset(storage, ["filter.sharpness_min=25"])
    assert changes.lacking == {"inpaint": 1}
    refilter_dataset(storage, [], references=True)
    variants = {
        each["variant"] for row in rows_of(storage) for s in row["subjects"] for each in s["references"]
    }
    assert variants == {"crop", "segment", "inpaint"}


def test_a_reference_that_cannot_be_made_leaves_its_clip_and_is_counted(tmp_path: Path) -> None:
    rows = finish(make_undecided_rows(), load_config())
    rows[4]["frames"] = []
    storage = write(tmp_path, rows, load_config())
    changes, _ = refilter_dataset(storage, ["filter.sharpness_min=25"], references=True)
    row = rows_of(storage)[4]
    assert (row["status"], row["subjects"][0]["references"]) == ("kept", [])
    assert changes.lacking["inpaint"] == 1


def test_the_manifest_has_the_new_thresholds_and_counts(dataset: Storage) -> None:
    before = json.loads(dataset.read_bytes("manifest.json"))
    _, config = refilter_dataset(dataset, ["filter.sharpness_min=80"])
    found = json.loads(dataset.read_bytes("manifest.json"))
    assert found["config"]["filter"]["sharpness_min"] == 80
    assert found["config_hash"] == compute_config_hash(config, before["models"]) != before["config_hash"]
    assert found["clips"] == {"in": 8, "kept": 2, "rejected": 6, "failed": 0}
    assert found["reasons"]["subject"]["sharpness_min"] == 4
    assert found["videos"]["in"] == before["videos"]["in"]
    assert (found["created_at"], found["seconds"]) == (before["created_at"], before["seconds"])
    assert [shard["rows"] for shard in found["shards"]] == [4, 4]
    assert all(row["config_hash"] == found["config_hash"] for row in rows_of(dataset))


def test_clips_that_never_came_to_a_verdict_stay_as_they_are(dataset: Storage) -> None:
    before = rows_of(dataset)[6]
    refilter_dataset(dataset, ["filter.sharpness_min=null"])
    after = rows_of(dataset)[6]
    assert {**after, "config_hash": None} == {**before, "config_hash": None}


class Killed(BaseException):
    """What stands for SIGKILL: no handler of errors catches it."""


WRITES = ("write_bytes", "write_parquet", "put_file", "move_file", "delete_file", "delete_tree")


def kill_at(number: int, *, after: bool, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kill the process before, or just after, the write of this number. Returns the list of writes."""
    calls: list[str] = []

    def count(name: str, whole: Any) -> Any:
        def call(self: Storage, *arguments: Any, **more: Any) -> Any:
            if name == "put_file" or Path(self.uri).name.startswith("reprise-"):
                return whole(self, *arguments, **more)  # part of a write that is counted
            calls.append(f"{name} {arguments[0]}")
            if len(calls) == number and not after:
                raise Killed
            result = whole(self, *arguments, **more)
            if len(calls) == number:
                raise Killed
            return result

        return call

    for name in WRITES:
        monkeypatch.setattr(Storage, name, count(name, getattr(Storage, name)))
    return calls


def read_state(storage: Storage) -> tuple[str, list[Any]]:
    """The config that a dataset states, and the verdicts of the rows that it names."""
    manifest = json.loads(storage.read_bytes("manifest.json"))
    return manifest["config_hash"], [(row["config_hash"], *verdicts_of([row])) for row in rows_of(storage)]


@pytest.mark.parametrize("after", [False, True])
def test_a_refilter_that_is_killed_at_any_write_leaves_the_old_dataset_or_the_new_one(
    tmp_path: Path, finished: list[ClipRow], after: bool
) -> None:
    def build(name: str) -> Storage:
        return write(tmp_path / name, copy.deepcopy(finished), load_config())

    undisturbed = build("undisturbed")
    old = read_state(undisturbed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        calls = kill_at(0, after=after, monkeypatch=monkeypatch)
        refilter_dataset(undisturbed, ["filter.sharpness_min=80"])
    new = read_state(undisturbed)
    assert old[1] != new[1]
    switch = calls.index("write_bytes manifest.json") + 1
    for number in range(1, len(calls) + 1):
        dataset = build(f"{number}-{after}")
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at(number, after=after, monkeypatch=monkeypatch)
            with pytest.raises(Killed):
                refilter_dataset(dataset, ["filter.sharpness_min=80"])
        is_new = number > switch or (number == switch and after)
        assert read_state(dataset) == (new if is_new else old), calls[number - 1]
        copied = Storage.from_uri(shutil.copytree(dataset.uri, tmp_path / f"copy-{number}-{after}"))
        assert build_fragments(copied) == sorted((new if is_new else old)[1], key=repr), calls[number - 1]
        refilter_dataset(dataset, ["filter.sharpness_min=80"])
        assert files_of(dataset) == files_of(undisturbed), calls[number - 1]
        assert dataset.is_file("report/index.html")


def build_fragments(dataset: Storage) -> list[Any]:
    """What a `curate` that grows the dataset starts from."""
    manifest = json.loads(dataset.read_bytes("manifest.json"))
    config = CurationConfig.model_validate(manifest["config"])
    fragments = Fragments(dataset, manifest["config_hash"])
    refuse_other_config(dataset, manifest, config, manifest["config_hash"])
    reopen_dataset(dataset, manifest, fragments)
    files = dataset.list_paths(fragments.folder)
    rows = [row for file in files for row in dataset.read_table(file).to_pylist()]
    return sorted(((row["config_hash"], *verdicts_of([row])) for row in rows), key=repr)


def test_rows_of_another_config_than_the_manifest_states_are_not_reopened(dataset: Storage) -> None:
    manifest = json.loads(dataset.read_bytes("manifest.json"))
    mixed = [{**row, "config_hash": "another"} for row in rows_of(dataset)[:4]]
    dataset.write_parquet(list_dataset_shards(dataset)[0], [build_table(mixed, CLIPS)], CLIPS)
    with pytest.raises(RepriseError, match=r"decided under another config .*reprise refilter"):
        reopen_dataset(dataset, manifest, Fragments(dataset, manifest["config_hash"]))
    assert dataset.is_file("manifest.json")


def test_measurements_that_are_missing_are_named(dataset: Storage) -> None:
    changes, _ = refilter_dataset(dataset, ["filter.clip_margin_min=0.1"], apply=False)
    assert changes.unmeasured == {"clip_category_min": 6, "clip_margin_min": 6}


# ---- the command -----------------------------------------------------------------------------------------


def run_command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, " ".join(result.output.split())


def test_a_dry_run_writes_nothing_and_makes_nothing(
    dataset: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(dataset)
    monkeypatch.setattr(module, "build_stage", lambda *_: pytest.fail("a stage was built"))
    code, output = run_command(
        "--dataset", dataset.uri, "--dry-run", "--references", "filter.sharpness_min=25"
    )
    assert code == 0
    assert "subjects kept 4 -> 5, clips kept 4 -> 5" in output
    assert "+ 1 no longer rejected by sharpness_min" in output
    assert "nothing was written" in output
    assert files_of(dataset) == before


def test_what_changes_is_printed_and_the_report_is_built_again(dataset: Storage) -> None:
    code, output = run_command("--dataset", dataset.uri, "filter.sharpness_min=80")
    assert code == 0
    assert "subjects kept 4 -> 2" in output
    assert "- 2 now rejected by sharpness_min" in output
    assert "? 6 never measured for clip_category_min" in output
    assert dataset.is_file("report/index.html")
    assert "no verdict changes" in run_command("--dataset", dataset.uri)[1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("slice.max_length=5", "refilter changes filter.* only"),
        ("filter.sharpnes_min=5", "did you mean filter.sharpness_min?"),
        ("filter.sharpness_min", "is no override"),
        ("filter.sharpness_min=sharp", "valid number"),
    ],
)
def test_anything_but_a_threshold_is_refused(dataset: Storage, override: str, message: str) -> None:
    before = files_of(dataset)
    code, output = run_command("--dataset", dataset.uri, override)
    assert code == 2
    assert message in output
    assert files_of(dataset) == before


def test_what_is_no_finished_dataset_is_refused(tmp_path: Path, dataset: Storage) -> None:
    code, output = run_command("--dataset", str(tmp_path / "nowhere"))
    assert (code, "only a finished dataset can be decided again" in output) == (2, True)
    dataset.write_bytes("manifest.json", b'{"a": 1}')
    assert "is it a Reprise dataset?" in run_command("--dataset", dataset.uri)[1]
    dataset.write_bytes("manifest.json", b"[")
    assert "is not JSON" in run_command("--dataset", dataset.uri)[1]


def test_a_manifest_of_another_version_is_one_clear_line(dataset: Storage) -> None:
    found = json.loads(dataset.read_bytes("manifest.json"))
    found["config"]["filter"]["beauty_min"] = 3
    dataset.write_bytes("manifest.json", json.dumps(found).encode())
    with pytest.raises(RepriseError, match=r"manifest.json: unknown key filter.beauty_min"):
        refilter_dataset(dataset, [])


def test_a_shard_without_a_column_is_named(dataset: Storage) -> None:
    (first, *_) = dataset.list_paths("data")
    pq.write_table(dataset.read_table(first).drop_columns(["frames"]), dataset.join_path(first))
    with pytest.raises(RepriseError, match=rf"{first} has no column frames"):
        refilter_dataset(dataset, [])


def test_overrides_of_a_config_do_not_change_the_rest() -> None:
    config = load_config(None, ["seed=3"])
    assert with_overrides(config, ["filter.sharpness_min=1"]).seed == 3


def test_a_dataset_of_an_older_schema_is_decided_again_and_written_in_the_new_one(dataset: Storage) -> None:
    from tests.curation.rows.test_schema import as_version_1

    for file in dataset.list_paths("data"):
        old = pa.concat_tables([as_version_1(row) for row in dataset.read_table(file).to_pylist()])
        dataset.write_parquet(file, [old], old.schema)
    changes, _ = refilter_dataset(dataset, ["filter.sharpness_min=80"])
    assert (changes.kept_before, changes.kept_after) == (4, 2)
    assert all("track" in each for row in rows_of(dataset) for each in row["subjects"])
    for file in list_dataset_shards(dataset):
        assert dataset.read_table(file).schema.metadata[b"reprise.schema"] == SCHEMA_VERSION.encode()


def test_a_dataset_that_another_run_is_writing_is_refused(dataset: Storage) -> None:
    before = files_of(dataset)
    with (
        lock_folder(dataset),
        pytest.raises(RepriseError, match="another run is writing"),
    ):
        refilter_dataset(dataset, ["filter.sharpness_min=80"])
    assert files_of(dataset) == before
