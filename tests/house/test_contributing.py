"""CONTRIBUTING.md describes the tree as it is, as far as a test can check."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.house.names import REPOSITORY, ROOMS

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
# `name/  contents` at the left edge begins a folder; indented lines are in it.
ROOM_LINE = re.compile(r"^(\w+)/\s")
ENTRY = re.compile(r"(?<![\w./])([\w/]+\.(?:py|yaml|yml|toml)|[a-z_]\w*(?:/\w+)*/)(?=[\s,:;)]|$)")


def list_tracked_files() -> list[Path]:
    """Return the files that git knows, or all files where the tree is not a repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return [Path(line) for line in listed.stdout.splitlines() if (REPOSITORY / line).exists()]
    return [path.relative_to(REPOSITORY) for path in REPOSITORY.rglob("*") if path.is_file()]


def read_map() -> dict[str, set[str]]:
    """Read the map of the rooms: top-level folder -> the files and folders that it names in it."""
    block = re.search(r"^```\w*\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert block, "CONTRIBUTING.md has no map"
    rooms: dict[str, set[str]] = {}
    room = ""
    for line in block[1].splitlines():
        if found := ROOM_LINE.match(line):
            room = found[1]
            rooms[room] = set()
            line = line[found.end() :]
        if room:
            rooms[room] |= {entry.rstrip("/") for entry in ENTRY.findall(line)}
    return rooms


def test_the_map_names_every_room() -> None:
    folders = {path.parts[0] for path in list_tracked_files() if len(path.parts) > 1}
    assert {name for name in folders if not name.startswith(".")} == set(read_map())


def test_every_file_and_folder_on_the_map_exists() -> None:
    files = [path.as_posix() for path in list_tracked_files()]
    for room, entries in read_map().items():
        for entry in entries:
            inside = re.compile(rf"{room}/(.*/)?{re.escape(entry)}(/|$)")
            assert any(inside.match(file) for file in files), f"{room}/ has no {entry}"


def test_the_map_names_the_room_of_every_file() -> None:
    rooms = read_map()
    for path in list_tracked_files():
        if (
            path.suffix == ".py"
            and path.parts[0] in ROOMS
            and path.name not in ("__init__.py", "__main__.py")
        ):
            # A file is on the map itself, or the folder of its room is.
            assert path.parts[0] in rooms, f"{path} is in no room of the map"
            entries = rooms[path.parts[0]]
            if path.parts[0] not in ("benchmarks", "evaluation"):
                named = {entry.split("/")[0] for entry in entries}
                assert path.parts[1] in named, f"the map does not describe {path}"


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z][\w-]*)", TEXT))
    assert named and named <= targets


def test_every_path_that_is_named_exists() -> None:
    files = [path.as_posix() for path in list_tracked_files()]
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"`([\w./-]+(?:\.(?:py|yaml|yml|md|toml)|/))`", prose):
        pattern = re.compile(rf"(.*/)?{re.escape(name.rstrip('/'))}(/|$)")
        assert any(pattern.match(file) for file in files), (
            f"CONTRIBUTING.md names {name}, which does not exist"
        )


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (REPOSITORY / target).exists(), target
