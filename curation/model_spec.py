"""How a config names a model: which backend, which checkpoint, how it is run."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ModelSpec(BaseModel):
    """One role's model. Checkpoints are a local path (file or folder), or a hub id with a revision."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: str = Field(description="name in curation.models.backends of this role, or module:Class")
    checkpoint: str | None = Field(
        default=None, description="local path or hub id; null: the backend needs none"
    )
    revision: str | None = Field(
        default=None, description="of a hub id; null: the default branch, recorded as resolved"
    )
    device: str = Field(default="auto", description="auto: cuda where there is one, else cpu")
    dtype: str = Field(default="auto", description="auto: bfloat16 on cuda, float32 on cpu")
    batch_size: int = Field(
        default=8, ge=1, description="pictures per forward pass; halved when memory runs out"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="what only this backend knows; it checks them"
    )
