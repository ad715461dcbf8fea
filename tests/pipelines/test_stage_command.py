"""`reprise stage`: one stage at a time over a tiny video, Parquet to Parquet, without Ray."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from curation.config import compute_config_hash, load_config
from curation.models.registry import list_model_ids
from curation.rows.schema import CLIPS
from curation.rows.tables import build_table
from curation.runner.graph import CLIP_STAGES
from pipelines.stage import main
from tests.curation.clips import HERE, clip, kept_clip, picture
from tests.s3 import S3

COLOURS = [f"models.detector={HERE}:ColourDetector", f"models.segmenter={HERE}:ColourSegmenter"]


def stage(name: str, source: object, target: object, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, [name, "--in", str(source), "--out", str(target), *more])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


def rows(path: object) -> list[Any]:
    return pq.read_table(path).to_pylist()


def write_video(path: Path, seconds: float = 2.4) -> None:
    """A red ball rolls over a grey, grainy floor: 320 x 180, 25 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        floor = picture()
        for n in range(round(seconds * 25)):
            frame = floor.copy()
            cv2.circle(frame, (70 + 3 * n, 95), 42, (205, 40, 40), -1, cv2.LINE_AA)
            for spot in range(6):
                turn = n / 12 + spot * np.pi / 3
                place = (round(70 + 3 * n + 26 * np.cos(turn)), round(95 + 26 * np.sin(turn)))
                cv2.circle(frame, place, 6, (250, 170, 160), -1, cv2.LINE_AA)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioned video, one without a caption, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "ball.mp4")
    (folder / "ball.txt").write_text("A red ball rolls over the floor.")
    write_video(folder / "silent.mp4", 2.6)
    (folder / "broken.mp4").write_bytes(b"this is no video")
    return folder


@pytest.fixture(scope="module")
def tables(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage's table, each made from the one before."""
    folder = tmp_path_factory.mktemp("tables")
    assert stage("slice", videos, folder / "slice.parquet")[0] == 0
    before = "slice"
    for name in (*CLIP_STAGES, "crosspair"):
        code, output = stage(name, folder / f"{before}.parquet", folder / f"{name}.parquet")
        assert (code, f"{name}: 3 rows" in output) == (0, True), output
        before = name
    return folder


def test_slice_writes_a_table_and_the_clips_beside_it(tables: Path, videos: Path) -> None:
    table = pq.read_table(tables / "slice.parquet")
    assert table.schema.equals(CLIPS, check_metadata=False)
    found = {Path(row["source_path"]).name: row for row in table.to_pylist()}
    assert found["ball.mp4"]["caption_source"] == "sidecar"
    assert (tables / found["ball.mp4"]["clip_path"]).is_file()
    assert found["ball.mp4"]["payload_bytes"] == sum(
        len(frame[kind]["bytes"])
        for frame in found["ball.mp4"]["frames"]
        for kind in ("image", "motion")
        if frame[kind]
    )
    assert found["broken.mp4"]["status"] == "failed"
    assert {row["config_hash"] for row in found.values()} == {
        compute_config_hash(load_config(), list_model_ids(load_config()))
    }


def test_a_video_goes_through_all_stages_one_by_one(tables: Path) -> None:
    (kept,) = [row for row in rows(tables / "crosspair.parquet") if row["status"] == "kept"]
    assert kept["source_path"].endswith("ball.mp4")
    (ball,) = kept["subjects"]
    assert (ball["phrase"], ball["verdict"]["kept"]) == ("red ball", True)
    assert [each["variant"] for each in ball["references"]] == ["crop", "inpaint", "redux", "segment"]
    assert [frame["index"] for frame in kept["frames"]] == [ball["frame_index"]]
    box = ball["box"]
    assert (box[2] - box[0]) == pytest.approx(85, abs=12)
    assert (box[0] + box[2]) / 2 == pytest.approx(70 + 3 * ball["frame_index"], abs=8)
    assert json.loads(ball["made_by"]).keys() == {"detector", "segmenter"}


def test_what_stopped_rides_along_with_its_reason(tables: Path) -> None:
    stops = {
        Path(row["source_path"]).name: row["stop"]["stage"]
        for row in rows(tables / "crosspair.parquet")
        if row["stop"]
    }
    assert stops == {"silent.mp4": "caption", "broken.mp4": "slice"}


def test_a_stage_gives_the_same_table_again(tables: Path, tmp_path: Path) -> None:
    for name, before in (("ground", "match"), ("redux", "inpaint")):
        stage(name, tables / f"{before}.parquet", tmp_path / "again.parquet")
        assert pq.read_table(tmp_path / "again.parquet").equals(pq.read_table(tables / f"{name}.parquet"))


def test_shard_makes_a_dataset_that_can_be_refiltered(tables: Path, tmp_path: Path) -> None:
    from pipelines.refilter import main as refilter

    code, output = stage("shard", tables / "crosspair.parquet", tmp_path / "dataset")
    assert code == 0
    assert "1 failed, 1 kept, 1 rejected" in output
    assert "the clips are in another folder" in output
    found = json.loads((tmp_path / "dataset/manifest.json").read_text())
    assert found["videos"] == {"in": 3, "kept": 1, "rejected": 1, "failed": 1}
    (shard,) = found["shards"]
    assert rows(tmp_path / "dataset" / shard["path"])[0].keys() == set(CLIPS.names)
    again = CliRunner().invoke(refilter, ["--dataset", str(tmp_path / "dataset"), "--dry-run"])
    assert "no verdict changes" in again.output


def test_shard_beside_the_clips_needs_no_copy(tables: Path) -> None:
    assert "elsewhere" not in stage("shard", tables / "crosspair.parquet", tables)[1]


def test_a_folder_of_tables_is_one_table_but_not_with_a_clip_twice(tables: Path, tmp_path: Path) -> None:
    listed = rows(tables / "crosspair.parquet")
    for number, row in enumerate(listed):
        pq.write_table(build_table([row], CLIPS), tmp_path / f"{number}.parquet")
    assert stage("shard", tmp_path, tmp_path / "out")[0] == 0
    pq.write_table(build_table(listed[:1], CLIPS), tmp_path / "twice.parquet")
    code, output = stage("shard", tmp_path, tmp_path / "more")
    assert code == 2
    assert f"clip {listed[0]['clip_id']} is there twice" in output


def test_rows_that_are_still_open_are_no_dataset(tables: Path, tmp_path: Path) -> None:
    code, output = stage("shard", tables / "ground.parquet", tmp_path / "dataset")
    assert code == 2
    assert "1 rows of" in output
    assert "are open: run the stage filter first" in output
    assert not (tmp_path / "dataset").exists()


def test_a_run_in_which_every_row_failed_exits_1(tmp_path: Path) -> None:
    pq.write_table(build_table([kept_clip(0)], CLIPS), tmp_path / "in.parquet")
    code, output = stage(
        "inpaint", tmp_path / "in.parquet", tmp_path / "out.parquet", "models.inpainter=builtins:dict"
    )
    assert (code, "needs the attributes `name` and `revision`" in output) == (2, True)
    row = kept_clip(0)
    row["frames"] = []
    pq.write_table(build_table([row], CLIPS), tmp_path / "in.parquet")
    code, output = stage("crop", tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert code == 1
    assert "1 failed: ValueError: frame 0 of" in output


def test_a_table_can_be_read_from_and_written_to_s3(tmp_path: Path, s3: S3) -> None:
    pq.write_table(build_table([clip(0)], CLIPS), tmp_path / "in.parquet")
    options = f"?endpoint_override={s3.endpoint.removeprefix('http://')}&scheme=http&region=us-east-1"
    target = f"{s3.uri}/some/matched.parquet{options}"
    assert stage("match", tmp_path / "in.parquet", target)[0] == 0
    assert s3.get("some/matched.parquet").startswith(b"PAR1")
    assert stage("ground", target, f"{s3.uri}/some/grounded.parquet", *COLOURS)[0] == 0
    assert stage("segment", f"{s3.uri}/some/grounded.parquet", tmp_path / "out.parquet", *COLOURS)[0] == 0
    assert rows(tmp_path / "out.parquet")[0]["subjects"][0]["mask"] is not None


def test_relative_paths_are_those_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(build_table([clip(0)], CLIPS), tmp_path / "in.parquet")
    monkeypatch.chdir(tmp_path)
    assert stage("match", "in.parquet", "out.parquet")[0] == 0
    assert (tmp_path / "out.parquet").is_file()
    assert stage("caption", "out.parquet", "out.parquet")[0] == 0, "a table can be replaced in place"


def test_bad_input_is_one_clear_line_and_exit_status_2(tables: Path, tmp_path: Path) -> None:
    good = tables / "match.parquet"
    other, text, cut = tmp_path / "other.parquet", tmp_path / "text.parquet", tmp_path / "cut.parquet"
    pq.write_table(pq.read_table(good).drop_columns(["frames"]), other)
    text.write_text("caption,phrase\n")
    cut.write_bytes(good.read_bytes()[:-100])
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out.parquet"
    for source, target, output in [
        (other, out, "other.parquet has no column frames: is it a Reprise clip table?"),
        (text, out, "text.parquet is damaged or not Parquet"),
        (cut, out, "cut.parquet is damaged or not Parquet"),
        (tmp_path / "nowhere.parquet", out, "nowhere.parquet: no Parquet file there"),
        (tmp_path / "empty", out, "empty: no Parquet file there"),
        (good, tmp_path / "out.csv", "out.csv: name a .parquet file"),
        ("ftp://host/in.parquet", out, "only local paths and s3://"),
    ]:
        code, printed = stage("ground", source, target)
        assert code == 2, printed
        assert printed.startswith("error ")
        assert output in printed
        assert not target.exists(), "nothing half-written"
    code, printed = stage("shard", other, tmp_path / "dataset")
    assert (code, "has no column frames" in printed) == (2, True)


@pytest.mark.parametrize(
    ("name", "before", "what", "missing"),
    [
        ("ground", "slice", "a subject", "match"),
        ("segment", "match", "a box", "ground"),
        ("track", "slice", "a box", "ground"),
        ("filter", "ground", "a mask", "segment"),
        ("crop", "segment", "a kept subject", "filter"),
        ("crosspair", "segment", "a kept subject", "filter"),
    ],
)
def test_a_stage_that_comes_too_early_names_the_one_before_it(
    tables: Path, tmp_path: Path, name: str, before: str, what: str, missing: str
) -> None:
    code, printed = stage(name, tables / f"{before}.parquet", tmp_path / "out.parquet")
    assert code == 2
    assert f"has {what}: run `reprise stage {missing}` before {name}" in printed
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("grond", "no stage grond; stages are slice, caption"),
        ("nowhere:Stage", "stage=nowhere:Stage: No module named 'nowhere'"),
        ("curation.stages.crop:Crp", "curation.stages.crop has no Crp"),
    ],
)
def test_an_unknown_stage_is_named(tables: Path, tmp_path: Path, name: str, output: str) -> None:
    code, printed = stage(name, tables / "match.parquet", tmp_path / "out.parquet")
    assert code == 2
    assert output in printed


def test_a_bad_config_is_named(tables: Path, tmp_path: Path) -> None:
    code, printed = stage("ground", tables / "match.parquet", tmp_path / "out.parquet", "groun.frames=3")
    assert (code, "did you mean ground?" in printed) == (2, True)
    code, printed = stage("match", tables / "caption.parquet", tmp_path / "o.parquet", "match.groups=[dogs]")
    assert (code, "the taxonomy has no group dogs" in printed) == (2, True)


def test_a_stage_of_ones_own_runs_by_its_address(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "class Shout:\n"
        "    name = 'shout'\n"
        "    def __init__(self, config):\n"
        "        self.seed = config.seed\n"
        "    def __call__(self, rows):\n"
        "        for row in rows:\n"
        "            row['caption'] = row['caption'].upper() + '!' * self.seed\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "out.parquet"
    assert stage("mine:Shout", tables / "caption.parquet", out, "seed=3")[0] == 0
    captions = {row["caption"] for row in rows(out)}
    assert "A RED BALL ROLLS OVER THE FLOOR.!!!" in captions
    sys.modules.pop("mine", None)
