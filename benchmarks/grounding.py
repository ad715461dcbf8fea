"""Measure how well the classical detector grounds captions in real videos with hand-drawn boxes.

    python -m benchmarks.grounding SAMPLES.jsonl

A line of the file, whose videos are in the same folder:
    {"file": "dog.mp4", "caption": "...", "frame": 0, "boxes_xyxy_px": {"woman": [x0, y0, x1, y1], ...}}
Lines whose frame is null are skipped. Every annotated box is compared with all detected boxes, of any phrase:
this measures localisation. `kept` and `boxes_kept` count the boxes that pass the default thresholds for
grounding and label.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB, compute_box_iou, compute_luma, get_mask_box
from curation.models.classical.detector import ClassicalDetector
from curation.models.classical.segmenter import ClassicalSegmenter
from curation.models.roles import DetectionScene, Phrase
from curation.rows.thresholds import Thresholds
from curation.taxonomy import Taxonomy
from curation.video.motion import LONG_SIDE, measure_motion
from reprise.errors import RepriseError

_NEIGHBOUR_S = 0.15  # distance of the frame that motion is measured against


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status."""
    if len(arguments) != 1:
        print("usage: python -m benchmarks.grounding SAMPLES.jsonl", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        print(f"cannot read {path}: {error.strerror}", file=sys.stderr)
        return 2
    cv2.setNumThreads(1)  # as in a worker of the pipeline
    taxonomy, detector, segmenter = Taxonomy.load(), ClassicalDetector(), ClassicalSegmenter()
    measured: list[dict[str, float]] = []
    times: list[dict[str, float]] = []
    for line in lines:
        if line["frame"] is None:
            continue
        boxes, timing = measure_line(path.parent, line, taxonomy, detector, segmenter)
        measured += boxes
        times.append(timing)
    print(json.dumps(summarise_run(measured, times)))
    return 0


def measure_line(
    folder: Path,
    line: dict[str, Any],
    taxonomy: Taxonomy,
    detector: ClassicalDetector,
    segmenter: ClassicalSegmenter,
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Return, per annotated box, its best IoU with any box, a kept box and a mask's box; and milliseconds."""
    image, previous, gap_s = read_frame_pair(folder / line["file"], int(line["frame"]))
    phrases = [
        Phrase(mention.phrase, mention.category, mention.group, mention.count)
        for mention in taxonomy.find_mentions(line["caption"])
    ]
    small, small_previous = shrink_luma(compute_luma(image)), shrink_luma(compute_luma(previous))
    start = time.perf_counter()
    motion = measure_motion(small_previous, small, gap_s)
    moved = time.perf_counter()
    found = detector.detect([DetectionScene(image, motion.residual)], [phrases])[0]
    detected = time.perf_counter()
    masks = segmenter.segment([image], [[each.box for each in found]])[0].masks
    ended = time.perf_counter()
    timing = {
        "motion_ms": 1000 * (moved - start),
        "detect_ms": 1000 * (detected - moved),
        "segment_ms": 1000 * (ended - detected) / max(1, len(found)),
    }
    limits = Thresholds()
    kept = [
        each
        for each in found
        if each.score >= (limits.grounding_min or 0) and each.label >= (limits.label_min or 0)
    ]
    tight = [box for box in map(get_mask_box, masks) if box is not None]
    print(f"{line['file']}: " + "  ".join(f"{name} {value:.0f}" for name, value in timing.items()))
    for each in found:
        corners = ", ".join(f"{side:.0f}" for side in each.box)
        verdict = "kept" if each in kept else ""
        text = phrases[each.phrase].text
        print(f"    {text:24s} [{corners}] score {each.score:.2f} label {each.label:.2f} {verdict}")
    measured = []
    for name, box in line["boxes_xyxy_px"].items():
        best = {
            "box": max((compute_box_iou(box, each.box) for each in found), default=0.0),
            "kept": max((compute_box_iou(box, each.box) for each in kept), default=0.0),
            "mask": max((compute_box_iou(box, other) for other in tight), default=0.0),
        }
        print(
            f"  {name:14s} IoU {best['box']:.2f}   kept {best['kept']:.2f}   box of mask {best['mask']:.2f}"
        )
        measured.append(best)
    return measured, timing


def summarise_run(measured: list[dict[str, float]], times: list[dict[str, float]]) -> dict[str, float | int]:
    """Summarise the run in one flat record."""
    boxes = [each["box"] for each in measured]
    record: dict[str, float | int] = {
        "boxes": len(boxes),
        "at_0.5": sum(iou >= 0.5 for iou in boxes),
        "mean_best_iou": _compute_mean(boxes),
        "kept_at_0.5": sum(each["kept"] >= 0.5 for each in measured),
        "mask_box_at_0.5": sum(each["mask"] >= 0.5 for each in measured),
        "mask_box_mean_best_iou": _compute_mean([each["mask"] for each in measured]),
    }
    for name in ("motion_ms", "detect_ms", "segment_ms"):
        record[name] = round(_compute_mean([each[name] for each in times]), 1)
    return record


def read_frame_pair(path: Path, index: int) -> tuple[RGB, RGB, float]:
    """Read a frame, the one about 0.15 s before it (at the start: after it) and the seconds between them.

    Raises:
        RepriseError: the video has no such frame.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 25)
        step = max(1, round(_NEIGHBOUR_S * rate))
        other = index - step if index >= step else index + step
        frames: dict[int, RGB] = {}
        for position, frame in enumerate(container.decode(stream)):
            if position in (index, other):
                frames[position] = cast(RGB, frame.to_ndarray(format="rgb24"))
            if len(frames) == 2:
                return frames[index], frames[other], step / rate
    raise RepriseError(f"{path} has no frame {index}")


def shrink_luma(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink luma as slicing does for the measurement of motion."""
    scale = LONG_SIDE / max(grey.shape)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def _compute_mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 3) if values else 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
