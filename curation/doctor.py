"""What this machine has, and which model profiles it can run: each check looks at one kind of thing."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
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

from curation.models.backends import BACKENDS
from curation.models.catalogue import DEFAULT_SIZE
from curation.models.checkpoints import get_models_folder
from curation.models.profiles import PROFILES
from curation.models.readiness import list_profile_gaps
from curation.taxonomy import Taxonomy
from reprise.package_version import get_package_version

# Codecs that videos commonly have, and the encoder that cuts clips.
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4")
ENCODERS = ("libx264",)
# Packages that the backends with checkpoints import.
MODEL_PACKAGES = tuple(dict.fromkeys(package for backend in BACKENDS for package in backend.packages))
CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")
_GB = 1 << 30


@dataclass
class MachineSection:
    """What was found about one part of the machine. An entry of `missing` prevents every profile."""

    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def check_machine() -> list[MachineSection]:
    """Check every part of the machine, in the order of the output.

    It never raises: an exception becomes a line of `missing`. The values of credentials are not read.
    """
    checks: dict[str, Callable[[MachineSection], None]] = {
        "system": _check_system,
        "ffmpeg": _check_ffmpeg,
        "opencv": _check_opencv,
        "taxonomy": _check_taxonomy,
        "gpu": _check_gpu,
        "ray": _check_ray,
        "s3": _check_s3,
        "models": _check_models,
    }
    sections = []
    for name, check in checks.items():
        section = MachineSection(name)
        try:
            check(section)
        except Exception as error:
            # A broken installation can raise anything. The other parts are still checked.
            message = " ".join(f"{type(error).__name__}: {error}".split())
            section.missing.append(f"{name}: {message}")
        sections.append(section)
    return sections


def list_gaps_by_profile(sections: list[MachineSection]) -> dict[str, list[str]]:
    """Return profile -> what its models lack on this machine. What every profile needs is not in it.

    `pretrained` is there three times, with the setting of its size; the default size has no setting.
    """
    facts = {section.name: section.facts for section in sections}
    memory_gb = facts["system"].get("memory_gb")
    gpu_memory_gb = _read_gpu_memory(facts["gpu"].get("nvidia", []))
    return {
        profile + (f" models.size={size}" if size not in (None, DEFAULT_SIZE) else ""): list_profile_gaps(
            profile, size, memory_gb=memory_gb, gpu_memory_gb=gpu_memory_gb
        )
        for profile, size in PROFILES
    }


def _check_system(section: MachineSection) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    section.facts = {
        "reprise": get_package_version("reprise"),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "cpu": _get_cpu_name(),
        "cores": cores,
        "memory_gb": round(memory / _GB, 1),
        "free_here_gb": round(shutil.disk_usage(Path.cwd()).free / _GB, 1),
        "free_tmp_gb": round(shutil.disk_usage(tempfile.gettempdir()).free / _GB, 1),
    }


def _get_cpu_name() -> str | None:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or None


def _check_ffmpeg(section: MachineSection) -> None:
    import av
    from av.codec import Codec

    def has_codec(name: str, mode: Literal["r", "w"]) -> bool:
        try:
            Codec(name, mode)
        except (av.FFmpegError, ValueError):
            return False
        return True

    decoders = {name: has_codec(name, "r") for name in DECODERS}
    encoders = {name: has_codec(name, "w") for name in ENCODERS}
    avcodec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    section.facts = {
        "pyav": av.__version__,
        "libavcodec": avcodec,
        "decoders": decoders,
        "encoders": encoders,
    }
    for name, there in encoders.items():
        if not there:
            section.missing.append(f"encoder {name}: install PyAV from PyPI, whose wheels include it")
    if not decoders["h264"]:
        section.missing.append("decoder h264: install PyAV from PyPI, whose wheels include it")


def _check_opencv(section: MachineSection) -> None:
    import cv2

    from curation.models.classical import faces, people

    section.facts = {"opencv": cv2.__version__, "scikit_image": get_package_version("scikit-image")}
    # Each part is loaded: OpenCV 5 has the folder of these files, but not the classes that read them.
    parts: dict[str, Callable[[], Any]] = {
        "people (HOG)": people._load_hog,
        **{
            f"faces ({name})": functools.partial(faces._load_cascade, name)
            for name in (*faces.FRONTAL_CASCADES, faces.PROFILE_CASCADE, faces._EYE_CASCADE)
        },
    }
    section.facts["parts"] = {}
    for name, load in parts.items():
        try:
            load()
            section.facts["parts"][name] = True
        except Exception as error:
            section.facts["parts"][name] = False
            message = " ".join(str(error).split())
            section.missing.append(f"{name}: {message}; pip install 'opencv-python-headless>=4.10,<5'")


def _check_taxonomy(section: MachineSection) -> None:
    loaded = Taxonomy.load()
    section.facts = {
        "revision": loaded.revision,
        "categories": len(loaded.categories),
        "names": sum(len(category.names) for category in loaded.categories.values()),
    }


def _check_gpu(section: MachineSection) -> None:
    section.facts = {"nvidia": _list_nvidia_gpus()}
    if importlib.util.find_spec("torch") is not None:
        # A separate process, because the import takes seconds and a gigabyte, and can crash.
        code = "import torch; print(torch.version.cuda, torch.cuda.device_count())"
        output = _run_program([sys.executable, "-c", code], 60)
        section.facts["torch"] = output or "installed, but cannot be imported"


def _list_nvidia_gpus() -> list[str]:
    """List the name, memory and driver of each GPU, one line each; empty without nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    output = _run_program(query, 20)
    return [line.strip() for line in output.splitlines()] if output else []


def _read_gpu_memory(gpus: list[str]) -> list[float]:
    """Read the memory of each GPU, in GB, from lines of `_list_nvidia_gpus`: `name, 81559 MiB, driver`."""
    sizes = (re.search(r", (\d+) MiB", line) for line in gpus)
    return [int(size[1]) / 1024 for size in sizes if size]


def _run_program(command: list[str], seconds: float) -> str | None:
    """Return what a program prints; None if it is not installed, fails, or exceeds the time."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _check_ray(section: MachineSection) -> None:
    installed = get_package_version("ray")
    section.facts = {"ray": installed, "address": os.environ.get("RAY_ADDRESS")}
    if installed is None:
        section.missing.append("ray: pip install 'ray[data]'")


def _check_s3(section: MachineSection) -> None:
    home = Path("~/.aws/credentials").expanduser()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    section.facts = {
        "endpoint": endpoint and re.sub(r"//[^/]*@", "//...@", endpoint),
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        "credentials": any(os.environ.get(name) for name in CREDENTIAL_VARIABLES) or home.is_file(),
    }


def _check_models(section: MachineSection) -> None:
    folder = get_models_folder()
    distributions = importlib.metadata.packages_distributions()
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    section.facts = {
        "packages": {
            name: get_package_version(distributions[name][0]) if name in distributions else False
            for name in MODEL_PACKAGES
        },
        "checkpoints": str(folder),
        "files": [f"{path.relative_to(folder)} ({path.stat().st_size / _GB:.2f} GB)" for path in files[:20]],
    }
    if len(files) > 20:
        section.facts["more_files"] = len(files) - 20
