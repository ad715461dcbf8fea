"""Tiny checkpoints with random weights, in the files that the real ones come in; a few MB each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SamProcessor,
    SwinConfig,
)

SHORT, LONG = 96, 160  # px, what the tiny detectors scale pictures to
SAM_SIDE = 128
WORDS = ["red", "blue", "a", "car", "cars", "hot", "dog", "##s", "st", "bernard", "teapot", "w", "##w"]
_SWIN = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}


def tokenizer() -> BertTokenizerFast:
    """BERT's tokenizer with a few words, its special tokens where bert-base-uncased has them."""
    vocabulary = [f"[unused{index}]" for index in range(1030)]
    for index, token in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 1012: ".", 1029: "?"}.items():
        vocabulary[index] = token
    vocabulary[103] = "[MASK]"
    vocabulary[200 : 200 + len(WORDS)] = WORDS
    return BertTokenizerFast(vocab={token: index for index, token in enumerate(vocabulary)})


def shaken(model: Any, seed: int, spread: float = 0.05) -> Any:
    """Every weight moved at random, so that none is the zero or one that it began with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * spread)
    return model.eval()


def bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=1030, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )


def save_dino_hf(folder: Path) -> GroundingDinoForObjectDetection:
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(**_SWIN, out_indices=[2, 3, 4]),
        text_config=bert_config(),
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=20,
    )
    model = shaken(GroundingDinoForObjectDetection(config), seed=1)
    model.save_pretrained(folder)
    size = {"shortest_edge": SHORT, "longest_edge": LONG}
    GroundingDinoProcessor(GroundingDinoImageProcessor(size=size), tokenizer()).save_pretrained(folder)
    return model


def save_dino_original(folder: Path, hf: GroundingDinoForObjectDetection) -> None:
    """`weights.pth`, `config.py` and the text encoder's folder, holding the weights of `hf`."""
    import groundingdino

    from curation.models.checkpoints import Checkpoint
    from curation.models.pretrained import convert
    from curation.models.pretrained.grounding_dino_original import build_dino_model, read_original_config

    folder.mkdir(parents=True, exist_ok=True)
    bert_config().save_pretrained(folder / "bert-tiny")
    tokenizer().save_pretrained(folder / "bert-tiny")
    shipped = Path(groundingdino.__file__).parent / "config" / "GroundingDINO_SwinT_OGC.py"
    ours = {"enc_layers": 1, "dec_layers": 2, "dim_feedforward": 64, "num_queries": 20, "swin": _SWIN}
    ours["text_encoder_type"] = "bert-tiny"
    lines = [f"{key} = {value!r}" for key, value in ours.items()]
    (folder / "config.py").write_text(shipped.read_text() + "\n" + "\n".join(lines) + "\n")
    settings = read_original_config(folder / "config.py")
    nothing = Checkpoint(folder, str(folder), "0", "0")
    like = build_dino_model(settings, folder / "bert-tiny", nothing).state_dict()
    state = convert.convert_dino_from_hf(hf.state_dict() | saved(hf), like)
    torch.save(
        {"model": {f"module.{name}": tensor for name, tensor in state.items()}}, folder / "weights.pth"
    )


def saved(model: Any) -> dict[str, torch.Tensor]:
    """The weights under the names that they have on disk, which are not always those in memory."""
    import tempfile

    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


def save_sam_hf(folder: Path) -> SamModel:
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SAM_SIDE,
        "patch_size": 16,
        "output_channels": 32,
        "window_size": 4,
        "global_attn_indexes": [1],
        "mlp_dim": 64,
        "num_pos_feats": 16,
    }
    prompt = {"hidden_size": 32, "image_size": SAM_SIDE, "patch_size": 16}
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    model = shaken(SamModel(config), seed=2)
    with torch.no_grad():
        # Predicted IoUs within 0..1, or all would be cut to the same.
        model.mask_decoder.iou_prediction_head.proj_out.weight.mul_(0.05)
        model.mask_decoder.iou_prediction_head.proj_out.bias.add_(0.5)
    model.save_pretrained(folder)
    square = {"height": SAM_SIDE, "width": SAM_SIDE}
    SamProcessor(SamImageProcessor(size={"longest_edge": SAM_SIDE}, pad_size=square)).save_pretrained(folder)
    return model


SAM_SIZES = {
    "image_size": SAM_SIDE,
    "encoder_width": 32,
    "encoder_depth": 2,
    "encoder_heads": 2,
    "encoder_global": [1],
    "encoder_window": 4,
    "encoder_mlp_ratio": 2,
    "width": 32,
    "decoder_heads": 2,
    "decoder_mlp": 64,
    "iou_width": 32,
}


def save_sam_original(folder: Path, hf: SamModel) -> None:
    """`sam.pth` and `sam.json`, holding the weights of `hf`."""
    from curation.models.pretrained import convert
    from curation.models.pretrained.sam_original import build_from_sizes, read_model_sizes

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sam.json").write_text(json.dumps(SAM_SIZES))
    like = build_from_sizes(read_model_sizes(folder / "sam.json")).state_dict()
    torch.save(convert.convert_sam_from_hf(saved(hf), like), folder / "sam.pth")


def save_sam2_video(folder: Path) -> Sam2VideoModel:
    torch.manual_seed(0)
    side = SAM_SIDE
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 16,
            "num_attention_heads": 1,
            "image_size": [side, side],
            "blocks_per_stage": [1, 2, 2, 1],
            "embed_dim_per_stage": [16, 32, 64, 128],
            "num_attention_heads_per_stage": [1, 2, 4, 8],
            "window_size_per_stage": [4, 4, 4, 4],
            "window_positional_embedding_background_size": [4, 4],
            "global_attention_blocks": [2],
        },
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[side // share] * 2 for share in (4, 8, 16)],
        "fpn_hidden_size": 128,
    }
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": side, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": 128,
            "mlp_dim": 64,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
        image_size=side,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=[side // 16, side // 16],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_num_layers=1,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=64,
    )
    model = shaken(Sam2VideoModel(config), seed=3, spread=0.02)
    model.save_pretrained(folder)
    square = {"height": side, "width": side}
    quarter = {"height": side // 4, "width": side // 4}
    images = Sam2ImageProcessor(size=square, mask_size=quarter)
    Sam2VideoProcessor(images, Sam2VideoVideoProcessor(size=square)).save_pretrained(folder)
    return model


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def truncate(path: Path, share: float = 0.5) -> None:
    """What an interrupted download leaves."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
