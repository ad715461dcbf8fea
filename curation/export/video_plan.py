"""What becomes of a clip: it goes as it is, or is encoded again at another rate, length or size. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from curation.export.config import VideoConfig
from curation.export.needs import FrameRule, VideoNeeds

_RATE_TOLERANCE = 1e-3  # relative: 23.976 is not 24, and 29.97003 is 29.97
_MIN_SIDE = 64  # px


@dataclass(frozen=True)
class VideoPlan:
    """What a clip becomes.

    Attributes:
        width, height: of the result, px.
        fps: frames per second of the result.
        frames: of the result.
        start: its first frame, counted at `fps` from the clip's first.
        rule: numbers of frames that are allowed, for a clip that holds fewer than its row says.
        as_is: the clip's file goes unchanged.
    """

    width: int
    height: int
    fps: float
    frames: int
    start: int
    rule: FrameRule
    as_is: bool


def apply_video_config(needs: VideoNeeds, config: VideoConfig) -> VideoNeeds:
    """Replace what a target wants by what the settings say; limits of the target stay."""
    frames = needs.frames
    if config.max_frames is not None:
        most = config.max_frames if frames.maximum is None else min(frames.maximum, config.max_frames)
        frames = replace(frames, maximum=most)
    areas = [area for area in (needs.max_area, config.max_area) if area is not None]
    return replace(
        needs,
        fps=config.fps or needs.fps,
        steady=needs.steady or config.fps is not None,
        frames=frames,
        max_area=min(areas) if areas else None,
    )


def plan_video(needs: VideoNeeds, width: int, height: int, fps: float, frames: int) -> VideoPlan | str:
    """Plan what becomes of a clip.

    Args:
        needs: what the target takes, with the settings applied.
        width: of the clip, px.
        height: of the clip, px.
        fps: frames per second of the clip.
        frames: of the clip.

    Returns:
        The plan, or why there is none.
    """
    to_fps = needs.fps or fps
    available = frames if is_same_rate(fps, to_fps) else math.floor((frames - 1) / fps * to_fps + 1e-6) + 1
    rule = limit_seconds(needs, to_fps)
    length = rule.choose_length(available)
    if length is None:
        return f"too short: {available} frames at {to_fps:g} per second; needs {rule.describe()}"
    size = fit_size(width, height, needs.multiple, needs.max_area)
    if size is None:
        return f"too small: {width}x{height} px"
    as_is = size == (width, height) and length == frames and is_same_rate(fps, to_fps)
    return VideoPlan(*size, to_fps, length, (available - length) // 2, rule, as_is)


def limit_seconds(needs: VideoNeeds, fps: float) -> FrameRule:
    """Add a target's limits in seconds to its limits in frames."""
    least = max(needs.frames.minimum, math.ceil(needs.min_seconds * fps - 1e-6))
    most = needs.frames.maximum
    if needs.max_seconds is not None:
        longest = math.floor(needs.max_seconds * fps + 1e-6)
        most = longest if most is None else min(most, longest)
    return replace(needs.frames, minimum=least, maximum=most)


def is_same_rate(left: float, right: float) -> bool:
    """Whether two rates in frames per second are the same but for rounding."""
    return abs(left - right) <= _RATE_TOLERANCE * right


def fit_size(width: int, height: int, multiple: int, max_area: int | None) -> tuple[int, int] | None:
    """Return (width, height) of the largest size of about this shape that a target takes.

    It is never larger than the clip.

    Args:
        width: of the clip, px.
        height: of the clip, px.
        multiple: both sides are multiples of it, px.
        max_area: px; None: no limit.

    Returns:
        None where a side would be shorter than 64 px.
    """
    scale = min(1.0, math.sqrt(max_area / (width * height))) if max_area else 1.0
    step = max(2, multiple) if scale < 1 else multiple
    sides = (int(width * scale + 1e-6) // step * step, int(height * scale + 1e-6) // step * step)
    return sides if min(sides) >= _MIN_SIDE else None
