"""The published checkpoints: their addresses, licences and sizes.

`backends` lists the backends that load them.

The facts come from public records (model cards, release pages, lock files of public projects). A fact that no
record confirms is None and is shown as unknown. A size is the published byte count, or the number of
parameters times the bytes per parameter. A revision is the commit that `reprise models pull` fetches by
default.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from curation.model_spec import ModelSpec
from curation.models.backends import Backend, find_loaders

_FLUX_LICENCE = "FLUX.1 [dev] Non-Commercial License"
_FACE_LICENCE = "InsightFace: non-commercial research only"
_FACE_PACKS_URL = "https://github.com/deepinsight/insightface/releases/download/v0.7"
_FLUX_FILES = (
    # These repositories also hold the same weights in one file at the top, which diffusers does not read.
    "model_index.json", "scheduler/*", "text_encoder/*", "text_encoder_2/*", "tokenizer/*", "tokenizer_2/*",
    "transformer/*", "vae/*",
)  # fmt: skip
_HF_FILES = ("*.json", "*.safetensors")  # what transformers reads; the repositories hold older formats, too
# `models.size` of the profile `pretrained` -> what it is for.
SIZES: Final[dict[str, str]] = {
    "small": "for the CPU of a laptop",
    "base": "for one GPU",
    "large": "the models of the papers, for large GPUs",
}
DEFAULT_SIZE: Final = "large"


@dataclass(frozen=True)
class PublishedCheckpoint:
    """One published checkpoint.

    Attributes:
        role: role of the model.
        name: its name in `reprise models`, unique in its role.
        source: hub id or https address.
        licence: of the weights; None: unknown.
        commercial: whether the licence allows commercial use; None: unknown.
        weight_bytes: size of the files that are fetched, rounded where only a rounded size is published;
            None: unknown.
        revision: commit of the hub repository.
        files: patterns of the files that are needed; (): all files of the repository.
        sha256: of a single file or zip.
        gated: the hub requires an account that accepted the licence.
        sizes: the sizes of the profile that use it, of `SIZES`; (): an alternative.
        note: one remark for the list.
    """

    role: str
    name: str
    source: str
    licence: str | None
    commercial: bool | None
    weight_bytes: int | None
    revision: str | None = None
    files: tuple[str, ...] = ()
    sha256: str | None = None
    gated: bool = False
    sizes: tuple[str, ...] = ()
    note: str = ""

    @property
    def is_default(self) -> bool:
        """Whether the profile uses it where the config names no size."""
        return DEFAULT_SIZE in self.sizes

    @property
    def gigabytes(self) -> float | None:
        """`weight_bytes` in GB, three digits; None: unknown."""
        return None if self.weight_bytes is None else float(f"{self.weight_bytes / 1e9:.3g}")


PRETRAINED: tuple[PublishedCheckpoint, ...] = (
    PublishedCheckpoint(
        "detector", "grounding-dino-swint", "ShilongLiu/GroundingDINO",
        "Apache-2.0", True, 690_000_000,
        revision="a94c9b567a2a374598f05c584e96798a170c56fb",
        files=("groundingdino_swint_ogc.pth", "GroundingDINO_SwinT_OGC.cfg.py"),
        sizes=("large",),
        note="SwinT-OGC; needs config and tokenizer of google-bert/bert-base-uncased (options.text_encoder)",
    ),
    PublishedCheckpoint(
        "detector", "grounding-dino-tiny", "IDEA-Research/grounding-dino-tiny",
        "Apache-2.0", True, 689_359_096,
        revision="a2bb814dd30d776dcf7e30523b00659f4f141c71", files=(*_HF_FILES, "vocab.txt"),
        sizes=("small",), note="the same SwinT for transformers",
    ),
    PublishedCheckpoint(
        "detector", "grounding-dino-base", "IDEA-Research/grounding-dino-base",
        "Apache-2.0", True, 933_400_872,
        revision="12bdfa3120f3e7ec7b434d90674b3396eccf88eb", files=(*_HF_FILES, "vocab.txt"),
        sizes=("base",), note="SwinB for transformers",
    ),
    PublishedCheckpoint(
        "segmenter", "sam-vit-h",
        "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
        "Apache-2.0", True, 2_564_550_879,
        sizes=("large",), note="ViT-H",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    PublishedCheckpoint(
        "segmenter", "sam2.1-large", "facebook/sam2.1-hiera-large", "Apache-2.0", True, 900_000_000,
        revision="665f8e2ad61cf5f53d65644ff27c8ee525124610",
        files=_HF_FILES, note="the same checkpoint as the tracker's",
    ),
    PublishedCheckpoint(
        "segmenter", "sam2.1-tiny", "facebook/sam2.1-hiera-tiny", "Apache-2.0", True, 155_908_064,
        revision="de431c4043854a71d8101e17995dfe596bf101a5", files=_HF_FILES, sizes=("small",),
        note="the same checkpoint as the tracker's",
    ),
    PublishedCheckpoint(
        "segmenter", "sam2.1-base-plus", "facebook/sam2.1-hiera-base-plus",
        "Apache-2.0", True, 323_476_296,
        revision="b7320756a13354e7530a63935656d35b2f91a290", files=_HF_FILES, sizes=("base",),
        note="the same checkpoint as the tracker's",
    ),
    PublishedCheckpoint(
        "tracker", "sam2.1-large-video", "facebook/sam2.1-hiera-large", "Apache-2.0", True, 900_000_000,
        revision="665f8e2ad61cf5f53d65644ff27c8ee525124610",
        files=_HF_FILES, sizes=("large",), note="follows subjects through a clip",
    ),
    PublishedCheckpoint(
        "tracker", "sam2.1-tiny-video", "facebook/sam2.1-hiera-tiny", "Apache-2.0", True, 155_908_064,
        revision="de431c4043854a71d8101e17995dfe596bf101a5", files=_HF_FILES, sizes=("small",),
        note="follows subjects through a clip",
    ),
    PublishedCheckpoint(
        "tracker", "sam2.1-base-plus-video", "facebook/sam2.1-hiera-base-plus",
        "Apache-2.0", True, 323_476_296,
        revision="b7320756a13354e7530a63935656d35b2f91a290", files=_HF_FILES, sizes=("base",),
        note="follows subjects through a clip",
    ),
    PublishedCheckpoint(
        "scorer", "clip-vit-b-32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "MIT", True, 605_143_316,
        revision="1a25a446712ba5ee05982a381eed697ef9b435cf",
        files=("open_clip_config.json", "open_clip_model.safetensors", "*.txt", "tokenizer*.json",
               "vocab.json", "special_tokens_map.json"),
        sizes=("small",), note="ViT-B/32",
    ),
    PublishedCheckpoint(
        "scorer", "clip-vit-l-14", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "MIT", True, 1_700_000_000,
        revision="1627032197142fbe2a7cfec626f4ced3ae60d07a",
        files=("open_clip_config.json", "open_clip_pytorch_model.safetensors", "*.txt", "tokenizer*.json",
               "vocab.json", "special_tokens_map.json"),
        sizes=("base", "large"), note="ViT-L/14",
    ),
    PublishedCheckpoint(
        "faces", "antelopev2", f"{_FACE_PACKS_URL}/antelopev2.zip", _FACE_LICENCE,
        False, 360_000_000, sizes=("large",),
        sha256="8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
        note="the code is MIT, the published packs are not",
    ),
    PublishedCheckpoint(
        "faces", "buffalo_l", f"{_FACE_PACKS_URL}/buffalo_l.zip", _FACE_LICENCE, False, 290_000_000,
        sizes=("base",),
        sha256="80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
        note="the code is MIT, the published packs are not",
    ),
    PublishedCheckpoint(
        "faces", "buffalo_s", f"{_FACE_PACKS_URL}/buffalo_s.zip", _FACE_LICENCE, False, 127_607_557,
        sha256="d85a87f503f691807cd8bb97128bdf7a0660326cd9cd02657127fa978bab8b5e",
        sizes=("small",), note="the code is MIT, the published packs are not",
    ),
    PublishedCheckpoint(
        "flow", "raft-small",
        "https://download.pytorch.org/models/raft_small_C_T_V2-01064c6d.pth", None, None, 4_000_000,
        sizes=("small",), note="of torchvision (code: BSD-3-Clause); no licence is stated for the weights",
    ),
    PublishedCheckpoint(
        "flow", "raft-large",
        "https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth", None, None, 21_000_000,
        sizes=("base", "large"),
        note="of torchvision (code: BSD-3-Clause); no licence is stated for the weights",
    ),
    PublishedCheckpoint(
        "inpainter", "flux-fill", "black-forest-labs/FLUX.1-Fill-dev", _FLUX_LICENCE, False, 34_000_000_000,
        revision="358293da0354175698b67ec8299acf928313a78a", files=_FLUX_FILES, gated=True, sizes=("large",),
    ),
    PublishedCheckpoint(
        "inpainter", "flux-kontext", "black-forest-labs/FLUX.1-Kontext-dev", _FLUX_LICENCE,
        False, 34_000_000_000,
        revision="af58063aa431f4d2bbc11ae46f57451d4416a170", files=_FLUX_FILES, gated=True,
    ),
    PublishedCheckpoint(
        "variator", "flux-redux", "black-forest-labs/FLUX.1-Redux-dev", _FLUX_LICENCE,
        False, 1_000_000_000,
        revision="1282f955f706b5240161278f2ef261d2a29ad649",
        files=("model_index.json", "feature_extractor/*", "image_embedder/*", "image_encoder/*"),
        gated=True, sizes=("large",), note="the prior; needs its base, FLUX.1-dev",
    ),
    PublishedCheckpoint(
        "variator", "flux-dev", "black-forest-labs/FLUX.1-dev", _FLUX_LICENCE, False, 34_000_000_000,
        revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21", files=_FLUX_FILES, gated=True, sizes=("large",),
        note="the base of flux-redux",
    ),
    PublishedCheckpoint(
        "captioner", "qwen3-vl-8b", "Qwen/Qwen3-VL-8B-Instruct", "Apache-2.0", True, 17_500_000_000,
        revision="0c351dd01ed87e9c1b53cbc748cba10e6187ff3b", sizes=("large",),
    ),
    PublishedCheckpoint(
        "captioner", "qwen3-vl-2b", "Qwen/Qwen3-VL-2B-Instruct", "Apache-2.0", True, 4_300_000_000,
        revision="89644892e4d85e24eaac8bacfd4f463576704203", sizes=("base",),
    ),
    PublishedCheckpoint(
        "captioner", "qwen2.5-vl-7b", "Qwen/Qwen2.5-VL-7B-Instruct", "Apache-2.0", True, 16_600_000_000,
        revision="cc594898137f460bfe9f0759e9844b3ce807cfb5",
    ),
    PublishedCheckpoint(
        "embedder", "dinov2-small", "facebook/dinov2-small", "Apache-2.0", True, 88_249_960,
        revision="ed25f3a31f01632728cabb09d1542f84ab7b0056", files=_HF_FILES, sizes=("small",),
        note="ViT-S/14",
    ),
    PublishedCheckpoint(
        "embedder", "dinov2-base", "facebook/dinov2-base", "Apache-2.0", True, 350_000_000,
        revision="f9e44c814b77203eaa57a6bdbbd535f21ede1415",
        files=_HF_FILES, sizes=("base", "large"), note="ViT-B/14",
    ),
)  # fmt: skip
# Profile -> the published checkpoints that it can use.
PUBLISHED: dict[str, tuple[PublishedCheckpoint, ...]] = {"pretrained": PRETRAINED}


def list_published(
    profile: str = "pretrained", role: str | None = None, name: str | None = None, size: str | None = None
) -> list[PublishedCheckpoint]:
    """List the entries of a profile: all, or those of one role, one name, one size of `SIZES`."""
    return [
        entry
        for entry in PUBLISHED[profile]
        if role in (None, entry.role) and name in (None, entry.name) and (size is None or size in entry.sizes)
    ]


def find_published(source: str) -> PublishedCheckpoint | None:
    """Find the entry of an address, a default entry first; None: it is not in the catalogue."""
    known = [entry for entries in PUBLISHED.values() for entry in entries if entry.source == source]
    return min(known, key=lambda entry: not entry.is_default, default=None)


def sum_weight_bytes(entries: Iterable[PublishedCheckpoint]) -> int:
    """Sum what a download of entries takes, bytes: each address once, an unknown size as 0."""
    sizes = {entry.source: entry.weight_bytes or 0 for entry in entries}
    return sum(sizes.values())


def build_spec(entry: PublishedCheckpoint) -> ModelSpec:
    """Build the spec that loads an entry with the settings that its backend has by default."""
    loaders = find_loaders(entry.role, entry.name)
    backend = loaders[0].name if loaders else entry.name
    return ModelSpec(backend=backend, checkpoint=entry.source, revision=entry.revision)


def find_default_spec(backend: Backend, size: str | None = None) -> ModelSpec | None:
    """Find the spec of the checkpoint that a backend loads by default, of one size if it has one of it.

    Returns:
        None: the catalogue has none.
    """
    known = [entry for name in backend.checkpoints for entry in list_published(role=backend.role, name=name)]
    for entry in sorted(known, key=lambda entry: size not in entry.sizes):
        return ModelSpec(backend=backend.name, checkpoint=entry.source, revision=entry.revision)
    return None


def build_base_spec(backend: Backend, spec: ModelSpec) -> ModelSpec | None:
    """Build the spec of the base model that a prior needs: its options `base` and `base_revision`.

    Returns:
        None: the backend needs no base.
    """
    if backend.base is None:
        return None
    base = spec.options.get("base") or list_published(role=backend.role, name=backend.base)[0].source
    return spec.model_copy(update={"checkpoint": base, "revision": spec.options.get("base_revision")})
