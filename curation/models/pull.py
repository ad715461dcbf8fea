"""Fetch checkpoints before a run, into the folder that `checkpoints.resolve_checkpoint` reads.

A pull writes into a folder whose name ends in `.part`, and renames it when it is complete. A second attempt
continues an interrupted pull.
"""

from __future__ import annotations

import http.client
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from curation.models import checkpoints
from reprise.errors import RepriseError

_CHUNK_BYTES = 1 << 20
_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
_TIMEOUT_S = 60.0

# Called with the bytes fetched so far and the total (None: unknown).
ProgressCallback = Callable[[int, int | None], None]


def pull_checkpoint(
    source: str,
    revision: str | None = None,
    files: tuple[str, ...] = (),
    sha256: str | None = None,
    on_progress: ProgressCallback | None = None,
) -> Path:
    """Fetch a checkpoint. A checkpoint that is already here is only verified.

    Args:
        source: hub id or https address.
        revision: branch, tag or commit of a hub id; None: its default branch. The commit is recorded.
        files: patterns of the files of a hub repository; (): all files.
        sha256: of the file or archive at an https address; None: unknown, so it is not compared.
        on_progress: called with the bytes fetched so far and the total (None: unknown).

    Returns:
        The folder or file that `checkpoints.locate_checkpoint` now returns for it.

    Raises:
        RepriseError: the server is not reachable or refuses, the checkpoint does not exist or arrives
            damaged, or the disk is full.
    """
    source = checkpoints.strip_prefix(source)
    try:
        if checkpoints.is_url(source):
            path = _pull_url(source, sha256, on_progress or (lambda done, total: None))
        elif checkpoints.is_hub_id(source):
            path = _pull_hub(source, revision, files)
        else:
            raise RepriseError(f"{source} is neither a hub id (owner/name) nor an https address")
    except OSError as error:
        raise RepriseError(f"cannot store {source}: {error.strerror or error}") from error
    checkpoints.verify_checkpoint(path)
    checkpoints.compute_fingerprint(path)  # caches the sums now, so that no run waits for them
    return path


# ---- the hub -----------------------------------------------------------------------------------------------


def _pull_hub(source: str, revision: str | None, files: tuple[str, ...]) -> Path:
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub import errors as hub
    except ImportError as error:
        raise RepriseError(
            f"{source} needs the package huggingface_hub: pip install huggingface_hub"
        ) from error
    endpoint = os.environ.get("HF_ENDPOINT") or None
    address = f"{source}@{revision}" if revision else source
    try:
        commit = str(HfApi(endpoint=endpoint).model_info(source, revision=revision, timeout=_TIMEOUT_S).sha)
        final = checkpoints.get_pull_folder(source, commit)
        if checkpoints.read_checkpoint_manifest(final) is None:
            part = final.with_name(final.name + ".part")
            part.mkdir(parents=True, exist_ok=True)
            snapshot_download(
                source,
                revision=commit,
                local_dir=part,
                allow_patterns=list(files) or None,
                endpoint=endpoint,
                etag_timeout=_TIMEOUT_S,
            )
            shutil.rmtree(part / ".cache", ignore_errors=True)  # the hub's records of the download
            _finalize_folder(part, final, source, commit, revision)
        return final
    except hub.GatedRepoError as error:
        raise RepriseError(
            f"{source} is gated: accept its licence at https://huggingface.co/{source} and set HF_TOKEN"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise RepriseError(f"{source} has no revision {revision}") from error
    except hub.RepositoryNotFoundError as error:
        raise RepriseError(
            f"there is no {source} on the hub, or it is private: check its name, or set HF_TOKEN"
        ) from error
    except (
        hub.HfHubHTTPError,
        hub.LocalEntryNotFoundError,
        hub.OfflineModeIsEnabled,
        hub.HFValidationError,
    ) as error:
        raise RepriseError(f"cannot fetch {address} from the hub: {_format_error(error)}") from error
    except Exception as error:
        # The HTTP client's own errors have no common type across versions of the hub's package.
        if type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise RepriseError(f"cannot reach the hub for {address}: {_format_error(error)}") from error
        raise


# ---- plain https -------------------------------------------------------------------------------------------


def _pull_url(url: str, sha256: str | None, on_progress: ProgressCallback) -> Path:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK_HOSTS:
        raise RepriseError(f"{url}: only https is fetched, because other protocols do not verify the server")
    final = checkpoints.get_pull_folder(url)
    if checkpoints.read_checkpoint_manifest(final) is None:
        part = final.with_name(final.name + ".part")
        part.mkdir(parents=True, exist_ok=True)
        file = part / checkpoints.get_file_name(url)
        found = _download_file(url, file, on_progress)
        if sha256 is not None and found != sha256:
            file.unlink()
            raise RepriseError(f"{url} is not what was published: its sha256 is {found}, not {sha256}")
        if file.suffix == ".zip":
            _extract_zip(file, part)
        _finalize_folder(part, final, url, found[:12], None)
    return checkpoints.locate_checkpoint(url, None)[0]


def _download_file(url: str, file: Path, on_progress: ProgressCallback) -> str:
    """Fetch a file, from the point where an earlier attempt stopped; return its SHA-256."""
    if file.exists():
        return checkpoints.hash_file(file)
    half = file.with_name(file.name + ".incomplete")
    done = half.stat().st_size if half.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "reprise"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            if done and response.status != http.client.PARTIAL_CONTENT:
                done = 0
            length = response.headers.get("Content-Length")
            total = done + int(length) if length else None
            with half.open("ab" if done else "wb") as stream:
                while chunk := response.read(_CHUNK_BYTES):
                    stream.write(chunk)
                    done += len(chunk)
                    on_progress(done, total)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            half.unlink()  # longer than the file: another version of it
            return _download_file(url, file, on_progress)
        raise RepriseError(f"{url}: the server returned {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise RepriseError(
            f"cannot fetch {url}: {_format_error(error)}; run the command again to continue"
        ) from error
    if total is not None and done != total:
        raise RepriseError(
            f"{url} stopped after {done:,} of {total:,} bytes; run the command again to continue"
        )
    half.rename(file)
    return checkpoints.hash_file(file)


def _extract_zip(archive: Path, folder: Path) -> None:
    """Extract a zip into `folder`, without the folders that contain all of its files; remove the zip."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if not name.endswith("/") and "__MACOSX" not in name]
            top = os.path.commonpath([str(PurePosixPath(name).parent) for name in names]) if names else ""
            for name in names:
                target = (folder / os.path.relpath(name, top or ".")).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise RepriseError(f"{archive.name} holds a path that leads out of its folder: {name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(name) as packed, target.open("wb") as stream:
                    shutil.copyfileobj(packed, stream, _CHUNK_BYTES)
    except zipfile.BadZipFile as error:
        archive.unlink()
        raise RepriseError(f"{archive.name} is no zip or damaged: fetch it again") from error
    archive.unlink()


def _finalize_folder(
    part: Path, final: Path, source: str, revision: str, requested_revision: str | None
) -> None:
    checkpoints.verify_checkpoint(part)
    checkpoints.write_checkpoint_manifest(part, source, revision, requested_revision)
    if final.exists():  # it has no manifest: another program or an older version left it
        shutil.rmtree(final)
    part.rename(final)


def _format_error(error: BaseException) -> str:
    return " ".join(str(getattr(error, "reason", None) or error).split())[:300] or type(error).__name__
