"""`reprise models` against a hub and a file server on this machine's loopback; no network."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from click.testing import CliRunner, Result

from curation.config import load_config
from curation.models import catalogue, checkpoints, registry
from curation.models.catalogue import PublishedCheckpoint
from curation.models.profiles import PLAYGROUND_WEIGHTS
from curation.models.readiness import list_profile_gaps
from pipelines.models import models

safetensors = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")

COMMIT = "a1b2c3d4" * 5
HUB = "someone/tiny"


@dataclass
class Served:
    """The content of the server: plain files by path, hub repositories by id. `requests`: their paths."""

    files: dict[str, bytes] = field(default_factory=dict)
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    stop_after: int | None = None  # bytes of a plain file after which the connection breaks, once
    requests: list[str] = field(default_factory=list)
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    def __init__(self, served: Served, *args: Any) -> None:
        self.served = served
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.served.requests.append(f"{self.command} {path}")
        if path.startswith("/files/"):
            self._file(path, body)
            return
        owner_and_name = "/".join(path.removeprefix("/api/models/").strip("/").split("/")[:2])
        repository = self.served.repositories.get(owner_and_name)
        if repository is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        elif owner_and_name in self.served.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        elif "/revision/" in path and path.rsplit("/", 1)[1] not in ("main", "v1", COMMIT):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        elif "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in repository.items()
            ]
            self._send(200, json.dumps(tree).encode(), {"X-Repo-Commit": COMMIT}, body)
        elif path.startswith("/api/"):
            about = {
                "id": owner_and_name,
                "sha": COMMIT,
                "siblings": [{"rfilename": name, "size": len(data)} for name, data in repository.items()],
            }
            self._send(200, json.dumps(about).encode(), {}, body)
        else:
            data = repository[path.split("/resolve/", 1)[1].split("/", 1)[1]]
            tag = f'"{hashlib.sha1(data).hexdigest()}"'
            start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
            self._send(206 if start else 200, data[start:], {"X-Repo-Commit": COMMIT, "ETag": tag}, body)

    def _file(self, path: str, body: bool) -> None:
        data = self.served.files.get(path)
        if data is None:
            self._send(404, b"", {}, body)
            return
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        rest = data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.served.stop_after is not None:
            rest, self.served.stop_after = rest[: self.served.stop_after], None
        self.wfile.write(rest)

    def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    served = Served()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, served))
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("REPRISE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_ENDPOINT", served.address)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put other entries in place of the published ones."""

    def put(*entries: PublishedCheckpoint) -> None:
        monkeypatch.setitem(catalogue.PUBLISHED, "pretrained", entries)

    return put


def weights(seed: int = 0) -> bytes:
    drawn = np.random.default_rng(seed).normal(size=(64, 64)).astype(np.float32)
    return bytes(safetensors.save({"weight": drawn}))


def reprise(*arguments: str) -> Result:
    return CliRunner().invoke(models, list(arguments), env={"COLUMNS": "400"})


def test_list_shows_every_entry_with_licence_and_warns_of_what_is_non_commercial(served: Served) -> None:
    result = reprise("list")
    assert result.exit_code == 0, result.output
    for entry in catalogue.list_published("pretrained"):
        assert entry.source in result.output
    assert "non-commercial use only:" in result.output.replace("\n", " ")
    warned = next(row for row in result.output.splitlines() if row.startswith("non-commercial use only"))
    assert "antelopev2" in warned and "flux-fill" in warned and "sam" not in warned
    assert "FLUX.1 [dev] Non-Commercial License, gated" in result.output
    assert "licence of the weights unknown: raft-small, raft-large" in result.output
    assert served.requests == []


def test_a_hub_id_is_pulled_once_checked_and_resolved(served: Served, tmp_path: Path) -> None:
    served.repositories[HUB] = {"config.json": b"{}", "model.safetensors": weights(), "README.md": b"hello"}
    result = reprise("pull", HUB)
    assert result.exit_code == 0, result.output
    path, revision = checkpoints.locate_checkpoint(HUB, None)
    assert revision == COMMIT and path == tmp_path / "models" / f"someone--tiny@{COMMIT}"
    assert (path / "model.safetensors").read_bytes() == weights()
    assert not list(path.rglob("*.lock")) and not list((tmp_path / "models").glob("*.part"))
    served.requests.clear()
    assert reprise("pull", f"{HUB}@v1").exit_code == 0
    assert not [each for each in served.requests if "/resolve/" in each]


def test_only_the_files_that_an_entry_names_are_fetched(served: Served, profile: Callable[..., None]) -> None:
    files = {"config.json": b"{}", "model.safetensors": weights(), "whole.ckpt": b"x" * 100}
    served.repositories[HUB] = files
    wanted = ("*.json", "*.safetensors")
    profile(PublishedCheckpoint("scorer", "clip", HUB, "MIT", True, None, "v1", wanted, sizes=("large",)))
    result = reprise("pull", "scorer")
    assert result.exit_code == 0, result.output
    assert not any("whole.ckpt" in each for each in served.requests)
    # The catalogue's revision is a tag here; the folder is found by it and by the commit.
    assert checkpoints.locate_checkpoint(HUB, "v1") == checkpoints.locate_checkpoint(HUB, COMMIT)
    checked = reprise("check", "scorer")
    assert checked.exit_code == 0 and checked.output.startswith("yes scorer clip:"), checked.output


def test_what_a_config_uses_is_checked_local_paths_too(served: Served, tmp_path: Path) -> None:
    here, cut = tmp_path / "here.safetensors", tmp_path / "cut.safetensors"
    here.write_bytes(weights())
    cut.write_bytes(weights()[:-4])
    config = tmp_path / "run.yaml"
    config.write_text(
        f"models:\n  flow: {{backend: raft, checkpoint: {here}}}\n"
        f"  scorer: {{backend: open-clip, checkpoint: {cut}}}\n"
    )
    result = reprise("check", "--config", str(config))
    assert result.exit_code == 1, result.output
    whole = hashlib.sha256(weights()).hexdigest()
    lines = {line.split()[1]: line for line in result.output.splitlines()}
    assert lines["flow"].startswith("yes flow raft:") and lines["flow"].endswith(f"sha256 {whole}")
    assert lines["scorer"].startswith("no") and "damaged or incomplete" in lines["scorer"]
    assert reprise("check", "flow", "--config", str(config)).exit_code == 0
    config.write_text("profile: classical\n")
    assert "uses no checkpoint" in reprise("check", "--config", str(config)).output
    assert served.requests == []


def test_a_pull_that_broke_goes_on_where_it_stopped(served: Served, profile: Callable[..., None]) -> None:
    data = weights()
    served.files["/files/raft.safetensors"] = data
    served.stop_after = 5000
    address = f"{served.address}/files/raft.safetensors"
    whole = hashlib.sha256(data).hexdigest()
    profile(
        PublishedCheckpoint(
            "flow", "raft-small", address, None, None, 20_000_000, sha256=whole, sizes=("large",)
        )
    )
    broken = reprise("pull", "flow")
    assert broken.exit_code == 1 and "run the command again to continue" in broken.output, broken.output
    missing = reprise("check", "flow")
    assert missing.exit_code == 1 and "`reprise models pull flow`" in missing.output, missing.output
    assert reprise("pull", "flow").exit_code == 0
    path, _ = checkpoints.locate_checkpoint(address, None)
    assert path.read_bytes() == data
    assert reprise("check").exit_code == 0
    path.write_bytes(data[:3000])
    halved = reprise("check")
    assert halved.exit_code == 1 and "damaged or incomplete (3,000 of" in halved.output, halved.output


def test_a_file_that_is_not_what_was_published_is_refused(
    served: Served, profile: Callable[..., None]
) -> None:
    served.files["/files/raft.safetensors"] = weights(1)
    address = f"{served.address}/files/raft.safetensors"
    profile(
        PublishedCheckpoint(
            "flow", "raft-small", address, None, None, None, sha256="0" * 64, sizes=("large",)
        )
    )
    result = reprise("pull", "flow")
    assert result.exit_code == 1 and "is not what was published" in result.output, result.output
    assert reprise("check", "flow").exit_code == 1


def pack(names: list[str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, weights())
    return data.getvalue()


@pytest.mark.parametrize("top", ["", "antelopev2/"])
def test_a_zipped_pack_is_unpacked_flat(served: Served, top: str) -> None:
    served.files["/files/antelopev2.zip"] = pack([top + "a.safetensors", top + "b.safetensors"])
    address = f"{served.address}/files/antelopev2.zip"
    result = reprise("pull", address)
    assert result.exit_code == 0, result.output
    path, _ = checkpoints.locate_checkpoint(address, None)
    assert sorted(each.name for each in path.glob("*.safetensors")) == ["a.safetensors", "b.safetensors"]


def test_a_pack_that_would_write_elsewhere_is_refused(served: Served, tmp_path: Path) -> None:
    served.files["/files/evil.zip"] = pack(["in/a.safetensors", "../../../b.safetensors"])
    result = reprise("pull", f"{served.address}/files/evil.zip")
    assert result.exit_code == 2 and "leads out of its folder" in result.output, result.output
    assert not list(tmp_path.rglob("b.safetensors"))


def test_what_cannot_be_pulled_is_one_line(served: Served, profile: Callable[..., None]) -> None:
    served.repositories[HUB] = {"model.safetensors": weights()}
    served.repositories["someone/gated"] = {}
    served.gated.add("someone/gated")
    for address_or_name, wanted in (
        ("someone/absent", "there is no someone/absent on the hub"),
        ("someone/gated", "accept its licence"),
        (f"{HUB}@v9", "has no revision v9"),
        (f"{served.address}/files/absent.pth", "the server returned 404"),
        ("http://example.org/a.pth", "only https is fetched"),
    ):
        result = reprise("pull", address_or_name)
        assert result.exit_code == 2 and wanted in result.output, result.output
        assert result.output.count("error") == 1
    # One that is gated must not keep the others back.
    profile(
        PublishedCheckpoint(
            "inpainter",
            "flux-fill",
            "someone/gated",
            None,
            False,
            None,
            gated=True,
            sizes=("large",),
        ),
        PublishedCheckpoint("scorer", "clip", HUB, "MIT", True, None, sizes=("large",)),
    )
    result = reprise("pull")
    assert result.exit_code == 1 and "accept its licence" in result.output
    assert checkpoints.locate_checkpoint(HUB, None)[1] == COMMIT


def test_an_unreachable_hub_is_one_line(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = reprise("pull", HUB)
    assert result.exit_code == 2 and "cannot reach the hub" in result.output, result.output
    result = reprise("pull", "http://127.0.0.1:9/files/a.pth")
    assert result.exit_code == 2 and "cannot fetch" in result.output, result.output


def test_unknown_roles_and_backends_are_named(served: Served) -> None:
    result = reprise("list", "painter")
    assert result.exit_code == 2 and "no role painter; roles are detector, segmenter" in result.output
    result = reprise("check", "scorer", "--name", "clap")
    assert (
        result.exit_code == 2
        and "no checkpoint named clap; names are clip-vit-b-32, clip-vit-l-14" in result.output
    )


def test_an_earlier_profile_gets_its_new_name() -> None:
    result = CliRunner().invoke(models, ["list", "--profile", "full"])
    assert result.exit_code == 2
    assert "the profile full is now named pretrained" in result.output


# ---- one size of the profile ------------------------------------------------------------------------------


def test_the_small_size_is_what_it_says(served: Served) -> None:
    small = catalogue.list_published(size="small")
    assert {entry.role for entry in small} == {
        "detector", "segmenter", "tracker", "scorer", "embedder", "faces", "flow",
    }  # fmt: skip
    assert 1.4e9 < catalogue.sum_weight_bytes(small) < 1.8e9
    assert all(entry.weight_bytes for entry in small)
    assert not any(entry.gated for entry in small)
    totals = [catalogue.sum_weight_bytes(catalogue.list_published(size=size)) for size in catalogue.SIZES]
    assert totals == sorted(totals)
    config = load_config(None, ["profile=pretrained", "models.size=small"])
    assert registry.get_backend_name(config, "inpainter") == "classical"
    assert registry.get_backend_name(config, "captioner") is None
    for role in ("segmenter", "tracker"):
        spec = registry.get_model_spec(config, role)
        assert spec is not None and spec.checkpoint == "facebook/sam2.1-hiera-tiny"
    one = load_config(None, ["profile=pretrained", "models.size=small", "models.segmenter=sam-hf"])
    assert registry.get_model_spec(one, "segmenter") == registry.get_model_spec(config, "segmenter")
    assert served.requests == []


def test_a_dry_run_prints_the_bytes_and_fetches_nothing(served: Served) -> None:
    result = reprise("pull", "--size", "small", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "to fetch  IDEA-Research/grounding-dino-tiny, 689,359,096 bytes" in result.output
    assert result.output.count("facebook/sam2.1-hiera-tiny") == 1, "two roles share it"
    total = catalogue.sum_weight_bytes(catalogue.list_published(size="small"))
    assert f"size small (for the CPU of a laptop): {total:,} bytes" in result.output
    listed = reprise("list", "--size", "small")
    assert "captioner: off" in listed.output and "inpainter: the classical backend" in listed.output
    assert "flux" not in listed.output
    assert served.requests == []
    none = reprise("pull", "captioner", "--size", "small")
    assert (
        none.exit_code == 2
        and "size small of pretrained has no checkpoint of the role captioner" in none.output
    )


def test_a_pull_without_a_network_says_what_to_do(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    entry = catalogue.list_published(size="small")[0]
    monkeypatch.setitem(catalogue.PUBLISHED, "pretrained", (entry,))
    result = reprise("pull", "--size", "small")
    assert result.exit_code == 1
    assert "cannot reach the hub for IDEA-Research/grounding-dino-tiny" in result.output
    assert "1 of 1 checkpoints are not here" in result.output and "REPRISE_MODELS" in result.output


@pytest.fixture(scope="module")
def tiny_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints of the classes of the size `small`, one folder a role."""
    torch = pytest.importorskip("torch", reason="needs torch")
    for package in ("transformers", "open_clip", "insightface", "onnxruntime", "torchvision"):
        pytest.importorskip(package, reason=f"needs {package}")
    import transformers
    from torchvision.models.optical_flow import raft_small

    from tests.curation.models import tiny_perception as tiny

    root = tmp_path_factory.mktemp("small")
    for role in ("detector", "scorer", "faces"):
        (root / role).symlink_to(PLAYGROUND_WEIGHTS / role)
    tiny.save_sam2_video(root / "segmenter")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(root / "embedder")
    transformers.BitImageProcessor(size={"shortest_edge": 56}).save_pretrained(root / "embedder")
    torch.save(raft_small(weights=None).state_dict(), root / "flow.pth")
    return root


@pytest.mark.slow
def test_what_a_size_pulls_is_loaded_by_its_backends(
    served: Served, profile: Callable[..., None], tiny_small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "list_missing_packages", lambda record: [])
    entries = []
    for entry in catalogue.list_published(size="small"):
        if not checkpoints.is_url(entry.source):
            folder = tiny_small / ("segmenter" if entry.role == "tracker" else entry.role)
            served.repositories[entry.source] = {
                file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()
            }
            entries.append(dataclasses.replace(entry, revision=COMMIT))
            continue
        path = f"/files/{checkpoints.get_file_name(entry.source)}"
        if entry.role == "flow":
            served.files[path] = (tiny_small / "flow.pth").read_bytes()
        else:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for file in (tiny_small / "faces").glob("*.onnx"):
                    archive.write(file, file.name)
            served.files[path] = packed.getvalue()
        sha256 = hashlib.sha256(served.files[path]).hexdigest()
        entries.append(dataclasses.replace(entry, source=served.address + path, sha256=sha256))
    profile(*entries)
    gaps = list_profile_gaps("pretrained", "small")
    assert len(gaps) == 1 and gaps[0].endswith("reprise models pull --size small")

    served.stop_after = 100_000  # the first file of a server breaks off; the hub's files are fetched
    broken = reprise("pull", "--size", "small")
    assert broken.exit_code == 1 and "1 of 6 checkpoints are not here" in broken.output, broken.output
    served.requests.clear()
    result = reprise("pull", "--size", "small")
    assert result.exit_code == 0, result.output
    assert not [each for each in served.requests if "/resolve/" in each], "the rest was here"
    assert list_profile_gaps("pretrained", "small") == []
    loaded = reprise("check", "--size", "small", "--load")
    assert loaded.exit_code == 0, loaded.output
    assert [line.split()[1] for line in loaded.output.splitlines() if line.endswith(" loads")] == [
        entry.role for entry in entries
    ]
