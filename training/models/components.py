"""The parts of a diffusers pipeline folder or hub id: transformer, VAE, text encoder, tokenizer, scheduler.

A part that is missing or of another model is one clear error. A VAE class that is not of diffusers loads from
the same folder format once it is in `VAE_MODULES` or registered with `register_vae`.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reprise.errors import RepriseError
from training.config import ModelConfig, PositionsConfig

INDEX_FILE = "model_index.json"
# VAE classes that are not diffusers' own: name in `vae/config.json` -> module, imported when needed.
VAE_MODULES: dict[str, str] = {"PixelUnshuffleVAE": "training.playground.pixel_vae"}


def register_vae(cls: type) -> type:
    """Let `vae/config.json` name this class (a diffusers ModelMixin and ConfigMixin): a decorator.

    For diffusers to load it as a part of a pipeline, its module must be importable and know `ModelMixin`.
    """
    VAE_MODULES[cls.__name__] = cls.__module__
    return cls


def find_vae_class(name: str) -> Any:
    """Find the registered or diffusers class with this name; None: there is none."""
    import diffusers

    home = importlib.import_module(VAE_MODULES[name]) if name in VAE_MODULES else diffusers
    return getattr(home, name, None)


def locate_part(path: str, revision: str | None, part: str, files: str = "*") -> Path | None:
    """Locate one part of a model on this machine; of a hub id it is fetched first.

    Args:
        path: diffusers folder or hub id.
        revision: of a hub id.
        part: "transformer", "vae", ...
        files: pattern of the files that are fetched.

    Returns:
        The folder of the part; None: the model has no such part.

    Raises:
        RepriseError: `path` is no folder, and no hub id that can be fetched.
    """
    if not path:
        raise RepriseError("model.path is empty; give a diffusers folder or a hub id")
    folder = Path(path)
    if folder.is_dir():
        return folder / part if (folder / part).is_dir() else None
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise RepriseError(
            f"{path} is no folder and no hub id (owner/name); give a diffusers folder or a hub id"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        root = Path(
            snapshot_download(path, revision=revision, allow_patterns=[INDEX_FILE, f"{part}/{files}"])
        )
    except RepositoryNotFoundError as error:
        raise RepriseError(
            f"{path} is neither a folder here nor a model on the hub that you may read"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise RepriseError(
            f"{path} is no folder here and could not be fetched from the hub ({type(error).__name__}); "
            "check the name, the revision and the network, or fetch it ahead"
        ) from error
    return root / part if (root / part).is_dir() else None


def fetch_part(path: str, revision: str | None, part: str) -> tuple[Path, dict[str, Any]]:
    """Fetch one part whole: its folder and its config.

    Raises:
        RepriseError: the part is missing.
    """
    config = read_config(path, revision, part)
    return locate_part(path, revision, part) or Path(path), config


def read_config(path: str, revision: str | None, part: str) -> dict[str, Any]:
    """Read the config of one part; no weights are fetched for it.

    Raises:
        RepriseError: it is missing.
    """
    config = find_config(path, revision, part)
    if config is None:
        raise RepriseError(
            f"{path} has no {part}/{_get_config_name(part)}; "
            "a diffusers pipeline folder of the model is needed"
        )
    return config


def find_config(path: str, revision: str | None, part: str) -> dict[str, Any] | None:
    """Read the config of one part as `read_config` does; None: it is missing."""
    name = _get_config_name(part)
    folder = locate_part(path, revision, part, name)
    if folder is None or not (folder / name).is_file():
        return None
    try:
        config: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RepriseError(f"{folder / name} is no JSON ({error}); fetch the model again") from error
    return config


def check_one_transformer(path: str, revision: str | None) -> None:
    """Check that a model has one transformer for all noise levels.

    Raises:
        RepriseError: it has two, each for a part of the noise levels (Wan 2.2 A14B).
    """
    if find_config(path, revision, "transformer_2") is not None:
        raise RepriseError(
            f"{path} has two transformers, each for a part of the noise levels (Wan 2.2 A14B), which cannot "
            "be trained: use a model with one, such as Wan 2.1 14B or Wan 2.2 TI2V 5B"
        )


def _get_config_name(part: str) -> str:
    return f"{part}_config.json" if part in ("scheduler", "tokenizer") else "config.json"


def load_transformer(
    config: ModelConfig,
    wanted: str,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    seed: int = 0,
) -> nn.Module:
    """Load the stock diffusers transformer of a model.

    Args:
        config: path, revision, and `init`: "random" reads only the config and draws weights from the seed.
        wanted: the class that the transformer must have.
        dtype: of the weights.
        device: "meta": without weights; `init` is ignored.
        seed: of random weights.

    Raises:
        RepriseError: the transformer is missing, damaged or of another class.
    """
    import diffusers

    settings = read_config(config.path, config.revision, "transformer")
    found = settings.get("_class_name")
    if found != wanted:
        raise RepriseError(f"{config.path} holds a {found}, not a {wanted}; it is of another model family")
    cls = getattr(diffusers, wanted)
    if torch.device(device).type == "meta":
        with torch.device("meta"):
            model: nn.Module = cls.from_config(settings)
            return model if dtype == torch.float32 else model.to(dtype)
    if config.init == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls.from_config(settings).to(device=device, dtype=dtype)
    folder, _ = fetch_part(config.path, config.revision, "transformer")
    return _load_pretrained(cls, folder, dtype=dtype).to(device)


def load_vae(
    path: str,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Load the VAE of a model, of the class that its config names.

    Raises:
        RepriseError: it is missing, damaged or of an unknown class.
    """
    folder, settings = fetch_part(path, revision, "vae")
    name = settings.get("_class_name", "")
    cls = find_vae_class(name)
    if cls is None:
        raise RepriseError(
            f"{folder}/config.json names the VAE class {name!r}, which is neither of diffusers nor registered"
        )
    return _load_pretrained(cls, folder, dtype=dtype).to(device).eval()


def load_text_encoder(
    path: str,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, Any]:
    """Load the text encoder of a model, of the class that its config names, and the tokenizer.

    Raises:
        RepriseError: one is missing, damaged or of an unknown class.
    """
    import transformers

    folder, settings = fetch_part(path, revision, "text_encoder")
    name = (settings.get("architectures") or ["?"])[0]
    cls = getattr(transformers, name, None)
    if cls is None:
        raise RepriseError(
            f"{folder}/config.json names the text encoder {name!r}, which transformers does not have"
        )
    tokens = locate_part(path, revision, "tokenizer")
    if tokens is None:
        raise RepriseError(f"{path} has no tokenizer/; a diffusers pipeline folder of the model is needed")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(tokens)
    except (OSError, ValueError) as error:
        raise RepriseError(
            f"{tokens} holds no tokenizer that transformers can load: {_get_first_line(error)}"
        ) from error
    return _load_pretrained(cls, folder, dtype=dtype).to(device).eval(), tokenizer


def read_tokenizer_limit(path: str, revision: str | None = None) -> int | None:
    """Read the most tokens of a text from the tokenizer's config; None: it names no limit."""
    limit = (find_config(path, revision, "tokenizer") or {}).get("model_max_length")
    return None if limit is None else int(limit)


def load_scheduler(path: str, revision: str | None = None) -> Any:
    """Load the scheduler that scheduler_config.json names.

    Raises:
        RepriseError: it is missing, or unknown to diffusers.
    """
    import diffusers

    folder, settings = fetch_part(path, revision, "scheduler")
    cls = getattr(diffusers, settings.get("_class_name", ""), None)
    if cls is None:
        raise RepriseError(
            f"{folder} names the scheduler {settings.get('_class_name')!r}, unknown to diffusers"
        )
    return cls.from_pretrained(folder)


def record_positions(folder: Path, positions: PositionsConfig) -> None:
    """Write into a pipeline folder the positions that its transformer was trained with."""
    file = folder / INDEX_FILE
    index = json.loads(file.read_text(encoding="utf-8"))
    index["positions"] = positions.model_dump()
    file.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _load_pretrained(cls: Any, folder: Path, **options: Any) -> nn.Module:
    """Load weights into a class; a missing tensor is an error, never a half-loaded model."""
    try:
        model, report = cls.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise RepriseError(
            f"{folder} could not be loaded as {cls.__name__}: {_get_first_line(error)}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise RepriseError(
            f"{folder} lacks {len(missing)} tensors of {cls.__name__}, first {missing[0]}; "
            "it is incomplete or of another model"
        )
    loaded: nn.Module = model
    return loaded


def _get_first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
