"""What the report writes, without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from curation.imaging import codec
from curation.report import build_report, pictures, survey, write_report
from curation.report.cards import build_card, build_entry
from curation.rows.schema import CLIPS, Scores
from curation.rows.tables import build_table
from pipelines.report import report
from reprise.errors import RepriseError
from reprise.storage import Storage
from tests.curation.dataset.fake_dataset import NASTY, Fake, write_dataset


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    made = write_dataset(tmp_path_factory.mktemp("report") / "a set", clips=20)
    build_report(made.root, clips_per_page=8)
    return made


def data_file(root: Path, name: str) -> Any:
    text = (root / "report/data" / f"{name}.js").read_text(encoding="ascii")
    found = re.fullmatch(r'repriseData\("([^"]+)", (.*)\);\n', text, re.DOTALL)
    assert found is not None and found[1] == name
    return json.loads(found[2])


def overview(root: Path) -> dict[str, Any]:
    page = (root / "report/index.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="overview">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def cards_of(root: Path) -> list[dict[str, Any]]:
    names = sorted(path.stem for path in (root / "report/data").glob("clips-*.js"))
    return [one for name in names for one in data_file(root, name)]


def test_every_row_has_a_card_and_an_index_entry(fake: Fake) -> None:
    cards = cards_of(fake.root)
    assert [c["clip_id"] for c in cards] == [row["clip_id"] for row in fake.rows]
    index = data_file(fake.root, "index")
    assert [index["status"][clip[0]] for clip in index["clips"]] == [row["status"] for row in fake.rows]
    assert len(data_file(fake.root, "text")) == len(fake.rows)


def test_a_page_is_spread_over_four_files(fake: Fake) -> None:
    assert overview(fake.root)["gallery"]["per_file"] == 2
    assert len(data_file(fake.root, "clips-00000")) == 2


def test_overview_repeats_the_manifest(fake: Fake) -> None:
    seen = overview(fake.root)
    for key in ("videos", "clips", "subjects", "references", "funnel", "reasons", "categories", "seconds"):
        assert seen[key] == fake.manifest[key], key
    assert seen["rows"] == {"all": len(fake.rows), "clips": fake.manifest["clips"]["in"]}
    assert seen["problem"] is None


def test_page_is_self_contained(fake: Fake) -> None:
    page = (fake.root / "report/index.html").read_text(encoding="utf-8")
    code = page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|fetch\(|XMLHttpRequest|@import|innerHTML", code)
    assert "{{" not in page.replace("${{", "")


def test_text_cannot_break_out_of_its_script(fake: Fake) -> None:
    for path in [fake.root / "report/index.html", *(fake.root / "report/data").glob("*.js")]:
        assert NASTY not in path.read_text(encoding="utf-8")
        assert "<script>document" not in path.read_text(encoding="utf-8")
    assert any(NASTY in (c["caption"] or "") for c in cards_of(fake.root))


def test_a_name_that_looks_like_markup_is_escaped(tmp_path: Path) -> None:
    made = write_dataset(tmp_path / "<b>set & {{scripts}}", clips=1)
    page = build_report(made.root).read_text(encoding="utf-8")
    assert "<title>&lt;b&gt;set &amp; {{scripts}}" in page
    assert "<b>set" not in page
    assert overview(made.root)["name"] == "<b>set & {{scripts}}"


def test_the_same_dataset_gives_the_same_report(fake: Fake, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in (fake.root / "report").rglob("*") if path.is_file()}
    build_report(fake.root, clips_per_page=8)
    after = {path.name: path.read_bytes() for path in (fake.root / "report").rglob("*") if path.is_file()}
    assert before == after


def test_a_smaller_gallery_is_an_even_draw_and_leaves_no_old_files(tmp_path: Path) -> None:
    made = write_dataset(tmp_path / "set", clips=20)
    build_report(made.root, clips_per_page=4)
    build_report(made.root, clips_per_page=4, max_clips=7)
    ids = [c["clip_id"] for c in cards_of(made.root)]
    everything = [row["clip_id"] for row in made.rows]
    assert len(ids) == 7 and ids == [i for i in everything if i in ids]
    seen = overview(made.root)
    assert (seen["gallery"]["clips"], seen["gallery"]["of"], seen["rows"]["all"]) == (7, 20, 20)
    assert len(list((made.root / "report/data").glob("clips-*.js"))) == 7


@pytest.mark.parametrize(
    "manifest", [None, "{}", "not json", "[1]", '{"videos": {"in": 3}, "finished": false}']
)
def test_an_incomplete_manifest_omits_only_its_missing_values(tmp_path: Path, manifest: str | None) -> None:
    made = write_dataset(tmp_path / "set", clips=10)
    (made.root / "manifest.json").unlink()
    if manifest is not None:
        (made.root / "manifest.json").write_text(manifest, encoding="utf-8")
    build_report(made.root)
    seen = overview(made.root)
    # The one that failed is a video that gave no clip.
    assert seen["clips"] == {"in": 9, "kept": made.count("kept"), "rejected": made.count("rejected")}
    assert seen["categories"]["dog"]["group"] == "animal"
    assert bool(seen["problem"]) == (manifest != "{}")


def test_a_manifest_without_shards_still_gives_an_overview(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"videos": {"in": 1, "kept": 0, "rejected": 0, "failed": 1}}')
    build_report(tmp_path)
    assert overview(tmp_path)["gallery"]["clips"] == 0
    assert overview(tmp_path)["scores"] == []


def test_a_folder_that_is_no_dataset_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RepriseError, match="neither"):
        build_report(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.parquet").write_bytes(b"PAR1 half a file")
    with pytest.raises(RepriseError, match=r"data/a\.parquet is damaged"):
        build_report(tmp_path)
    with pytest.raises(RepriseError, match="at least 1"):
        build_report(tmp_path, clips_per_page=0)


def test_a_shard_of_fewer_columns_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    made = write_dataset(tmp_path / "set", clips=4)
    path = next((made.root / "data").glob("*.parquet"))
    pq.write_table(pq.read_table(path).drop_columns(["motion", "license", "subjects"]), path)
    build_report(made.root)
    assert all(c["subjects"] == [] and c["motion"] is None for c in cards_of(made.root))


def test_damaged_and_freed_pictures_cost_themselves_only(tmp_path: Path) -> None:
    made = write_dataset(tmp_path / "set", clips=2)
    path = next((made.root / "data").glob("*.parquet"))
    rows = pq.read_table(path).to_pylist()
    for frame in rows[0]["frames"]:
        frame["image"] = None
    rows[0]["subjects"][0]["references"][0]["image"]["bytes"] = b"no picture"
    rows[1]["subjects"][0]["mask"]["counts"] = "\x01broken"
    rows[1]["subjects"][0]["scores"]["sharpness"] = float("nan")
    pq.write_table(build_table(rows, CLIPS), path)
    build_report(made.root)
    first, second = cards_of(made.root)
    assert first["poster"] is None and first["subjects"][0]["frame"] is None
    assert [r["image"] is None for r in first["subjects"][0]["references"]][:2] == [True, False]
    assert second["poster"] and "sharpness" not in second["subjects"][0]["scores"]


def test_card_carries_what_made_each_reference(fake: Fake) -> None:
    kept = next(s for c in cards_of(fake.root) for s in c["subjects"] if len(s["references"]) == 5)
    assert [r["variant"] for r in kept["references"]] == ["crop", "segment", "inpaint", "redux", "crosspair"]
    redux = kept["references"][3]
    assert (redux["model"], redux["revision"], redux["prompt"]) == (
        "geometric", "1", "the same subject, another pose",
    )  # fmt: skip
    assert kept["references"][1]["image"].startswith("data:image/webp;base64,")
    assert redux["image"].startswith("data:image/jpeg;base64,")
    assert kept["made_by"] == {"detector": "proposals@1", "segmenter": "grabcut@1"}


def test_entry_of_a_row_that_stopped_early() -> None:
    row = {"status": "failed", "stop": {"reason": "corrupt"}, "source_path": "a.mp4", "caption": None}
    assert build_entry(row) == {
        "status": "failed", "reason": "corrupt", "is_clip": False, "text": "\na.mp4", "subjects": [],
    }  # fmt: skip
    assert build_card(row)["poster"] is None


def test_pictures_are_small() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3)).astype(np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.uint8)
    uri = pictures.build_thumbnail(codec.encode_image(soft))
    assert uri is not None and len(uri) < 20_000
    assert pictures.shrink_picture(soft, 288).shape == (162, 288, 3)
    assert pictures.shrink_picture(soft[:50, :60], 288).shape == (50, 60, 3)


@pytest.mark.parametrize("size", [(720, 1280), (2160, 3840), (300, 200), (240, 288)])
def test_a_picture_decoded_small_is_the_one_decoded_whole(size: tuple[int, int]) -> None:
    ramp = np.linspace(0, 255, size[1])[None, :, None] * np.ones((size[0], 1, 3))
    image = codec.encode_image(ramp.astype(np.uint8))
    small = pictures.load_picture(image, 288)
    whole = pictures.shrink_picture(codec.decode_image(image), 288)
    assert small is not None and small.shape == whole.shape and max(small.shape) <= 288
    assert np.abs(small.astype(int) - whole).max() <= 3


def test_grey_and_corrupt_pictures() -> None:
    assert pictures.load_picture(codec.encode_image(np.full((50, 60), 9, np.uint8)), 40) is not None
    whole = codec.encode_image(np.zeros((900, 900, 3), np.uint8))["bytes"]
    assert whole is not None
    for data in (b"", b"\xff\xd8", whole[:40], b"PNG"):
        assert pictures.build_thumbnail({"bytes": data, "path": None}) is None


def test_transparency_survives_shrinking_without_a_fringe() -> None:
    image = np.zeros((400, 400, 4), np.uint8)
    image[..., :3] = (0, 255, 0)  # green under transparent pixels
    image[100:300, 100:300] = (200, 0, 0, 255)
    small = pictures.shrink_picture(image, 90)
    assert small[0, 0, 3] == 0 and small[45, 45].tolist() == [200, 0, 0, 255]
    half = small[(small[..., 3] > 20) & (small[..., 3] < 235)]
    assert half.size and (half[:, 1] < 10).all()


def test_box_is_scaled_from_clip_to_thumbnail() -> None:
    frame = np.zeros((90, 160, 3), np.uint8)
    drawn = pictures.outline_subjects(frame, [(0, {"box": [320, 180, 640, 360]})], (640, 360))
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert (columns.min(), columns.max() + 1) == (79, 160)  # a line two pixels wide straddles its edge
    assert (rows.min(), rows.max() + 1) == (44, 90)


@pytest.mark.parametrize("box", [[-50.0, -50, 2000, 2000], [630.0, 350, 640, 360], [0.0, 0, 0, 0]])
def test_odd_boxes_are_drawn_inside_the_frame(box: list[float]) -> None:
    frame = np.zeros((90, 160, 3), np.uint8)
    assert pictures.outline_subjects(frame, [(12, {"box": box})], (640, 360)).any()


def test_histogram_counts_every_value_once_and_starts_at_a_round_edge() -> None:
    chart = survey.Histogram(step=0.001, series=2)
    values = np.random.default_rng(1).random(500)
    for value in values:
        chart.add_value(float(value), int(value > 0.5))
    done = chart.merge_bins()
    assert done is not None and len(done["bins"]) <= survey.MAX_BINS
    assert np.sum(done["bins"]) == done["count"] == 500
    assert done["start"] == 0 and done["width"] == 0.05
    expected, _ = np.histogram(values, bins=np.arange(21) * 0.05)
    assert [sum(each) for each in done["bins"]] == expected.tolist()


def test_histogram_edges_belong_to_the_bin_above() -> None:
    chart = survey.Histogram(step=0.1, series=1)
    for value in (0.3, 0.6, 0.7):
        chart.add_value(value, 0)
    assert sorted(chart.bins) == [3, 6, 7]


def test_histogram_ignores_what_was_not_measured() -> None:
    chart = survey.Histogram(step=0.1, series=1)
    for value in (None, float("nan"), float("inf")):
        chart.add_value(value, 0)
    assert chart.merge_bins(around=[0.5]) is None


def test_one_outlier_does_not_flatten_a_histogram() -> None:
    chart = survey.Histogram(step=0.001, series=1)
    for value in [n / 1000 for n in range(200)] + [500.0]:
        chart.add_value(value, 0)
    done = chart.merge_bins()
    assert done is not None and done["beyond"] and done["width"] <= 0.01
    assert np.sum(done["bins"]) == 201


def test_histogram_reaches_its_thresholds() -> None:
    chart = survey.Histogram(step=0.001, series=1)
    chart.add_value(0.1, 0)
    done = chart.merge_bins(around=[0.8])
    assert done is not None and done["start"] + done["width"] * len(done["bins"]) > 0.8


def test_logarithmic_histogram_covers_blur_and_noise() -> None:
    chart = survey.Histogram(step=0.125, series=1, log=True)
    for value in (0.0, 3.0, 40.0, 9000.0):
        chart.add_value(value, 0)
    done = chart.merge_bins()
    assert done is not None and np.sum(done["bins"]) == 4 and len(done["bins"]) <= survey.MAX_BINS


def test_scores_split_into_kept_missed_here_and_elsewhere() -> None:
    lines = survey.read_thresholds(
        {
            "thresholds": [
                {"score": "sharpness", "bound": "min", "value": 40, "applies_to": "all"},
                {"score": "face_count", "bound": "max", "value": 1, "applies_to": "human"},
                {"score": "sharpness", "value": "many"},
                "nonsense",
            ]
        }
    )
    assert [line.name for line in lines] == ["sharpness_min", "face_count_max"]
    counted = survey.Survey(lines)
    subject = {"category": "dog", "group": "animal", "frame_index": 1}
    for kept, sharpness, faces in [(True, 50, 0), (False, 10, 2), (False, 60, 2)]:
        scores = {"sharpness": sharpness, "face_count": faces}
        counted.add_row(
            {"status": "kept", "subjects": [{**subject, "scores": scores, "verdict": {"kept": kept}}]}
        )
    charts = {
        chart["score"]: np.sum(chart["bins"], axis=0).tolist() for chart in counted.build_score_charts()
    }
    assert charts["sharpness"] == [1, 1, 1]
    assert charts["face_count"] == [1, 2, 0]  # two faces miss nothing where the line is for humans only
    assert set(counted.list_unmeasured()) == set(Scores.__annotations__) - {"sharpness", "face_count"}


def test_the_page_knows_every_score_of_the_schema() -> None:
    labels = (Path(survey.__file__).parent / "page/labels.js").read_text(encoding="utf-8")
    known = re.findall(r"^  (\w+): \[\"", labels, re.MULTILINE)
    assert set(Scores.__annotations__) <= set(known)


def test_the_page_uses_the_colours_that_pictures_draw() -> None:
    style = (Path(survey.__file__).parent / "page/style.css").read_text(encoding="utf-8")
    found = re.findall(r"--s\d: rgb\((\d+) (\d+) (\d+)\)", style)
    assert [tuple(map(int, each)) for each in found] == list(pictures.SUBJECT_COLORS)


def test_a_dataset_on_s3_gets_the_same_report(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = pytest.importorskip("boto3").client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="report-tests")
        there = Storage.from_uri(f"s3://report-tests/{fake.root.name}")
        here = Storage.from_uri(fake.root)
        for rel in [*here.list_paths("data"), "manifest.json"]:
            there.write_bytes(rel, here.read_bytes(rel))
        assert write_report(there, clips_per_page=8) == there.join_path("report/index.html")
        for rel in here.list_paths("report"):
            assert there.read_bytes(rel) == here.read_bytes(rel), rel
    finally:
        server.stop()


def test_the_command_prints_the_page_or_one_line(fake: Fake, tmp_path: Path) -> None:
    done = CliRunner().invoke(report, ["--dataset", str(fake.root), "--clips-per-page", "8"])
    assert done.exit_code == 0 and done.output.split() == [
        "report",
        *str(fake.root / "report/index.html").split(),
    ]
    failed = CliRunner().invoke(report, ["--dataset", str(tmp_path / "nothing")])
    assert failed.exit_code == 2 and not isinstance(failed.exception, RepriseError)
