"""A tiny random Wan 2.1 text-to-video model as diffusers saves a pipeline: what a user has on disk, small."""

from pathlib import Path

import torch

WORDS = ("a", "red", "dog", "and", "blue", "cup", "run")


def tokenizer():
    from transformers import T5Tokenizer

    pieces = [(piece, -2.0) for word in WORDS for piece in (word, f"▁{word}")]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *pieces], extra_ids=0)


def save_wan(folder: Path, vae=None) -> Path:
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = vae or AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
        config = UMT5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=32)
        transformer = WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2
        )
        text = UMT5EncoderModel(config)
    scheduler = FlowMatchEulerDiscreteScheduler()
    WanPipeline(tokenizer(), text, vae, scheduler, transformer).save_pretrained(folder)
    return folder
