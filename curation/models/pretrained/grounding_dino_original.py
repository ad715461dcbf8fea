"""Grounding DINO by groundingdino-py: a `.pth` and the config `.py` that its authors publish with it."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import groundingdino
import torch
from groundingdino.datasets.transforms import resize
from groundingdino.models import build_model
from groundingdino.models.GroundingDINO import groundingdino as _library
from groundingdino.models.GroundingDINO import transformer as _transformer
from groundingdino.models.GroundingDINO.backbone import backbone as _backbone
from groundingdino.models.GroundingDINO.utils import get_sine_pos_embed
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as transforms
from transformers import AutoConfig, AutoTokenizer, BatchEncoding, BertModel

from curation.imaging.codec import RGB
from curation.model_spec import ModelSpec
from curation.models.checkpoints import Checkpoint, locate_checkpoint, resolve_checkpoint
from curation.models.pretrained import pth
from curation.models.pretrained.compat_bert import BertTextEncoder
from curation.models.pretrained.device import BatchRunner, choose_target
from curation.models.pretrained.loading import explain_loading_errors, read_options
from curation.models.pretrained.phrases import (
    DetectionRules,
    Prompt,
    PromptPacker,
    detect_scenes,
    pad_prompts,
)
from curation.models.roles import Detection, DetectionScene, Phrase
from reprise.errors import RepriseError

_MODEL_LABEL = "Grounding DINO (groundingdino-py)"
# Keys of the published files that the model does not have: training's label embedding, and computed buffers.
_IGNORED_WEIGHTS = (r"label_enc\.weight", r"bert\.embeddings\.position_ids", r".*relative_position_index")
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's, as in the library's `load_image`


class GroundingDinoOriginal:
    """roles.Detector.

    The checkpoint is a `.pth`, or a folder with one. Options, besides those of `phrases.DetectionRules`:
        config: path of the config, or the name of one that the library ships; by default the only `.py`
            beside the `.pth`.
        text_encoder: folder or hub id with BERT's `config.json` and tokenizer; by default the config's
            `text_encoder_type`: a folder beside the `.pth`, or a hub id that was fetched before. BERT's
            weights are in the `.pth`.
        short_side, long_side: size to which a picture is scaled, px; 800 and at most 1333 in the library.

    Raises:
        RepriseError: a file is missing, incomplete, or of another model.
    """

    name = "grounding-dino-original"

    def __init__(self, spec: ModelSpec) -> None:
        defaults = vars(DetectionRules()) | {
            "config": None,
            "text_encoder": None,
            "short_side": 800,
            "long_side": 1333,
        }
        chosen = read_options(spec, **defaults)
        self._sides: tuple[int, int] = chosen.pop("short_side"), chosen.pop("long_side")
        config, text_encoder = chosen.pop("config"), chosen.pop("text_encoder")
        self._rules = DetectionRules(**chosen)
        self._target = choose_target(spec)
        self._batches = BatchRunner(spec.batch_size)
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        weights = pth.find_single_file(checkpoint.path, ".pth", _MODEL_LABEL)
        settings = read_original_config(_find_config(config, weights.parent))
        text = _find_text_encoder(text_encoder, settings, weights.parent)
        with explain_loading_errors(checkpoint, _MODEL_LABEL):
            tokenizer = AutoTokenizer.from_pretrained(text, local_files_only=True)
        self._prompter = PromptPacker(tokenizer)
        self._model = build_dino_model(settings, text, checkpoint).to(self._target.device)
        pth.load_weights(
            self._model,
            pth.read_weights(weights, checkpoint, _MODEL_LABEL),
            weights,
            _MODEL_LABEL,
            _IGNORED_WEIGHTS,
        )

    def detect(
        self, scenes: Sequence[DetectionScene], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[Detection]]:
        """Find boxes of the phrases in each scene, xyxy in pixels of its image, the best first."""
        return detect_scenes(scenes, phrases, self._prompter, self._batches, self._run_model, self._rules)

    def _run_model(self, images: Sequence[RGB], prompts: Sequence[Prompt]) -> list[tuple[Tensor, Tensor]]:
        """Return logits (queries, tokens) and boxes (queries, 4), centre and size in shares, per picture.

        All pictures have one size.
        """
        inputs = torch.stack([normalize_image(image, *self._sides) for image in images]).to(
            self._target.device
        )
        with self._target.enter_autocast():
            out = run_dino_model(self._model, inputs, prompts)
        logits, boxes = out["pred_logits"].float().cpu(), out["pred_boxes"].float().cpu()
        return list(zip(logits, boxes, strict=True))


def read_original_config(path: Path) -> SimpleNamespace:
    """Read the library's config, a Python file of plain `name = value` lines, without running it.

    Raises:
        RepriseError: it cannot be read, or holds other statements.
    """
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
        raise RepriseError(f"cannot read the config {path} of {_MODEL_LABEL}: {error}") from error
    values: dict[str, Any] = {}
    for line in body:
        try:
            if not (isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)):
                raise ValueError
            values[line.targets[0].id] = ast.literal_eval(line.value)
        except ValueError as error:
            raise RepriseError(
                f"{path}, line {line.lineno}: only name = value, with a plain value"
            ) from error
    if values.get("modelname") != "groundingdino":
        raise RepriseError(f"{path} configures {values.get('modelname', 'no model')}, not {_MODEL_LABEL}")
    return SimpleNamespace(**values)


def build_dino_model(settings: SimpleNamespace, text: Path, checkpoint: Checkpoint) -> nn.Module:
    """Build the library's model with random weights, for inference.

    Args:
        settings: the library's config. The key `swin` is ours: a dict of the sizes of the backbone's Swin,
            because the library has only T, B and L.
        text: folder of BERT's `config.json`.
        checkpoint: of the model, for errors.
    """
    # Activation checkpointing saves memory in training, but costs time in inference.
    settings = SimpleNamespace(**{**vars(settings), "use_checkpoint": False, "use_transformer_ckpt": False})
    with explain_loading_errors(checkpoint, _MODEL_LABEL), _patch_library(settings, text):
        model: nn.Module = build_model(settings)
    model.tokenizer = _PackedPrompts()
    return model.eval()


def run_dino_model(model: nn.Module, images: Tensor, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    """Return `pred_logits` (pictures, queries, 256) and `pred_boxes` (pictures, queries, 4)."""
    with _patch_sines(model.hidden_dim):
        out: dict[str, Tensor] = model(images, captions=list(prompts))
    return out


def normalize_image(image: RGB, short_side: int, long_side: int) -> Tensor:
    """Scale and normalise (H, W, 3) uint8 to (3, h, w) float32, as the library's `load_image` does."""
    scaled, _ = resize(Image.fromarray(image), None, short_side, long_side)
    tensor: Tensor = transforms.normalize(transforms.to_tensor(scaled), _MEAN, _STD)
    return tensor


class _PackedPrompts:
    """Replaces the model's tokenizer, because prompts are tokenised already, see `phrases.PromptPacker`."""

    def __call__(self, prompts: Sequence[Prompt], **_: object) -> BatchEncoding:
        return BatchEncoding(pad_prompts(prompts, torch.device("cpu")))


@contextlib.contextmanager
def _patch_library(settings: SimpleNamespace, text: Path) -> Iterator[None]:
    """Patch the library while a model is built: our text encoder, no other weights, Swin in any size."""
    loader = SimpleNamespace(
        get_tokenlizer=lambda _: AutoTokenizer.from_pretrained(text, local_files_only=True),
        get_pretrained_language_model=lambda _: BertModel(
            AutoConfig.from_pretrained(text, local_files_only=True)
        ),
    )
    swin = partial(_backbone.build_swin_transformer, **getattr(settings, "swin", {}))
    with (
        mock.patch.object(_library, "BertModelWarper", BertTextEncoder),
        mock.patch.object(_library, "get_tokenlizer", loader),
        mock.patch.object(_backbone, "build_swin_transformer", swin),
    ):
        yield


@contextlib.contextmanager
def _patch_sines(width: int) -> Iterator[None]:
    """Patch the library while a model runs: position sines as wide as the model instead of 256."""

    def embed_words(positions: Tensor, num_pos_feats: int, **given: Any) -> Tensor:
        return get_sine_pos_embed(positions, num_pos_feats=width, **given)

    embed_boxes = partial(get_sine_pos_embed, num_pos_feats=width // 2)
    with (
        mock.patch.object(_transformer, "get_sine_pos_embed", embed_words),
        mock.patch.object(_transformer, "gen_sineembed_for_position", embed_boxes),
    ):
        yield


def _find_config(chosen: str | None, folder: Path) -> Path:
    if chosen is None:
        return pth.find_single_file(folder, ".py", f"{_MODEL_LABEL} (or the option config)")
    shipped = Path(groundingdino.__file__).parent / "config" / chosen
    return shipped if shipped.is_file() else Path(chosen).expanduser()


def _find_text_encoder(chosen: str | None, settings: SimpleNamespace, folder: Path) -> Path:
    """Find the folder of BERT's config and tokenizer, see `GroundingDinoOriginal`."""
    named = str(settings.text_encoder_type)
    if chosen is None and (folder / named).is_dir():
        return folder / named
    # This is its name from before the hub had owners.
    source = chosen or ("google-bert/bert-base-uncased" if named == "bert-base-uncased" else named)
    return locate_checkpoint(source, None)[0]
