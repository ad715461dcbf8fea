"""The backends: one record each says what it is, what it imports, what it loads and what it needs.

A new backend is one line in `BACKENDS` and one file that holds its class. Everything that asks about backends
(`registry`, `reprise models`, `reprise doctor`) reads these records.
"""

from __future__ import annotations

from dataclasses import dataclass

CLASSICAL = "classical"  # the backend of each role that needs no download
VLLM = "vllm"  # an operator of the graph, which reserves its GPUs itself; no stage loads it
_PRETRAINED_EXTRA = "reprise[pretrained]"


@dataclass(frozen=True)
class Resources:
    """What one worker needs for a model, beside the memory of its weights (see `catalogue`).

    Attributes:
        num_cpus: cores that it keeps busy.
        num_gpus: GPUs that it uses where there are any; a fraction shares one. 0: it never uses one.
        needs_gpu: it does not run without a GPU. Without this, it also runs on a CPU, slowly.
        memory_gb: main memory beside the weights; None: not measured yet.
    """

    num_cpus: float = 1
    num_gpus: float = 0
    needs_gpu: bool = False
    memory_gb: float | None = None


ON_CPU = Resources()
ON_GPU = Resources(num_gpus=1)
ON_GPU_ONLY = Resources(num_gpus=1, needs_gpu=True)


@dataclass(frozen=True)
class Backend:
    """One implementation of a role.

    Attributes:
        role: role that it fills, see `roles`.
        name: its name in the config, unique in its role.
        target: `module:Class` below `curation.models`, imported only where it is used.
        packages: modules that it imports beside the base install.
        checkpoints: names of the catalogue's entries of its role that it loads, its default first.
        base: the catalogue's entry that it loads besides, as a prior needs its base model.
        takes_checkpoint: it is built with a `ModelSpec`, which names a checkpoint; without, with nothing.
        extra: what pip installs to bring `packages`.
        resources: what one worker of it needs.
    """

    role: str
    name: str
    target: str
    packages: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    base: str | None = None
    takes_checkpoint: bool = True
    extra: str = _PRETRAINED_EXTRA
    resources: Resources = ON_GPU

    @property
    def address(self) -> str:
        """`module:Class`, importable."""
        return f"curation.models.{self.target}"


def _make_classical(role: str, target: str) -> Backend:
    return Backend(role, CLASSICAL, f"classical.{target}", takes_checkpoint=False, resources=ON_CPU)


# In the order in which a clip meets the roles. Of a role's backends that load a checkpoint, the profile
# `pretrained` uses the first.
BACKENDS: tuple[Backend, ...] = (
    _make_classical("detector", "detector:ClassicalDetector"),
    Backend(
        "detector", "grounding-dino-hf", "pretrained.grounding_dino_hf:GroundingDinoHF",
        ("torch", "torchvision", "transformers"), ("grounding-dino-tiny",),
    ),
    Backend(
        "detector", "grounding-dino-original", "pretrained.grounding_dino_original:GroundingDinoOriginal",
        ("torch", "torchvision", "transformers", "groundingdino"), ("grounding-dino-swint",),
    ),
    _make_classical("segmenter", "segmenter:ClassicalSegmenter"),
    Backend(
        "segmenter", "sam-original", "pretrained.sam_original:SamOriginal",
        ("torch", "segment_anything"), ("sam-vit-h",),
    ),
    Backend(
        "segmenter", "sam-hf", "pretrained.sam_hf:SamHF", ("torch", "transformers"), ("sam2.1-large",)
    ),
    Backend(
        "tracker", "sam2-video", "pretrained.sam2_video:Sam2Video",
        ("torch", "transformers"), ("sam2.1-large-video",),
    ),
    Backend(
        "scorer", "open-clip", "pretrained.open_clip_scorer:OpenClipScorer",
        ("torch", "open_clip"), ("clip-vit-l-14",),
    ),
    Backend("scorer", "clip-hf", "pretrained.clip_hf:ClipHf", ("torch", "transformers")),
    Backend(
        "embedder", "dinov2", "pretrained.embedders:DinoEmbedder", ("torch", "transformers"), ("dinov2-base",)
    ),
    Backend("embedder", "clip-embedder", "pretrained.embedders:ClipEmbedder", ("torch", "transformers")),
    Backend(
        "embedder", "open-clip-embedder", "pretrained.embedders:OpenClipEmbedder", ("torch", "open_clip")
    ),
    _make_classical("faces", "faces:ClassicalFaces"),
    Backend(
        "faces", "insightface", "pretrained.insightface_faces:InsightFaces",
        ("torch", "insightface", "onnxruntime"), ("antelopev2", "buffalo_l"),
    ),
    Backend("flow", "raft", "pretrained.raft_flow:RaftFlow", ("torch", "torchvision"), ("raft-large",)),
    _make_classical("inpainter", "inpainter:ClassicalInpainter"),
    Backend(
        "inpainter", "flux-fill", "pretrained.flux_fill:FluxFill",
        ("torch", "transformers", "diffusers"), ("flux-fill",),
    ),
    Backend(
        "inpainter", "flux-kontext", "pretrained.flux_kontext:FluxKontext",
        ("torch", "transformers", "diffusers"), ("flux-kontext",),
    ),
    _make_classical("variator", "variator:ClassicalVariator"),
    Backend(
        "variator", "flux-redux", "pretrained.flux_redux:FluxRedux",
        ("torch", "transformers", "diffusers"), ("flux-redux",), base="flux-dev",
    ),
    Backend(
        "captioner", "vlm", "pretrained.vlm_captioner:VlmCaptioner",
        ("torch", "torchvision", "transformers"), ("qwen3-vl-8b", "qwen2.5-vl-7b"),
    ),
    Backend(
        "captioner", VLLM, "pretrained.vllm_captioner:VllmCaptioner",
        ("torch", "vllm", "aiohttp", "transformers"), ("qwen3-vl-8b", "qwen2.5-vl-7b"),
        extra="ray[llm]", resources=ON_GPU_ONLY,
    ),
)  # fmt: skip
ROLES: tuple[str, ...] = tuple(dict.fromkeys(backend.role for backend in BACKENDS))


def list_backends(role: str) -> list[Backend]:
    """The backends of a role; none where there is no such role."""
    return [backend for backend in BACKENDS if backend.role == role]


def find_backend(role: str, name: str) -> Backend | None:
    """The record of a backend; None: it is one of a person's own, or there is none."""
    return next((backend for backend in list_backends(role) if backend.name == name), None)


def find_loaders(role: str, checkpoint: str) -> list[Backend]:
    """The backends of a role that load a catalogue entry, by its name; the one that a profile uses first."""
    return [backend for backend in list_backends(role) if checkpoint in backend.checkpoints]


def is_base(role: str, checkpoint: str) -> bool:
    """Whether a catalogue entry is loaded only as the base of another one."""
    return any(backend.base == checkpoint for backend in list_backends(role))
