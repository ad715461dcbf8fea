"""Which of the videos found are the same file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from curation.rows.ids import hash_video
from reprise.errors import RepriseError
from reprise.lists.folders import MessageCallback
from reprise.lists.video_files import VideoFile
from reprise.storage import Storage, fetch_file, is_remote

_READERS = 16  # files at a time


def mark_duplicates(found: Sequence[VideoFile], notify: MessageCallback) -> list[VideoFile]:
    """Give all but the first of equal videos their problem.

    Files of equal size are compared by content; on S3 by their tags where these say enough.

    Args:
        found: sorted by path.
        notify: is called with a line for people where files have to be compared.
    """
    marked = list(found)
    by_size: dict[int, list[int]] = defaultdict(list)
    by_path: dict[str, int] = {}
    for i, each in enumerate(found):
        if each.path in by_path and not each.problem:
            marked[i] = replace(each, problem=f"duplicate of {each.path}")
            continue
        by_path.setdefault(each.path, i)
        # Empty files are all alike, and each fails with its own reason later.
        if not each.problem and each.size > 0:
            by_size[each.size].append(i)
    groups = [group for group in by_size.values() if len(group) > 1]
    if not groups:
        return marked
    notify(f"comparing {sum(map(len, groups)):,} files of equal size")
    todo = [i for group in groups for i in group]
    remote = [i for i in todo if is_remote(found[i].path)]
    with ThreadPoolExecutor(_READERS) as pool:
        tags = dict(zip(remote, pool.map(lambda i: _get_plain_etag(found[i].path), remote), strict=True))
        # Equal tags of a plain upload mean equal content. Unequal ones may differ by encryption or parts.
        keeper: dict[tuple[int, str], int] = {}
        alike = {i: i for i in todo}
        for i in remote:
            if tag := tags[i]:
                alike[i] = keeper.setdefault((found[i].size, tag), i)
        sizes = Counter(found[i].size for i in todo if alike[i] == i)
        hashed = [i for i in todo if alike[i] == i and sizes[found[i].size] > 1]
        hashes = dict(zip(hashed, pool.map(lambda i: _hash_content(found[i].path), hashed), strict=True))
    first: dict[str, int] = {}
    for i in todo:
        content, problem = hashes.get(alike[i], (f"alone {alike[i]}", None))
        if problem:
            marked[i] = replace(found[i], problem=problem)
        elif first.setdefault(content, i) != i:
            marked[i] = replace(found[i], problem=f"duplicate of {found[first[content]].path}")
    return marked


def _get_plain_etag(path: str) -> str | None:
    """The tag of an object that was uploaded in one part; None where there is none to compare."""
    try:
        tag = Storage.from_uri(path).get_etag()
    except RepriseError:
        return None  # reading it will say why
    return tag if tag and "-" not in tag else None


def _hash_content(path: str) -> tuple[str, str | None]:
    """The hash of a file's bytes, or why it cannot be read."""
    try:
        with fetch_file(path) as local:
            return hash_video(local), None
    except OSError as error:
        return "", f"cannot be read: {(error.strerror or str(error)).lower()}"
    except RepriseError as error:
        return "", f"cannot be read: {error}"
