"""The playground's models against its truth: ``python -m benchmarks.playground [--videos 40] [--seed 1000]``.

It renders unseen videos, curates them with ``profile=playground`` (real backends, shipped weights; the stages
one after the other, without Ray), and compares the kept subjects with the truth. The last line is JSON:

    kept        subjects kept
    precision   share of them that are right: mask IoU >= 0.5, right name, named by the caption, and of good
                quality (`quality` in playground/render.py)
    recall      share of the named, good subjects (one per shot) that were kept
    mean_iou    mean IoU of the masks of all kept subjects
    seconds     of all stages
    reasons     why clips and subjects were not kept

With ``--models`` it prints the metrics of each model on unseen scenes instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.truth import (
    FOUND_IOU,
    TruthMatch,
    get_video_name,
    is_wanted,
    match_subject,
    read_truth,
    summarise_matches,
)
from curation.config import CurationConfig, compute_config_hash, load_config
from curation.models import registry
from curation.playground.render import render_playground
from curation.rows.schema import ClipRow
from curation.runner.graph import build_stage
from curation.sources.list_videos import list_videos
from curation.stages.slice import Slice
from curation.stages.stage import run_stage
from reprise.storage import Storage

STAGES = ("caption", "match", "ground", "segment", "filter")
_BATCH = 8


def curate_videos(videos: Path, scratch: Path, config: CurationConfig) -> Iterator[ClipRow]:
    """Yield the rows of a folder of videos after the stage `filter`; clips are written to `scratch`."""
    slicing = Slice(
        config, Storage.from_uri(str(scratch)), compute_config_hash(config, registry.list_model_ids(config))
    )
    stages = [build_stage(name, config) for name in STAGES]
    rows = [row for video in list_videos(str(videos)) for row in slicing(video)]
    for first in range(0, len(rows), _BATCH):
        batch = rows[first : first + _BATCH]
        for stage in stages:
            batch = run_stage(stage, batch, {})
        yield from batch


def compare_with_truth(rows: Sequence[ClipRow], truths: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Compute the values of the last line, without the seconds."""
    matches: list[tuple[str, TruthMatch]] = []
    reasons: Counter[str] = Counter()
    right = 0
    for row in rows:
        if row["stop"] is not None:
            reasons[f"clip: {row['stop']['reason']}"] += 1
        name = get_video_name(row["source_path"])
        for subject in row["subjects"]:
            verdict: Any = subject["verdict"]
            if verdict is None or not verdict["kept"]:
                reasons[str((verdict or {}).get("reason") or "no verdict")] += 1
                continue
            truth = truths[name]
            match = match_subject(dict(subject), truth)
            matches.append((name, match))
            good = match.truth is not None and is_wanted(truth["subjects"][match.truth])
            right += good and match.category_right and match.iou >= FOUND_IOU
    found = summarise_matches(matches, truths)
    return {
        "kept": len(matches),
        "precision": round(right / len(matches), 4) if matches else 0.0,
        "recall": found["recall"],
        "wanted": found["wanted"],
        "mean_iou": found["mean_iou"],
        "reasons": dict(reasons.most_common()),
    }


def measure_shipped_models(scenes: int) -> dict[str, dict[str, float]]:
    """Measure each shipped model on scenes of seeds that neither training nor its evaluation uses."""
    from curation.playground.train_models.measure import measure_models

    return measure_models(scenes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.playground", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--models", action="store_true", help="metrics of each model")
    parser.add_argument("--scenes", type=int, default=300, help="for --models")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_args(argv)
    if given.models:
        print(json.dumps(measure_shipped_models(given.scenes)))
        return 0
    config = load_config(None, ["profile=playground", *given.overrides])
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        render_playground(videos, videos=given.videos, seed=given.seed)
        started = time.perf_counter()
        rows = list(curate_videos(videos, Path(folder) / "dataset", config))
        seconds = time.perf_counter() - started
        found = compare_with_truth(rows, read_truth(videos / "truth"))
    print(json.dumps({**found, "clips": len(rows), "seconds": round(seconds, 1)}))
    return 0 if found["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
