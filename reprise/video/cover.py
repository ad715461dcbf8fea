"""Bring a frame to a size of another shape: resize it until it covers that size, and cut off the rest."""

from __future__ import annotations


def compute_enlargement(size: tuple[int, int], height: int, width: int) -> float:
    """Return the factor by which a frame is enlarged to cover a size; below 1 it is shrunk.

    Args:
        size: (height, width) to cover, px.
        height: of the frame, px.
        width: of the frame, px.
    """
    return max(size[0] / height, size[1] / width)


def compute_cover(size: tuple[int, int], height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Plan a resize and a centre crop.

    Args:
        size: (height, width) of the result, px.
        height: of the frame, px.
        width: of the frame, px.

    Returns:
        (height, width) to resize to, and (top, left) of the crop in that, px.
    """
    scale = compute_enlargement(size, height, width)
    resized = max(size[0], round(height * scale)), max(size[1], round(width * scale))
    return resized, ((resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2)
