"""Score how well texts fit pictures with open_clip.

`checkpoint` is a folder with open_clip_config.json (a hub id that was pulled, or `local-dir:PATH`), or one
weight file with its architecture in the option `model` (for example ViT-L-14).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from curation.imaging.codec import RGB
from curation.model_spec import ModelSpec
from curation.models.checkpoints import resolve_checkpoint
from curation.models.pretrained.contrastive import (
    F32,
    Scorer,
    TextCache,
    check_fit,
    get_fill_colour,
    normalize_rows,
    pad_to_square,
)
from curation.models.pretrained.device import BatchRunner, choose_target
from curation.models.pretrained.loading import explain_loading_errors, has_tokenizer, read_options
from reprise.errors import RepriseError

_CONFIG_FILE = "open_clip_config.json"


class OpenClipScorer(Scorer):
    """roles.ImageTextScorer, for CLIP and SigLIP weights of open_clip.

    Options: `model`, the architecture of a single weight file; `fit`, "pad" (the whole picture on a square of
    the mean colour) or "crop" (the checkpoint's own preprocessing, a centre crop).
    """

    name = "open-clip"

    def __init__(self, spec: ModelSpec) -> None:
        """Load the checkpoint, a folder or a file as the module describes.

        Raises:
            RepriseError: it is not here, damaged, of another model, or needs the network.
        """
        import open_clip

        given = read_options(spec, model=None, fit="pad")
        check_fit(spec, given["fit"])
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        self._target = choose_target(spec)
        name, weights = _resolve_model_name(checkpoint.path, given["model"], open_clip.list_models())
        with explain_loading_errors(checkpoint, "an open_clip model"):
            model, self._preprocess = open_clip.create_model_from_pretrained(
                name, pretrained=weights, device=str(self._target.device)
            )
            self._tokenize = open_clip.get_tokenizer(name)
        self._model: Any = model.eval()
        self._scale = float(self._model.logit_scale.detach().exp())
        self._fill = get_fill_colour(self._model.visual, given["fit"])
        self._batches = BatchRunner(spec.batch_size)
        self._texts = TextCache(self._encode_texts)

    def _encode_images(self, images: Sequence[RGB]) -> list[F32]:
        shown = images if self._fill is None else [pad_to_square(image, self._fill) for image in images]
        pixels = torch.stack([self._preprocess(Image.fromarray(image)) for image in shown])
        with self._target.enter_autocast():
            vectors = self._model.encode_image(pixels.to(self._target.device))
        return list(np.asarray(vectors.float().cpu().numpy(), np.float32))

    def _encode_texts(self, texts: Sequence[str]) -> F32:
        def encode_batch(batch: Sequence[str]) -> list[F32]:
            with self._target.enter_autocast():
                vectors = self._model.encode_text(self._tokenize(list(batch)).to(self._target.device))
            return list(np.asarray(vectors.float().cpu().numpy(), np.float32))

        return normalize_rows(np.stack(self._batches(texts, encode_batch)))


def _resolve_model_name(path: Path, model: str | None, known: Sequence[str]) -> tuple[str, str | None]:
    """Return open_clip's (model name, pretrained) for a checkpoint.

    Raises:
        RepriseError: a file has no architecture, a folder has no config, or the config's text encoder is on
            the hub, from which open_clip would fetch it.
    """
    if path.is_file():
        if model is None:
            raise RepriseError(
                f"{path} is a single weight file: set its architecture in options.model, for example ViT-L-14"
            )
        if model not in known:
            raise RepriseError(f"models: open-clip has no architecture {model}; use for example ViT-L-14")
        return model, str(path)
    try:
        config = json.loads((path / _CONFIG_FILE).read_text(encoding="utf-8"))["model_cfg"]
        text = dict(config.get("text_cfg", {}))
    except FileNotFoundError as error:
        raise RepriseError(f"{path} holds no {_CONFIG_FILE}, so it is no checkpoint of open_clip") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RepriseError(f"{path / _CONFIG_FILE} is unreadable or lacks model_cfg") from error
    elsewhere = text.get("hf_model_name")
    if elsewhere and not Path(elsewhere).is_dir():
        # open_clip would fetch its config from the hub.
        raise RepriseError(f"{path} loads its text encoder {elsewhere} from the hub, but runs never download")
    if text.get("hf_tokenizer_name") and not has_tokenizer(path):
        # open_clip reads it from this folder. Without its files transformers builds an empty one.
        raise RepriseError(f"{path} has no tokenizer, which its {_CONFIG_FILE} names: fetch it again")
    return f"local-dir:{path}", None
