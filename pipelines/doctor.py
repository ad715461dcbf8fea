"""reprise doctor: what this machine has, and which model profile it can run."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click
from rich.markup import escape
from rich.table import Table

from pipelines.console import NOTHING, out

# What the embedded profile decodes in practice, and the one encoder that cutting needs.
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4")
ENCODERS = ("libx264",)
# Packages of the profiles that load checkpoints.
MODEL_PACKAGES = (
    "torch",
    "transformers",
    "diffusers",
    "segment-anything",
    "groundingdino-py",
    "insightface",
    "open-clip-torch",
)
CHECKPOINTS = "~/.cache/reprise/models"
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")
_GB = 1 << 30


@dataclass
class Section:
    """What was found of one kind of thing; `missing` stops the embedded profile, and with it all others."""

    name: str
    found: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(as_json: bool) -> None:
    """Say what this machine has and which profile it can run; exit 1 if it cannot run the embedded one."""
    sections = examine()
    missing = [each for section in sections for each in section.missing]
    lacks = {"embedded": missing, "playground": [*missing, *_lacks_playground()]}
    if as_json:
        found = {section.name: section.found for section in sections}
        profiles = {name: not lacking for name, lacking in lacks.items()}
        click.echo(json.dumps({**found, "profiles": profiles, "missing": missing}, indent=1))
    else:
        show(sections, missing, lacks)
    if missing:
        sys.exit(NOTHING)


def examine() -> list[Section]:
    """Everything, in the order in which it is shown. Nothing here raises; secrets are never read out."""
    checks: dict[str, Callable[[Section], None]] = {
        "system": _system,
        "ffmpeg": _ffmpeg,
        "opencv": _opencv,
        "taxonomy": _taxonomy,
        "gpu": _gpu,
        "ray": _ray,
        "s3": _s3,
        "models": _models,
    }
    sections = []
    for name, check in checks.items():
        section = Section(name)
        try:
            check(section)
        except Exception as error:
            # Whatever a broken installation raises, the rest is still worth knowing.
            said = " ".join(f"{type(error).__name__}: {error}".split())
            section.missing.append(f"{name}: {said}")
        sections.append(section)
    return sections


def show(sections: list[Section], missing: list[str], lacks: dict[str, list[str]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for section in sections:
        for row, (key, value) in enumerate(section.found.items()):
            table.add_row("" if row else section.name, key.replace("_", " "), escape(_words(value)))
    out.print(table)
    out.print()
    for each in missing:
        out.print(f"[bold red]missing[/] {escape(each)}", soft_wrap=True)
    for name, lacking in lacks.items():
        answer = "[green]yes[/]" if not lacking else "[bold red]no[/]"
        why = f" ({escape(lacking[0])})" if lacking and not missing else ""
        out.print(f"[bold]profile[/]  {name}: {answer}{why}", soft_wrap=True)


def _lacks_playground() -> list[str]:
    """What the profile playground needs beside what the embedded one needs: packages, and its weights."""
    from curation.models import registry
    from curation.models.checkpoints import resolve
    from reprise.errors import RepriseError

    said = []
    for role, spec in registry.PROFILES[registry.PLAYGROUND].items():
        try:
            registry.require_packages(role, spec)
            if spec.checkpoint is not None:
                resolve(spec)
        except RepriseError as error:
            said.append(str(error))
    return said


def _words(value: Any) -> str:
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(_words(each) for each in value)
    return str(value)


def version(package: str) -> str | None:
    """Of an installed package; None where it is not. Nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _system(section: Section) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    section.found = {
        "reprise": version("reprise"),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "cpu": _cpu(),
        "cores": cores,
        "memory_gb": round(memory / _GB, 1),
        "free_here_gb": round(shutil.disk_usage(Path.cwd()).free / _GB, 1),
        "free_tmp_gb": round(shutil.disk_usage(tempfile.gettempdir()).free / _GB, 1),
    }


def _cpu() -> str | None:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or None


def _ffmpeg(section: Section) -> None:
    import av
    from av.codec import Codec

    def works(name: str, mode: Literal["r", "w"]) -> bool:
        try:
            Codec(name, mode)
        except (av.FFmpegError, ValueError):
            return False
        return True

    decoders = {name: works(name, "r") for name in DECODERS}
    encoders = {name: works(name, "w") for name in ENCODERS}
    avcodec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    section.found = {
        "pyav": av.__version__,
        "libavcodec": avcodec,
        "decoders": decoders,
        "encoders": encoders,
    }
    for name, there in encoders.items():
        if not there:
            section.missing.append(f"encoder {name}: install PyAV from PyPI, whose wheels carry it")
    if not decoders["h264"]:
        section.missing.append("decoder h264: install PyAV from PyPI, whose wheels carry it")


def _opencv(section: Section) -> None:
    import cv2

    from curation.models.classical import faces, people

    section.found = {"opencv": cv2.__version__, "scikit_image": version("scikit-image")}
    # Loaded and not only looked for: OpenCV 5 has the files' folder and not the classes.
    parts: dict[str, Callable[[], Any]] = {
        "people (HOG)": people._hog,
        **{
            f"faces ({name})": functools.partial(faces._cascade, name)
            for name in (*faces.FRONTAL, faces.PROFILE, faces._EYES)
        },
    }
    section.found["parts"] = {}
    for name, load in parts.items():
        try:
            load()
            section.found["parts"][name] = True
        except Exception as error:
            section.found["parts"][name] = False
            said = " ".join(str(error).split())
            section.missing.append(f"{name}: {said}; pip install 'opencv-python-headless>=4.10,<5'")


def _taxonomy(section: Section) -> None:
    from curation.taxonomy import Taxonomy

    loaded = Taxonomy.load()
    section.found = {
        "revision": loaded.revision,
        "categories": len(loaded.categories),
        "names": sum(len(category.names) for category in loaded.categories.values()),
    }


def _gpu(section: Section) -> None:
    section.found = {"nvidia": _nvidia()}
    if importlib.util.find_spec("torch") is not None:
        # In a process of its own: it takes seconds and a gigabyte, and may not work at all.
        code = "import torch; print(torch.version.cuda, torch.cuda.device_count())"
        said = _said([sys.executable, "-c", code], 60)
        section.found["torch"] = said or "installed, but cannot be imported"


def _nvidia() -> list[str]:
    """Name, memory and driver of each GPU."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    said = _said(query, 20)
    return [line.strip() for line in said.splitlines()] if said else []


def _said(command: list[str], seconds: float) -> str | None:
    """What a program prints; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _ray(section: Section) -> None:
    installed = version("ray")
    section.found = {"ray": installed, "address": os.environ.get("RAY_ADDRESS")}
    if installed is None:
        section.missing.append("ray: pip install 'ray[data]'")


def _s3(section: Section) -> None:
    home = Path("~/.aws/credentials").expanduser()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    section.found = {
        "endpoint": endpoint and re.sub(r"//[^/]*@", "//...@", endpoint),
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        "credentials": any(os.environ.get(name) for name in CREDENTIALS) or home.is_file(),
    }


def _models(section: Section) -> None:
    folder = Path(os.environ.get("REPRISE_MODELS") or CHECKPOINTS).expanduser()
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    section.found = {
        "packages": {name: version(name) or False for name in MODEL_PACKAGES},
        "checkpoints": str(folder),
        "files": [f"{path.relative_to(folder)} ({path.stat().st_size / _GB:.2f} GB)" for path in files[:20]],
    }
    if len(files) > 20:
        section.found["more_files"] = len(files) - 20


if __name__ == "__main__":
    main()
