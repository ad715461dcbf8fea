"""What comes in: a folder, a pattern, a file or a list -> one record per video, before any is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reprise.errors import RepriseError
from reprise.lists.captions import choose_caption, read_sidecars
from reprise.lists.extensions import LIST_EXTENSIONS, VIDEO_EXTENSIONS, format_extensions, get_extension
from reprise.lists.folders import MessageCallback, describe_video, is_pattern, list_folder, list_pattern
from reprise.lists.manifests import list_manifest
from reprise.lists.video_files import VideoFile, make_storable
from reprise.storage import Storage, split_parent


def find_videos(source: str, notify: MessageCallback) -> list[VideoFile]:
    """Return every video that a source names, in its order; captions beside videos are not read yet.

    Args:
        source: a folder (with all below it), a pattern (`clips/**/*.mp4`), one video file, or a list (CSV,
            JSONL, JSON, Parquet) with a column `path`; local or on S3.
        notify: is called with lines for people: what was found and what was ignored.

    Raises:
        RepriseError: no such source, no video in it, or a list that cannot be read as one.
    """
    place = Storage.from_uri(source)
    extension = get_extension(split_parent(place.uri)[1])
    if place.is_file():
        if extension in LIST_EXTENSIONS:
            files = list_manifest(place.uri, notify)
        elif extension in VIDEO_EXTENSIONS:
            files = [describe_video(source)]
        else:
            raise RepriseError(
                f"{source} is neither a video ({format_extensions()}) nor a manifest "
                f"({', '.join(sorted(LIST_EXTENSIONS))})"
            )
    elif place.exists():
        files = list_folder(place, notify)
    elif is_pattern(place.uri):
        files = list_pattern(source, notify)
    else:
        raise RepriseError(f"no such file or folder: {place.uri}")
    return [make_storable(each) for each in files]


def read_captions(files: Sequence[VideoFile], notify: MessageCallback) -> list[VideoFile]:
    """Give a caption from beside the video to each that has none and no problem."""
    wanting = [each for each in files if each.caption is None and each.sidecars and not each.problem]
    if not wanting:
        return list(files)
    notify(f"reading captions beside {len(wanting):,} videos")
    known = read_sidecars((path, each.path) for each in wanting for path in each.sidecars)
    captioned = []
    for each in files:
        if each.caption is None and each.sidecars and not each.problem:
            found = choose_caption(known[path] for path in each.sidecars)
            source = "sidecar" if found.text else None
            each = replace(each, caption=found.text, caption_source=source, caption_problem=found.problem)
        captioned.append(each)
    return captioned
