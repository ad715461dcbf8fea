"""Ids are content: the same input and config give the same ids on one worker or many."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from reprise.digest import compute_digest

CLIPS_FOLDER = "clips"  # in a dataset
_CHUNK_BYTES = 1 << 20


def hash_video(path: Path) -> str:
    """Hash the bytes of a file; 20 hexadecimal characters (80 bits: no clash within 10^9 videos)."""
    state = hashlib.blake2b(digest_size=10)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()


def make_clip_id(video: str, start_frame: int, end_frame: int, slicing: str) -> str:
    """Make the id of frames [start_frame, end_frame) of a video; `slicing`: digest of that config."""
    return f"{video}-{start_frame:07d}-{end_frame:07d}-{slicing[:6]}"


def make_clip_path(video: str, clip: str) -> str:
    """Path of a clip's MP4 below its dataset."""
    return f"{CLIPS_FOLDER}/{video[:2]}/{clip}.mp4"


def make_stopped_video_id(video: str | None, source_key: str) -> str:
    """Make the row id of a video that gave no clip. Unread bytes have no hash, so the input's key is used."""
    return f"{video}-none" if video else f"unread-{compute_digest(source_key)}"


def make_subject_id(clip: str, phrase: str, start: int, instance: int) -> str:
    """Make the id of the `instance`-th box (0..99) of the phrase that starts at character `start`."""
    return f"{clip}-s{compute_digest(phrase.lower(), start, length=10)}{instance:02d}"


def make_instance_id(subject: str, instance: int) -> str:
    """Make the id of another box of the same phrase."""
    return f"{subject[:-2]}{instance:02d}"


def make_reference_id(subject: str, variant: str, ordinal: int = 0) -> str:
    """Make the id of the `ordinal`-th reference of one variant."""
    return f"{subject}-{variant}{ordinal}"


def derive_seed(base: int, *parts: Any) -> int:
    """Derive a seed in [0, 2^31) from content alone, so that a retry draws the same numbers."""
    return int(compute_digest(base, *parts, length=8), 16) & 0x7FFFFFFF
