"""The backends. One record per backend holds its class, packages, checkpoints and resources.

A new backend is one record in `BACKENDS` and one file that holds its class. `registry`, `reprise models` and
`reprise doctor` read these records.
"""

from __future__ import annotations

from dataclasses import dataclass

CLASSICAL = "classical"  # the backend of each role that needs no download
VLLM = "vllm"  # an operator of the graph, which reserves its GPUs itself; no stage loads it
_PRETRAINED_EXTRA = "reprise[pretrained]"


@dataclass(frozen=True)
class Resources:
    """What one worker needs for a model, besides the memory of its weights (see `catalogue`).

    Attributes:
        num_cpus: cores that it uses.
        num_gpus: GPUs that it uses if there are any; a fraction shares one. 0: it never uses one.
        needs_gpu: true: it does not run without a GPU. False: it also runs on a CPU, slowly.
        memory_gb: main memory besides the weights, GB; None: not measured yet.
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
        packages: modules that it imports and the base install does not bring.
        checkpoints: names of the catalogue's entries of its role that it can load, its default first.
        base: name of the entry that it loads in addition: the base model of a prior.
        takes_checkpoint: true: it is built with a `ModelSpec`, which names a checkpoint. False: it is built
            without arguments.
        extra: requirement that pip installs to bring `packages`.
        resources: what one worker needs.
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


# In the order in which the stages use the roles. The profile `pretrained` uses the first backend of a role
# that loads a checkpoint.
BACKENDS: tuple[Backend, ...] = (
    _make_classical("detector", "detector:ClassicalDetector"),
    Backend(
        "detector", "grounding-dino-hf", "pretrained.grounding_dino_hf:GroundingDinoHF",
        ("torch", "torchvision", "transformers"), ("grounding-dino-tiny", "grounding-dino-base"),
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
        "segmenter", "sam-hf", "pretrained.sam_hf:SamHF", ("torch", "transformers"),
        ("sam2.1-large", "sam2.1-base-plus", "sam2.1-tiny"),
    ),
    Backend(
        "tracker", "sam2-video", "pretrained.sam2_video:Sam2Video",
        ("torch", "transformers"),
        ("sam2.1-large-video", "sam2.1-base-plus-video", "sam2.1-tiny-video"),
    ),
    Backend(
        "scorer", "open-clip", "pretrained.open_clip_scorer:OpenClipScorer",
        ("torch", "open_clip"), ("clip-vit-l-14", "clip-vit-b-32"),
    ),
    Backend("scorer", "clip-hf", "pretrained.clip_hf:ClipHf", ("torch", "transformers")),
    Backend(
        "embedder", "dinov2", "pretrained.embedders:DinoEmbedder", ("torch", "transformers"),
        ("dinov2-base", "dinov2-small"),
    ),
    Backend("embedder", "clip-embedder", "pretrained.embedders:ClipEmbedder", ("torch", "transformers")),
    Backend(
        "embedder", "open-clip-embedder", "pretrained.embedders:OpenClipEmbedder", ("torch", "open_clip")
    ),
    _make_classical("faces", "faces:ClassicalFaces"),
    Backend(
        "faces", "insightface", "pretrained.insightface_faces:InsightFaces",
        ("torch", "insightface", "onnxruntime"), ("antelopev2", "buffalo_l", "buffalo_s"),
    ),
    Backend(
        "flow", "raft", "pretrained.raft_flow:RaftFlow", ("torch", "torchvision"),
        ("raft-large", "raft-small"),
    ),
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
        ("torch", "torchvision", "transformers"), ("qwen3-vl-8b", "qwen3-vl-2b", "qwen2.5-vl-7b"),
    ),
    Backend(
        "captioner", VLLM, "pretrained.vllm_captioner:VllmCaptioner",
        ("torch", "vllm", "aiohttp", "transformers"), ("qwen3-vl-8b", "qwen3-vl-2b", "qwen2.5-vl-7b"),
        extra="ray[llm]", resources=ON_GPU_ONLY,
    ),
)  # fmt: skip
ROLES: tuple[str, ...] = tuple(dict.fromkeys(backend.role for backend in BACKENDS))


def list_backends(role: str) -> list[Backend]:
    """List the backends of a role; []: there is no such role."""
    return [backend for backend in BACKENDS if backend.role == role]


def find_backend(role: str, name: str) -> Backend | None:
    """Find the record of a backend; None: it is a user's own class, or it does not exist."""
    return next((backend for backend in list_backends(role) if backend.name == name), None)


def find_loaders(role: str, checkpoint: str) -> list[Backend]:
    """List the backends of a role that load a catalogue entry, given by its name.

    A profile uses the first.
    """
    return [backend for backend in list_backends(role) if checkpoint in backend.checkpoints]


def is_base(role: str, checkpoint: str) -> bool:
    """Return whether a catalogue entry is loaded only as the base of another one."""
    return any(backend.base == checkpoint for backend in list_backends(role))
