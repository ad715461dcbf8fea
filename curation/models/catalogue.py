"""The published checkpoints of each profile: where they are, under which licence, how large.

Facts were looked up in public records (model cards, release pages, lock files of public projects); what could
not be confirmed is None and shown as unknown. Sizes are published byte counts, or parameters times bytes per
parameter. A revision here is the commit that `reprise models pull` fetches unless told otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from curation.models.spec import ModelSpec

_FLUX_LICENCE = "FLUX.1 [dev] Non-Commercial License"
_FACE_LICENCE = "InsightFace: non-commercial research only"
_FACE_PACKS_URL = "https://github.com/deepinsight/insightface/releases/download/v0.7"
_FLUX_FILES = (
    # The same weights also lie at the top of these repositories in one file, which diffusers does not read.
    "model_index.json", "scheduler/*", "text_encoder/*", "text_encoder_2/*", "tokenizer/*", "tokenizer_2/*",
    "transformer/*", "vae/*",
)  # fmt: skip


@dataclass(frozen=True)
class PublishedCheckpoint:
    """One published checkpoint.

    `name`: unique in its role. `backend`: what loads it; None: nothing alone, it is part of another one.
    `files`: patterns of the hub repository that are needed; (): all of it. `sha256`: of a single file or zip.
    `commercial`: whether its licence allows commercial use; None: unknown. `gated`: the hub asks for an
    account that accepted the licence. `default`: what its role uses in the profile by default.
    """

    role: str
    name: str
    backend: str | None
    source: str
    licence: str | None
    commercial: bool | None
    gigabytes: float | None
    revision: str | None = None
    files: tuple[str, ...] = ()
    sha256: str | None = None
    gated: bool = False
    default: bool = False
    note: str = ""


PRETRAINED: tuple[PublishedCheckpoint, ...] = (
    PublishedCheckpoint(
        "detector", "grounding-dino-swint", "grounding-dino-original", "ShilongLiu/GroundingDINO",
        "Apache-2.0", True, 0.69,
        revision="a94c9b567a2a374598f05c584e96798a170c56fb",
        files=("groundingdino_swint_ogc.pth", "GroundingDINO_SwinT_OGC.cfg.py"),
        default=True,
        note="SwinT-OGC; wants config and tokenizer of google-bert/bert-base-uncased (options.text_encoder)",
    ),
    PublishedCheckpoint(
        "detector", "grounding-dino-tiny", "grounding-dino-hf", "IDEA-Research/grounding-dino-tiny",
        "Apache-2.0", True, 0.69,
        revision="a2bb814dd30d776dcf7e30523b00659f4f141c71", note="the same SwinT for transformers",
    ),
    PublishedCheckpoint(
        "segmenter", "sam-vit-h", "sam-original",
        "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth", "Apache-2.0", True, 2.56,
        default=True, note="ViT-H",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    PublishedCheckpoint(
        "segmenter", "sam2.1-large", "sam-hf", "facebook/sam2.1-hiera-large", "Apache-2.0", True, 0.9,
        revision="665f8e2ad61cf5f53d65644ff27c8ee525124610",
        files=("*.json", "*.safetensors"), note="the same checkpoint as the tracker's",
    ),
    PublishedCheckpoint(
        "tracker", "sam2.1-large-video", "sam2-video", "facebook/sam2.1-hiera-large", "Apache-2.0", True, 0.9,
        revision="665f8e2ad61cf5f53d65644ff27c8ee525124610",
        files=("*.json", "*.safetensors"), default=True, note="follows subjects through a clip",
    ),
    PublishedCheckpoint(
        "scorer", "clip-vit-l-14", "open-clip", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "MIT", True, 1.7,
        revision="1627032197142fbe2a7cfec626f4ced3ae60d07a",
        files=("open_clip_config.json", "open_clip_pytorch_model.safetensors", "*.txt", "tokenizer*.json",
               "vocab.json", "special_tokens_map.json"),
        default=True, note="ViT-L/14",
    ),
    PublishedCheckpoint(
        "faces", "antelopev2", "insightface", f"{_FACE_PACKS_URL}/antelopev2.zip", _FACE_LICENCE,
        False, 0.36, default=True,
        sha256="8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
        note="the code is MIT, the published packs are not",
    ),
    PublishedCheckpoint(
        "faces", "buffalo_l", "insightface", f"{_FACE_PACKS_URL}/buffalo_l.zip", _FACE_LICENCE, False, 0.29,
        sha256="80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
        note="the code is MIT, the published packs are not",
    ),
    PublishedCheckpoint(
        "flow", "raft-large", "raft",
        "https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth", None, None, 0.02,
        default=True, note="of torchvision (code: BSD-3-Clause); no licence is stated for the weights",
    ),
    PublishedCheckpoint(
        "inpainter", "flux-fill", "flux-fill", "black-forest-labs/FLUX.1-Fill-dev", _FLUX_LICENCE, False, 34,
        revision="358293da0354175698b67ec8299acf928313a78a", files=_FLUX_FILES, gated=True, default=True,
    ),
    PublishedCheckpoint(
        "inpainter", "flux-kontext", "flux-kontext", "black-forest-labs/FLUX.1-Kontext-dev", _FLUX_LICENCE,
        False, 34,
        revision="af58063aa431f4d2bbc11ae46f57451d4416a170", files=_FLUX_FILES, gated=True,
    ),
    PublishedCheckpoint(
        "variator", "flux-redux", "flux-redux", "black-forest-labs/FLUX.1-Redux-dev", _FLUX_LICENCE,
        False, 1.0,
        revision="1282f955f706b5240161278f2ef261d2a29ad649",
        files=("model_index.json", "feature_extractor/*", "image_embedder/*", "image_encoder/*"),
        gated=True, default=True, note="the prior; needs its base, FLUX.1-dev",
    ),
    PublishedCheckpoint(
        "variator", "flux-dev", None, "black-forest-labs/FLUX.1-dev", _FLUX_LICENCE, False, 34,
        revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21", files=_FLUX_FILES, gated=True, default=True,
        note="the base of flux-redux",
    ),
    PublishedCheckpoint(
        "captioner", "qwen3-vl-8b", "vlm", "Qwen/Qwen3-VL-8B-Instruct", "Apache-2.0", True, 17.5,
        revision="0c351dd01ed87e9c1b53cbc748cba10e6187ff3b", default=True,
    ),
    PublishedCheckpoint(
        "captioner", "qwen2.5-vl-7b", "vlm", "Qwen/Qwen2.5-VL-7B-Instruct", "Apache-2.0", True, 16.6,
        revision="cc594898137f460bfe9f0759e9844b3ce807cfb5",
    ),
    PublishedCheckpoint(
        "embedder", "dinov2-base", "dinov2", "facebook/dinov2-base", "Apache-2.0", True, 0.35,
        revision="f9e44c814b77203eaa57a6bdbbd535f21ede1415",
        files=("*.json", "*.safetensors"), default=True, note="ViT-B/14",
    ),
)  # fmt: skip
PROFILES: dict[str, tuple[PublishedCheckpoint, ...]] = {"pretrained": PRETRAINED}


def list_published(
    profile: str = "pretrained", role: str | None = None, name: str | None = None
) -> list[PublishedCheckpoint]:
    """The entries of a profile, of one role of it, or of one name."""
    return [entry for entry in PROFILES[profile] if role in (None, entry.role) and name in (None, entry.name)]


def find_published(source: str) -> PublishedCheckpoint | None:
    """The entry of an address, if it is a published checkpoint that is known here."""
    known = [entry for found in PROFILES.values() for entry in found if entry.source == source]
    return min(known, key=lambda entry: not entry.default, default=None)


def get_base_spec(prior: ModelSpec) -> ModelSpec:
    """The spec of the base that a prior of FLUX paints with: its options `base` and `base_revision`."""
    wanted = {
        "checkpoint": prior.options.get("base") or "black-forest-labs/FLUX.1-dev",
        "revision": prior.options.get("base_revision"),
    }
    return prior.model_copy(update=wanted)


def build_spec(entry: PublishedCheckpoint) -> ModelSpec:
    """The model spec that loads an entry with its backend's defaults."""
    return ModelSpec(backend=entry.backend or entry.name, checkpoint=entry.source, revision=entry.revision)
