"""Plan the video of a clip: export it unchanged, or encode it again at another rate, length or size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from curation.export.config import VideoConfig
from curation.export.needs import FrameRule, VideoNeeds

_RATE_TOLERANCE = 1e-3  # relative: 23.976 is not 24, and 29.97003 is 29.97
_MIN_SIDE = 64  # px


@dataclass(frozen=True)
class VideoPlan:
    """How the video of a clip is written.

    Attributes:
        width, height: the size of the result, px.
        fps: frames per second of the result.
        frames: the number of frames of the result.
        start: its first frame, counted at `fps` from the clip's first frame.
        rule: the allowed numbers of frames, for a file that holds fewer frames than its row states.
        as_is: whether the clip's file is exported unchanged.
    """

    width: int
    height: int
    fps: float
    frames: int
    start: int
    rule: FrameRule
    as_is: bool


def apply_video_config(needs: VideoNeeds, config: VideoConfig) -> VideoNeeds:
    """Replace defaults of a target by settings. The limits of the target still apply."""
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
    """Plan how the video of a clip is written.

    Args:
        needs: the needs of the target, with the settings applied.
        width: the width of the clip, px.
        height: the height of the clip, px.
        fps: frames per second of the clip.
        frames: the number of frames of the clip.

    Returns:
        The plan, or a message that tells why the clip cannot be exported.
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
    """Whether two rates in frames per second are equal up to rounding."""
    return abs(left - right) <= _RATE_TOLERANCE * right


def fit_size(width: int, height: int, multiple: int, max_area: int | None) -> tuple[int, int] | None:
    """Return (width, height) of the largest allowed size with about the aspect ratio of the clip.

    The size is never larger than the clip.

    Args:
        width: the width of the clip, px.
        height: the height of the clip, px.
        multiple: both sides are multiples of it, px.
        max_area: the largest area, px; None: no limit.

    Returns:
        The size, or None if a side would be shorter than 64 px.
    """
    scale = min(1.0, math.sqrt(max_area / (width * height))) if max_area else 1.0
    step = max(2, multiple) if scale < 1 else multiple
    sides = (int(width * scale + 1e-6) // step * step, int(height * scale + 1e-6) // step * step)
    return sides if min(sides) >= _MIN_SIDE else None
