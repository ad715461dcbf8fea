"""A kept subject is scored by its overlap with the truth at its frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from benchmarks.truth import (
    TruthMatch,
    compute_iou,
    decode_mask,
    find_truth,
    get_video_name,
    has_same_category,
    main,
    match_subject,
    resize_mask,
    summarise_matches,
)

HEIGHT, WIDTH = 40, 60


def _rle(x0: int, y0: int, x1: int, y1: int, scale: int = 1) -> dict[str, Any]:
    mask = np.zeros((HEIGHT * scale, WIDTH * scale), np.uint8, order="F")
    mask[y0 * scale : y1 * scale, x0 * scale : x1 * scale] = 1
    rle = coco.encode(mask)
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _truth_subject(name: str, shot: int, frames: dict[str, Any], **more: Any) -> dict[str, Any]:
    entries = {
        key: {"mask": rle, "box_xyxy": [0, 0, 1, 1], "visible_share": 1.0} for key, rle in frames.items()
    }
    return {"name": name, "category": name, "shot": shot, "frames": entries, **more}


def _truth() -> dict[str, Any]:
    return {
        "video": "clip.mp4", "fps": 25, "width": WIDTH, "height": HEIGHT, "num_frames": 20,
        "shots": [{"start_frame": 0, "end_frame": 10}, {"start_frame": 10, "end_frame": 20}],
        "subjects": [
            _truth_subject("cat", 0, {"0": _rle(0, 0, 20, 20), "6": _rle(10, 0, 30, 20)}),
            _truth_subject("ball", 0, {"0": _rle(40, 0, 60, 20)}, named=False),
            _truth_subject("cat", 1, {"10": _rle(0, 0, 10, 10)}, words=["cat", "tabby"]),
            _truth_subject("cup", 1, {"10": _rle(30, 20, 50, 40)}, quality="dark"),
        ],
    }  # fmt: skip


def _make_kept_subject(
    frame: int | None, mask: dict[str, Any] | None, category: str = "cat"
) -> dict[str, Any]:
    return {
        "category": category, "group": "animal", "name": category, "phrase": f"a {category}",
        "frame_index": frame, "box": [0.0, 0.0, 1.0, 1.0], "mask": mask,
        "verdict": {"kept": True, "reason": None},
    }  # fmt: skip


def test_iou_counts_pixels() -> None:
    left, right = decode_mask(_rle(0, 0, 20, 20)), decode_mask(_rle(10, 0, 30, 20))
    assert compute_iou(left, left) == 1.0
    assert compute_iou(left, right) == pytest.approx(200 / 600)
    assert compute_iou(left, np.zeros_like(left)) == 0.0
    assert compute_iou(np.zeros_like(left), np.zeros_like(left)) == 0.0


def test_a_mask_survives_another_resolution() -> None:
    doubled = decode_mask(_rle(4, 6, 20, 30, scale=2))
    assert compute_iou(resize_mask(doubled, HEIGHT, WIDTH), decode_mask(_rle(4, 6, 20, 30))) == 1.0


def test_the_nearest_frame_is_used_if_near_enough() -> None:
    cat = _truth()["subjects"][0]
    assert find_truth(cat, 5) is cat["frames"]["6"]
    assert find_truth(cat, 3) is cat["frames"]["0"]
    assert find_truth(cat, 30) is None
    assert find_truth({"frames": {}}, 0) is None


def test_a_subject_is_held_against_the_best_truth_of_its_shot() -> None:
    truth = _truth()
    assert match_subject(_make_kept_subject(0, _rle(0, 0, 20, 20)), truth) == TruthMatch(0, 1.0, True)
    assert match_subject(_make_kept_subject(0, _rle(40, 0, 60, 20)), truth) == TruthMatch(1, 1.0, False)
    # Frame 9 is nearer to frame 10 than to frame 6, but there is a cut between them.
    assert match_subject(_make_kept_subject(9, _rle(10, 0, 30, 20)), truth) == TruthMatch(0, 1.0, True)
    assert match_subject(_make_kept_subject(9, _rle(0, 0, 10, 10)), truth) == TruthMatch(None, 0.0, False)
    assert match_subject(_make_kept_subject(10, _rle(0, 0, 10, 10, scale=2)), truth) == TruthMatch(
        2, 1.0, True
    )


@pytest.mark.parametrize(
    "subject",
    [
        _make_kept_subject(0, None),
        _make_kept_subject(None, _rle(0, 0, 9, 9)),
        _make_kept_subject(99, _rle(0, 0, 9, 9)),
    ],
)
def test_a_subject_on_an_empty_area_has_no_overlap(subject: dict[str, Any]) -> None:
    assert match_subject(subject, _truth()) == TruthMatch(None, 0.0, False)


def test_any_right_word_is_a_right_category() -> None:
    truth = {"category": "human", "words": ["human", "astronaut"]}
    assert has_same_category({"category": "astronaut"}, truth)
    assert has_same_category({"category": "child", "group": "Human"}, truth)
    assert not has_same_category({"category": "cat", "group": "animal", "name": None}, truth)


def test_the_summary_counts_what_was_wanted() -> None:
    matches = [
        ("clip", TruthMatch(0, 0.8, True)),
        ("clip", TruthMatch(1, 0.6, False)),
        ("clip", TruthMatch(2, 0.4, True)),
        ("clip", TruthMatch(None, 0, False)),
    ]
    assert summarise_matches(matches, {"clip": _truth()}) == {
        "kept": 4, "mean_iou": 0.45, "category_right": 2, "unwanted": 2, "wanted": 2, "recall": 0.5,
    }  # fmt: skip
    assert summarise_matches([], {"clip": _truth()})["recall"] == 0.0


@pytest.mark.parametrize(
    "path", ["clip.mp4", "/a/b/clip.mp4", "file:///a/clip.mp4", "s3://bucket/x/clip.mp4"]
)
def test_a_video_is_known_by_its_bare_name(path: str) -> None:
    assert get_video_name(path) == "clip"


def _write_dataset(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "shard-0.parquet")
    return folder


def test_the_command_reads_a_dataset_and_ends_with_one_line_of_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = [{"variant": "crop", "image": {"bytes": b"picture", "path": None}}]
    good = {**_make_kept_subject(0, _rle(0, 0, 20, 20)), "references": reference}
    dropped = {
        **_make_kept_subject(0, _rle(0, 0, 5, 5)),
        "verdict": {"kept": False, "reason": "size"},
        "references": reference,
    }
    rows = [
        {"source_path": "/videos/clip.mp4", "start_frame": 0, "status": "kept", "subjects": [good, dropped]},
        {"source_path": "/videos/clip.mp4", "start_frame": 10, "status": "rejected", "subjects": [good]},
        {"source_path": "/videos/stranger.mp4", "start_frame": 0, "status": "kept", "subjects": [good]},
    ]
    dataset = _write_dataset(tmp_path / "set", rows)
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "clip.json").write_text(json.dumps(_truth()))
    assert main([str(dataset), str(tmp_path / "truth")]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {
        "kept": 1, "mean_iou": 1.0, "category_right": 1, "unwanted": 0, "wanted": 2, "recall": 0.5,
    }  # fmt: skip


def test_the_command_fails_without_a_kept_subject_or_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    assert main([str(tmp_path / "set"), str(tmp_path / "truth")]) == 2
    (tmp_path / "truth" / "clip.json").write_text(json.dumps(_truth()))
    assert main([str(tmp_path / "set"), str(tmp_path / "truth")]) == 2
    subject = {**_make_kept_subject(0, _rle(0, 0, 5, 5)), "verdict": {"kept": False, "reason": "size"}}
    dataset = _write_dataset(
        tmp_path / "set",
        [{"source_path": "clip.mp4", "start_frame": 0, "status": "kept", "subjects": [subject]}],
    )
    assert main([str(dataset), str(tmp_path / "truth")]) == 1
