"""The requirements of a trainer: rates, numbers of frames, sizes and references."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class FrameRule:
    """The numbers of frames that a model takes: `step * n + offset`, within limits."""

    step: int = 1
    offset: int = 0
    minimum: int = 1
    maximum: int | None = None

    def choose_length(self, available: int) -> int | None:
        """Return the largest allowed number of frames up to `available`; None: there is none."""
        most = available if self.maximum is None else min(available, self.maximum)
        length = (most - self.offset) // self.step * self.step + self.offset
        return length if length >= self.minimum and length > 0 else None

    def describe(self) -> str:
        """Describe the rule, for example `17n+5 frames, 124 to 345`."""
        kind = f"{self.step}n+{self.offset}" if self.step > 1 else "any number of"
        limits = f", {self.minimum} to {self.maximum}" if self.maximum else f", at least {self.minimum}"
        return f"{kind} frames{limits}"


@dataclass(frozen=True)
class VideoNeeds:
    """The requirements on a video. A clip that meets all of them is exported unchanged."""

    fps: float | None = None  # frames per second; None: any
    frames: FrameRule = field(default_factory=FrameRule)
    multiple: int = 1  # px: width and height are multiples of it
    max_area: int | None = None  # px; a larger clip is scaled down
    min_seconds: float = 0.0
    max_seconds: float | None = None
    steady: bool = False  # the loader takes frames by number: the rate must be constant


@dataclass(frozen=True)
class ReferenceNeeds:
    """The requirements on references."""

    minimum: int = 0
    maximum: int | None = None  # None: any number; 0: the target holds none
    max_subjects: int | None = None
    format: Literal["png", "jpeg"] = "png"
    background: Literal["white", "grey", "transparent", "as-is"] = "white"


@dataclass(frozen=True)
class TargetNeeds:
    """All requirements of a target."""

    video: VideoNeeds = VideoNeeds()
    references: ReferenceNeeds = ReferenceNeeds()
    caption: bool = True  # a clip without a caption is left out
    local: bool = False  # its index holds absolute paths, so the output must be on this machine's disks
    sharded: bool = False  # the samples of a unit are in one file
    best_frame: bool = False  # it uses the frame that shows the first subject best
