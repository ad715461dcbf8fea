"""The thresholds that decide, each with where it comes from.

Verdicts (`curation.rows.verdicts`) compare the numbers of `curation.rows.schema.Scores`, and of
`Reference` for a picture made of a subject, with these. `null` switches a threshold off. A threshold whose
score was not measured does not reject; a subject's verdict lists it as unmeasured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from curation.rows.groups import HUMAN


class Thresholds(BaseModel):
    """A subject is kept if every measured score is inside its bound. Units: `curation.rows.schema.Scores`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    grounding_min: float | None = Field(0.25, ge=0, le=1, description="OpenS2V-5M: box threshold 0.25")
    label_min: float | None = Field(0.6, ge=0, le=1, description="ours: chance between two phrases is 0.5")
    segment_min: float | None = Field(
        0.3, ge=0, le=1, description="ours: below it both sides of the outline have the same colour"
    )
    area_share_min: float | None = Field(
        1 / 32, ge=0, le=1, description="Kaleido 3.2 (4i); OpenS2V-5M: mask >= 1/32 of the frame"
    )
    area_share_max: float | None = Field(
        0.8, ge=0, le=1, description="Kaleido 3.2 (4i): no excessively large instance; the value is ours"
    )
    border_share_max: float | None = Field(
        0.5, ge=0, le=1, description="ours: a mask along half of the border is background"
    )
    overlap_iou_max: float | None = Field(
        0.8, ge=0, le=1, description="Kaleido 3.2 (4iii); OpenS2V-5M: IoU > 0.8 keeps the larger"
    )
    overlap_containment_max: float | None = Field(
        0.9, ge=0, le=1, description="ours: a part of a larger subject is no subject of its own"
    )
    clip_category_min: float | None = Field(
        0.5, ge=0, le=1, description="Kaleido 3.2 (4ii) and A.1, value not published; ours"
    )
    clip_margin_min: float | None = Field(
        None, ge=-1, le=1, description="off; ours, stricter than the category"
    )
    visible_share_min: float | None = Field(
        None, ge=0, le=1, description="off; ours: measured where a tracker follows the subject"
    )
    flow_foreground_min: float | None = Field(
        None, ge=0, description="off; measured by RAFT: a subject that does not move"
    )
    flow_foreground_max: float | None = Field(
        None, ge=0, description="off; proxy replay A.5 (4): small motion <= 25, medium <= 50, large above"
    )
    flow_background_max: float | None = Field(
        None, ge=0, description="off; proxy replay A.5 (3): a camera that moves more than 10"
    )
    brightness_min: float | None = Field(40, ge=0, le=255, description="Kaleido 3.2 (4iv); the value is ours")
    brightness_max: float | None = Field(
        235, ge=0, le=255, description="Kaleido 3.2 (4iv); the value is ours"
    )
    clipped_share_max: float | None = Field(
        0.5, ge=0, le=1, description="ours: half of the subject without detail"
    )
    sharpness_min: float | None = Field(40, ge=0, description="Kaleido 3.2 (4iv); the value is ours")
    face_count_min: float | None = Field(
        1, ge=0, description="Kaleido 3.2 (4iv): humans need a valid frontal face"
    )
    face_count_max: float | None = Field(1, ge=0, description="ours: one person per human subject")
    face_share_min: float | None = Field(
        0.01, ge=0, le=1, description="ours: a smaller face carries no identity"
    )
    face_score_min: float | None = Field(0.5, ge=0, le=1, description="OpenS2V-5M uses 0.65 with InsightFace")
    face_frontality_min: float | None = Field(
        0.5, ge=0, le=1, description="Kaleido 3.2 (4iv); the value is ours"
    )

    identity_min: float | None = Field(
        0.5,
        ge=-1,
        le=1,
        description="Kaleido 3.2 (6), value not published; ours: DreamBooth Table 1 has 0.77 (DINO) between "
        "photographs of one subject, and 0.70 for its own best pictures",
    )
    face_identity_min: float | None = Field(
        0.35, ge=-1, le=1, description="ours: ArcFace verification thresholds lie between 0.3 and 0.4"
    )

    @model_validator(mode="after")
    def _check_bounds(self) -> Thresholds:
        for name in type(self).model_fields:
            score, _, bound = name.rpartition("_")
            low, high = getattr(self, f"{score}_min", None), getattr(self, f"{score}_max", None)
            if bound == "max" and low is not None and high is not None and low > high:
                raise ValueError(f"{score}_min {low:g} is above {score}_max {high:g}: nothing could be kept")
        return self


@dataclass(frozen=True)
class ThresholdRule:
    """One threshold in use: `score` must be at least (`min`) or at most (`max`) `value`; equal passes."""

    name: str
    score: str
    bound: Literal["min", "max"]
    value: float
    group: str | None  # only for subjects of this taxonomy group; None: for all
    source: str
    target: Literal["subject", "reference"] = "subject"  # whose number it is


_REFERENCE_SCORES = ("identity", "face_identity")


def build_rules(thresholds: Thresholds) -> list[ThresholdRule]:
    """Build the rules of the thresholds that are switched on, in the order of `Thresholds`."""
    found = []
    for name, field in Thresholds.model_fields.items():
        value = getattr(thresholds, name)
        if value is None:
            continue
        score, _, bound = name.rpartition("_")
        found.append(
            ThresholdRule(
                name=name,
                score=score,
                bound="min" if bound == "min" else "max",
                value=float(value),
                group=HUMAN if score.startswith("face_") else None,
                source=field.description or "",
                target="reference" if score in _REFERENCE_SCORES else "subject",
            )
        )
    return found
