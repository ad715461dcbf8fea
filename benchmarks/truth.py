"""Compare a curated dataset with known truth: ``python -m benchmarks.truth DATASET TRUTH_FOLDER``.

For every kept subject it prints the IoU of its mask with the best truth subject of the same video and frame,
and whether its category fits that subject. The last line is JSON:

    kept            subjects kept, of videos that have truth
    mean_iou        over all kept subjects; a subject without a truth subject counts 0
    category_right  kept subjects whose category fits the truth subject with the largest overlap
    unwanted        kept subjects whose truth subject is dark, blurred, static, not named, or missing
    wanted          truth subjects (one per shot) that the caption names and that are of good quality
    recall          share of the wanted ones that a kept subject matches: right category and IoU >= 0.5

Truth is one JSON file per video, as ``curation.demo.render`` describes it. A dataset is ``data/*.parquet``
with the columns source_path, status and subjects (category, group, name, frame_index, box, mask, verdict).
The exit status is 1 if nothing was kept, and 2 if there is nothing to compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from pycocotools import mask as coco
from rich.console import Console
from rich.table import Table

Mask = npt.NDArray[np.bool_]

FOUND_IOU: Final = 0.5
# If a frame has no truth, that of the nearest frame is used, up to this distance (frames).
MAX_FRAME_GAP: Final = 5


# ---- masks ---------------------------------------------------------------------------------------


def decode_mask(rle: dict[str, Any]) -> Mask:
    """Decode COCO RLE ({"size": [h, w], "counts": ascii}) to a bool mask, (h, w)."""
    counts = rle["counts"]
    raw = counts.encode("ascii") if isinstance(counts, str) else counts
    return cast(Mask, coco.decode({"size": [int(side) for side in rle["size"]], "counts": raw}).astype(bool))


def resize_mask(mask: Mask, height: int, width: int) -> Mask:
    """Resize a mask to another resolution of the same picture, by nearest neighbour."""
    if mask.shape == (height, width):
        return mask
    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def compute_iou(a: Mask, b: Mask) -> float:
    """Compute the intersection over union of two masks of one shape, 0..1; 0 if both are empty."""
    union = int(np.logical_or(a, b).sum())
    return int(np.logical_and(a, b).sum()) / union if union else 0.0


# ---- one subject against truth -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TruthMatch:
    """The best overlap of a kept subject: index of a truth subject or None, IoU, and if the category fits."""

    truth: int | None
    iou: float
    category_right: bool


def find_truth(subject: dict[str, Any], frame: int, nearest: int = MAX_FRAME_GAP) -> dict[str, Any] | None:
    """Find a truth subject's entry at ``frame`` or at the nearest frame up to ``nearest`` away, or None."""
    frames: dict[str, Any] = subject["frames"]
    if str(frame) in frames:
        return cast(dict[str, Any], frames[str(frame)])
    near = min(frames, key=lambda key: (abs(int(key) - frame), int(key)), default=None)
    return frames[near] if near is not None and abs(int(near) - frame) <= nearest else None


def has_same_category(subject: dict[str, Any], truth: dict[str, Any]) -> bool:
    """Return whether a kept subject's category, taxonomy name or group fits a truth subject."""
    words = {truth["category"].lower(), *(word.lower() for word in truth.get("words", ()))}
    return any((subject.get(key) or "").lower() in words for key in ("category", "name", "group"))


def match_subject(subject: dict[str, Any], truth: dict[str, Any]) -> TruthMatch:
    """Compare one kept subject (a record of ``subjects``) with the truth of its video.

    A subject without a mask matches nothing, because a box does not determine a cut-out.
    """
    frame, rle = subject.get("frame_index"), subject.get("mask")
    best: int | None = None
    best_iou = 0.0
    if frame is None or not rle or not rle.get("counts"):
        return TruthMatch(None, 0.0, False)
    shot = find_shot(truth, frame)
    mask = resize_mask(decode_mask(rle), truth["height"], truth["width"])
    for index, candidate in enumerate(truth["subjects"]):
        # The frames next to a cut belong to another shot.
        entry = find_truth(candidate, frame) if candidate["shot"] == shot else None
        if entry and (value := compute_iou(mask, decode_mask(entry["mask"]))) > best_iou:
            best, best_iou = index, value
    right = best is not None and has_same_category(subject, truth["subjects"][best])
    return TruthMatch(best, best_iou, right)


def find_shot(truth: dict[str, Any], frame: int) -> int | None:
    """Find the index of the shot of ``frame``; None: it is after the video's end."""
    for index, shot in enumerate(truth["shots"]):
        if shot["start_frame"] <= frame < shot["end_frame"]:
            return index
    return None


# ---- the whole dataset ---------------------------------------------------------------------------


def is_wanted(truth_subject: dict[str, Any]) -> bool:
    """Return whether it should be kept: the caption names it (if known) and its quality is good."""
    return bool(truth_subject.get("named", True)) and truth_subject.get("quality", "good") == "good"


def summarise_matches(
    matches: Sequence[tuple[str, TruthMatch]], truths: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Compute the last line from (video name, match) of all kept subjects and the truth of each video."""
    wanted = {
        (name, index)
        for name, truth in truths.items()
        for index, subject in enumerate(truth["subjects"])
        if is_wanted(subject)
    }
    found = {(name, m.truth) for name, m in matches if m.category_right and m.iou >= FOUND_IOU} & wanted
    unwanted = sum((name, match.truth) not in wanted for name, match in matches)
    return {
        "kept": len(matches),
        "mean_iou": round(float(np.mean([m.iou for _, m in matches])), 4) if matches else 0.0,
        "category_right": sum(m.category_right for _, m in matches),
        "unwanted": unwanted,
        "wanted": len(wanted),
        "recall": round(len(found) / len(wanted), 4) if wanted else 0.0,
    }


def get_video_name(source_path: str) -> str:
    """Return the bare name of a video from its path or URI: "s3://b/a%20cat.mp4" -> "a cat"."""
    path = unquote(urlsplit(source_path).path) if "://" in source_path else source_path
    return PurePosixPath(path.replace("\\", "/")).stem


def read_truth(folder: Path) -> dict[str, dict[str, Any]]:
    """Read all truth files of a folder, by the bare name of their video. Other JSON files are ignored."""
    truths = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "subjects" in content and "video" in content:
            truths[get_video_name(content["video"])] = content
    return truths


def read_kept_subjects(dataset: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (source path, subject) of every kept subject of kept clips, without the reference pictures."""
    for path in sorted((dataset / "data").glob("*.parquet")):
        file = pq.ParquetFile(path)
        leaves = [file.schema.column(index).path for index in range(len(file.schema))]
        # Columns are read leaf by leaf, without the references' pictures, which are most of a shard.
        columns = [
            leaf
            for leaf in leaves
            if leaf in ("source_path", "status")
            or (leaf.startswith("subjects.") and ".references." not in leaf)
        ]
        for batch in file.iter_batches(batch_size=256, columns=columns):
            for row in batch.to_pylist():
                if row["status"] != "kept":
                    continue
                for subject in row["subjects"] or ():
                    if (subject.get("verdict") or {}).get("kept"):
                        yield row["source_path"], subject


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.truth", description="Curated masks against truth."
    )
    parser.add_argument("dataset", type=Path, help="folder that holds data/*.parquet")
    parser.add_argument("truth", type=Path, help="folder of truth files, one JSON per video")
    arguments = parser.parse_args(argv)
    truths = read_truth(arguments.truth) if arguments.truth.is_dir() else {}
    if not truths:
        print(f"no truth files in {arguments.truth}", file=sys.stderr)
        return 2
    if not any((arguments.dataset / "data").glob("*.parquet")):
        print(f"no data/*.parquet in {arguments.dataset}", file=sys.stderr)
        return 2
    table = Table("video", "frame", "phrase", "category", "truth", "IoU", "category is", box=None)
    matches: list[tuple[str, TruthMatch]] = []
    skipped = 0
    for source, subject in read_kept_subjects(arguments.dataset):
        name = get_video_name(source)
        if name not in truths:
            skipped += 1
            continue
        match = match_subject(subject, truths[name])
        matches.append((name, match))
        below = truths[name]["subjects"][match.truth] if match.truth is not None else None
        label = "nothing" if below is None else f"{below['name']}{'' if is_wanted(below) else ' (unwanted)'}"
        fit = "right" if match.category_right else "wrong"
        table.add_row(
            name, str(subject.get("frame_index")), subject.get("phrase"), subject.get("category"), label,
            f"{match.iou:.3f}", fit,
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if skipped:
        print(f"{skipped} kept subjects are of videos without truth and were left out", file=sys.stderr)
    print(json.dumps(summarise_matches(matches, truths)))
    return 0 if matches else 1


if __name__ == "__main__":
    raise SystemExit(main())
