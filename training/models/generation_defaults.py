"""Size, rate, steps and guidance that a model was trained for: a file in its folder that generation reads."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from reprise.errors import RepriseError

DEFAULTS_FILE = "generation.json"
MAX_SIZE_RATIO = 2.0  # ours: of pixels or frames; beyond it a size is called far from the trained one


class GenerationDefaults(BaseModel):
    """What `reprise generate` uses where the command gives no value."""

    # A later version may record more.
    model_config = ConfigDict(extra="ignore", frozen=True)

    height: int  # px
    width: int  # px
    frames: int
    fps: float
    steps: int = 50
    guidance: float = 6.0

    def describe_distance(self, height: int, width: int, frames: int) -> str | None:
        """Describe in one line a size (px, px, frames) far from this one; None: it is near."""
        pairs = ((height * width, self.height * self.width), (frames, self.frames))
        if all(max(given, own) <= MAX_SIZE_RATIO * min(given, own) for given, own in pairs):
            return None
        return (
            f"{frames} frames of {height}x{width} px are far from the {self.frames} frames of "
            f"{self.height}x{self.width} px that the model is made for: expect worse videos"
        )


def encode_defaults(defaults: GenerationDefaults) -> bytes:
    """Return the content of the file in the model's folder."""
    return (defaults.model_dump_json(indent=2) + "\n").encode()


def read_defaults(path: str | Path) -> GenerationDefaults | None:
    """Read the defaults beside a model or adapters (a folder, or a file in it); None: none are recorded.

    Raises:
        RepriseError: the file is damaged.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    file = folder / DEFAULTS_FILE
    if not Path(path).exists() or not file.is_file():
        return None
    try:
        return GenerationDefaults.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise RepriseError(f"{file} holds no defaults of generation: delete it, or export again") from error
