"""Find a checkpoint on this machine, verify and identify it. This module never downloads.

A checkpoint has one of three kinds of address:

* a local path, file or folder (`local-dir:PATH` means the same);
* a hub id `owner/name`, with a revision (`hf-hub:owner/name` means the same);
* an `https://` address of a file or of a zip of files.

Pulled checkpoints are in `get_models_folder()`, one subfolder per address and revision, each with a manifest
of its files. A hub id is also searched in the hub's own cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.model_spec import ModelSpec
from curation.models import catalogue
from reprise.digest import compute_digest
from reprise.errors import RepriseError

MANIFEST_FILE = "reprise.json"  # in each pulled folder: its address and the size of every file
WEIGHT_SUFFIXES = frozenset({".safetensors", ".pth", ".pt", ".bin", ".onnx", ".ckpt"})
# The same weights with another tokenizer or preprocessor are another model.
_SETTINGS_SUFFIXES = frozenset({".json", ".txt", ".model", ".yaml", ".yml", ".py", ".cfg", ".jinja"})
_ARCHIVE_SUFFIXES = (".zip",)
_HUB_ID_PATTERN = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CHECKSUM_CACHE = ".reprise-sha256.json"
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine.

    Attributes:
        path: file or folder.
        revision: commit of the hub, else the first 12 characters of `sha256`.
        sha256: see `compute_fingerprint`.
    """

    path: Path
    source: str
    revision: str
    sha256: str


def resolve_checkpoint(spec: ModelSpec) -> Checkpoint:
    """Find the checkpoint of a spec on this machine and verify that it is complete.

    Raises:
        RepriseError: it is not here (the message names the command that fetches it, its size and its folder),
            or it is damaged or incomplete.
    """
    if spec.checkpoint is None:
        raise RepriseError(
            f"models: backend {spec.backend} needs a checkpoint: a path, a hub id or an https address"
        )
    source = strip_prefix(spec.checkpoint)
    path, revision = locate_checkpoint(source, spec.revision)
    verify_checkpoint(path)
    sha256 = compute_fingerprint(path)
    return Checkpoint(path, source, revision or sha256[:12], sha256)


def get_models_folder() -> Path:
    """Return the folder of pulled checkpoints: `REPRISE_MODELS`, else ~/.cache/reprise/models."""
    return Path(os.environ.get("REPRISE_MODELS") or "~/.cache/reprise/models").expanduser()


def strip_prefix(source: str) -> str:
    """Return an address without open_clip's prefixes, which add nothing to it."""
    return source.removeprefix("local-dir:").removeprefix("hf-hub:")


def is_url(source: str) -> bool:
    """Return whether an address is a web address."""
    return source.startswith(("https://", "http://"))


def is_hub_id(source: str) -> bool:
    """Return whether an address is a hub id: `owner/name`, and no such path exists on this machine."""
    return _HUB_ID_PATTERN.fullmatch(source) is not None and not Path(source).expanduser().exists()


def locate_checkpoint(source: str, revision: str | None) -> tuple[Path, str | None]:
    """Return the path of a checkpoint on this machine and its hub revision; None: it is not from the hub.

    Raises:
        RepriseError: it is not here.
    """
    if is_url(source):
        folder = get_pull_folder(source)
        if not (folder / MANIFEST_FILE).is_file():
            raise RepriseError(_describe_missing(source, None))
        return (folder if _is_archive(source) else folder / get_file_name(source)), None
    if is_hub_id(source):
        return _locate_hub(source, revision)
    path = Path(source).expanduser()
    if not path.exists():
        raise RepriseError(f"no checkpoint at {path}")
    return path, revision


def get_pull_folder(source: str, revision: str | None = None) -> Path:
    """Return the folder of a pulled checkpoint, whether it exists or not."""
    if is_url(source):
        return get_models_folder() / f"{get_file_name(source)}@{compute_digest(source, length=8)}"
    return get_models_folder() / f"{source.replace('/', '--')}@{revision or 'main'}"


def get_file_name(url: str) -> str:
    """Return the last part of a web address, without its query."""
    return url.split("?")[0].rstrip("/").rpartition("/")[2]


def _is_archive(url: str) -> bool:
    return get_file_name(url).endswith(_ARCHIVE_SUFFIXES)


def _locate_hub(source: str, revision: str | None) -> tuple[Path, str]:
    pulled = {}
    for folder in get_models_folder().glob(f"{source.replace('/', '--')}@*"):
        manifest = read_checkpoint_manifest(folder)
        if manifest is not None:
            pulled[str(manifest["revision"])] = (folder, str(manifest.get("asked") or ""))
    if revision is not None:
        fits = [
            (folder, commit)
            for commit, (folder, asked) in sorted(pulled.items())
            if revision == asked or (len(revision) >= 7 and commit.startswith(revision))
        ]
    else:
        fits = [(folder, commit) for commit, (folder, _) in sorted(pulled.items())]
        if len(fits) > 1:
            raise RepriseError(
                f"{source} is here in several revisions; set revision to one of: {', '.join(sorted(pulled))}"
            )
    if fits:
        return fits[0]
    cached = _find_in_hub_cache(source, revision)
    if cached is None:
        raise RepriseError(_describe_missing(source, revision))
    return cached, cached.name


def _find_in_hub_cache(source: str, revision: str | None) -> Path | None:
    """Return huggingface_hub's cached snapshot of a revision, without the network; None: there is none."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        return None
    with contextlib.suppress(LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError):
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    return None


def read_checkpoint_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of a pulled folder; None: it has none, for example because a pull was interrupted."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and "revision" in manifest else None


def _describe_missing(source: str, revision: str | None) -> str:
    entry = catalogue.find_published(source)
    what = f"{source}@{revision}" if revision else source
    size = f" ({entry.gigabytes:g} GB)" if entry and entry.gigabytes else ""
    requested = revision if not is_url(source) else None
    pull = f"{source}@{requested}" if requested else source
    if entry is not None and requested in (None, entry.revision):
        pull = entry.role
        if not entry.is_default:
            pull += f" --size {entry.sizes[0]}" if entry.sizes else f" --name {entry.name}"
    folder = get_pull_folder(source, requested or (entry.revision if entry else None))
    return f"no checkpoint {what} here: fetch it{size} with `reprise models pull {pull}` into {folder}"


# ---- verify ------------------------------------------------------------------------------------------------


def verify_checkpoint(path: Path) -> None:
    """Check the weight files of a checkpoint by their headers and sizes only.

    Raises:
        RepriseError: there are no weights, or a file is missing, empty, cut off or no weight file.
    """
    if path.is_file():
        _verify_file(path)
        return
    manifest = read_checkpoint_manifest(path)
    for name, size in (manifest or {}).get("files", {}).items():
        file = path / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            raise RepriseError(
                _describe_damage(file, "missing" if found is None else f"{found:,} of {size:,} bytes")
            )
    for index in sorted(path.rglob("*.index.json")):
        for shard in sorted(_read_shard_names(index)):
            if not (index.parent / shard).is_file():
                raise RepriseError(_describe_damage(index.parent / shard, "missing"))
    files = list_weight_files(path)
    if not files:
        left = next(path.rglob("*.incomplete"), None)
        reason = f"; {left.name} is an incomplete download: fetch it again" if left else ""
        raise RepriseError(f"{path} holds no weights ({', '.join(sorted(WEIGHT_SUFFIXES))}){reason}")
    for file in files:
        _verify_file(file)


def list_weight_files(path: Path) -> list[Path]:
    """List the weight files of a checkpoint, sorted by name; a file is a list of itself."""
    if path.is_file():
        return [path]
    return sorted(file for file in _list_visible_files(path) if file.suffix in WEIGHT_SUFFIXES)


def find_weight_file(path: Path, suffixes: frozenset[str] = WEIGHT_SUFFIXES) -> Path:
    """Find the only weight file of a checkpoint: the path itself, or the file in its folder.

    Raises:
        RepriseError: there is none, or more than one.
    """
    if path.is_file():
        return path
    files = [file for file in list_weight_files(path) if file.suffix in suffixes]
    if len(files) != 1:
        names = ", ".join(file.name for file in files[:4]) or "none"
        kinds = ", ".join(sorted(suffixes))
        raise RepriseError(
            f"{path} must hold one weight file ({kinds}); it holds {names}: name the file itself"
        )
    return files[0]


def _list_visible_files(path: Path) -> Iterator[Path]:
    """Yield the files of a folder without hidden ones, such as the hub's records of its downloads."""
    for file in path.rglob("*"):
        inside = file.relative_to(path).parts
        if file.is_file() and not any(part.startswith(".") for part in inside):
            yield file


def _read_shard_names(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise RepriseError(_describe_damage(index, "unreadable")) from error


def _verify_file(file: Path) -> None:
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise RepriseError(f"cannot read {file}: {error.strerror}") from error
    if size == 0:
        raise RepriseError(_describe_damage(file, "empty"))
    if head.startswith(b"version https://git-lfs"):
        raise RepriseError(f"{file} is a Git LFS pointer, not the weights: `git lfs pull`, or fetch it again")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise RepriseError(f"{file} is a web page, not weights: fetch it again from the right address")
    if file.suffix == ".safetensors":
        _verify_safetensors(file, size)
    elif file.suffix == ".onnx":
        if not _is_protobuf_complete(file, size):
            raise RepriseError(_describe_damage(file, "cut off, or no ONNX file"))
    elif head.startswith(b"PK"):
        # The table of contents of a zip, which torch.save writes, is at its end.
        if not zipfile.is_zipfile(file):
            raise RepriseError(_describe_damage(file, "cut off"))
    elif not head.startswith(b"\x80"):  # the first byte of a pickle of torch < 1.6; it has no length
        raise RepriseError(f"{file} is no PyTorch file: neither a zip nor a pickle")


def _verify_safetensors(file: Path, size: int) -> None:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise RepriseError(
                _describe_damage(file, f"{size:,} bytes end inside its header, or no safetensors file")
            )
        try:
            header = json.loads(stream.read(length))
            tensors = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RepriseError(f"{file} is no safetensors file: its header is unreadable") from error
    whole = 8 + length + max(tensors, default=0)
    if whole != size:
        raise RepriseError(_describe_damage(file, f"{size:,} of {whole:,} bytes"))


def _is_protobuf_complete(file: Path, size: int) -> bool:
    """Return whether the top-level fields of a protobuf end where the file ends. Reads no content."""
    with file.open("rb") as stream:
        while stream.tell() < size:
            key = _read_varint(stream.read)
            if key is None or key >> 3 == 0:
                return False
            kind = key & 7
            if kind == 0:
                step: int | None = 0 if _read_varint(stream.read) is not None else None
            else:
                step = {1: 8, 5: 4}.get(kind) if kind != 2 else _read_varint(stream.read)
            if step is None or stream.tell() + step > size:
                return False
            stream.seek(step, os.SEEK_CUR)
    return True


def _read_varint(read: Callable[[int], bytes]) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
    return None


def _describe_damage(file: Path, detail: str) -> str:
    return f"{file} is damaged or incomplete ({detail}): delete it and fetch it again"


# ---- identify ----------------------------------------------------------------------------------------------


def compute_fingerprint(path: Path) -> str:
    """Compute the SHA-256 that identifies a checkpoint.

    For a file it is the sum of its bytes. For a folder it is the sum of one line `sha256  name` for each
    weight and settings file, sorted by name. A tokenizer counts, a README does not. The sums of files are
    cached in their folder with size and time of change, so that 30 GB are read only once.

    Returns:
        64 hex characters.

    Raises:
        RepriseError: a file cannot be read.
    """
    if path.is_file():
        return _get_checksums(path.parent, [path])[path.name]
    files = [
        file
        for file in _list_visible_files(path)
        if file.suffix in WEIGHT_SUFFIXES | _SETTINGS_SUFFIXES
        and file.name not in (MANIFEST_FILE, _CHECKSUM_CACHE)
    ]
    state = hashlib.sha256()
    for name, value in sorted(_get_checksums(path, files).items()):
        state.update(f"{value}  {name}\n".encode())
    return state.hexdigest()


def _get_checksums(folder: Path, files: list[Path]) -> dict[str, str]:
    """Return name below `folder` -> SHA-256, from the cache in `folder` where it is still valid."""
    noted = _read_checksum_cache(folder / _CHECKSUM_CACHE)
    sums, fresh = {}, False
    for file in sorted(files):
        name = file.relative_to(folder).as_posix()
        found = file.stat()
        stamp = [found.st_size, found.st_mtime_ns]
        note = noted.get(name)
        if not (isinstance(note, list) and note[:2] == stamp and len(note) == 3):
            noted[name] = note = [*stamp, hash_file(file)]
            fresh = True
        sums[name] = str(note[2])
    if fresh:
        # The folder may not be writable. The sums are then computed again next time.
        with contextlib.suppress(OSError):
            _replace_file(folder / _CHECKSUM_CACHE, json.dumps(noted, sort_keys=True, indent=1))
    return sums


def _read_checksum_cache(file: Path) -> dict[str, Any]:
    try:
        notes = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def hash_file(file: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal.

    Raises:
        RepriseError: it cannot be read.
    """
    state = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                state.update(chunk)
    except OSError as error:
        raise RepriseError(f"cannot read {file}: {error.strerror}") from error
    return state.hexdigest()


def _replace_file(file: Path, text: str) -> None:
    """Write a file atomically, because several workers may write it at the same time."""
    handle, partial = tempfile.mkstemp(dir=file.parent, prefix=".reprise-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(partial).chmod(0o644)  # other users may share the folder; mkstemp allows only its owner
        Path(partial).replace(file)
    finally:
        Path(partial).unlink(missing_ok=True)


def write_checkpoint_manifest(
    folder: Path, source: str, revision: str, requested_revision: str | None
) -> None:
    """Record the content of a pulled folder.

    It is written last: a folder without it is an interrupted pull.
    """
    files = {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(_list_visible_files(folder))
    }
    files.pop(MANIFEST_FILE, None)
    manifest = {"source": source, "revision": revision, "asked": requested_revision, "files": files}
    _replace_file(folder / MANIFEST_FILE, json.dumps(manifest, sort_keys=True, indent=1))
