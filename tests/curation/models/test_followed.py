"""The stages `track` and `flow` with SAM 2 and RAFT in their real formats, from the config to the row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the pretrained profile is not installed")
pytest.importorskip("transformers", reason="the pretrained profile is not installed")

from curation.config import load_config  # noqa: E402
from curation.filters.motion import FLOW_SIDE  # noqa: E402
from curation.imaging.codec import decode_mask, get_mask_box  # noqa: E402
from curation.models.checkpoints import compute_fingerprint  # noqa: E402
from curation.rows.schema import CLIPS  # noqa: E402
from curation.rows.tables import build_table  # noqa: E402
from curation.runner.graph import build_stage  # noqa: E402
from curation.stages.stage import run_stage  # noqa: E402
from tests.curation.clips import HERE, WIDTH, clip, picture  # noqa: E402
from tests.curation.models import tiny_perception as tiny  # noqa: E402
from tests.curation.models.test_flow import SHIFT, UPDATES, save  # noqa: E402

torch.set_num_threads(1)


def test_a_subject_is_followed_and_its_flow_is_measured(tmp_path: Path) -> None:
    sam, raft = tmp_path / "sam2", tmp_path / "raft.pth"
    tiny.save_sam2_video(sam)
    save(raft, "raft_small", constant=True)
    settings = load_config(
        None,
        [
            f"models.detector={HERE}:ColourDetector",
            f"models.segmenter={HERE}:ColourSegmenter",
            f"models.tracker={{backend: sam2-video, checkpoint: {sam}, device: cpu}}",
            f"models.flow={{backend: raft, checkpoint: {raft}, options: {{updates: {UPDATES}}}}}",
        ],
    )
    balls = [("red", 0.3 + 0.1 * number, 0.5, 0.3) for number in range(4)]
    row = clip(images=[picture(ball, seed=number) for number, ball in enumerate(balls)])
    for name in ("match", "ground", "track", "segment", "flow"):
        (row,) = run_stage(build_stage(name, settings), [row], {})
        assert row["stop"] is None, row["stop"]
    (subject,) = row["subjects"]
    assert subject["track"] is not None and [each["index"] for each in subject["track"]] == [0, 5, 10, 15]
    for point in subject["track"]:
        assert point["mask"] is None or get_mask_box(decode_mask(point["mask"])) == point["box"]
    made_by = json.loads(subject["made_by"] or "")
    assert made_by["tracker"].endswith(f"#sha256={compute_fingerprint(sam)}")
    assert made_by["flow"].endswith(f"#sha256={compute_fingerprint(raft)}")
    # These weights are untrained. If they find a subject, the flow under it is the constant of this RAFT.
    wanted = float(np.hypot(*SHIFT)) * FLOW_SIDE / WIDTH
    assert row["flow_background"] == pytest.approx(wanted, rel=0.02)
    assert build_table([row], CLIPS).num_rows == 1
