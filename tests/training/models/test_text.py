"""Text embeddings equal those of diffusers' own pipelines."""

from __future__ import annotations

import pytest
import torch

from training.models.build import FAMILIES
from training.models.text import clean_caption


def tokenizer() -> object:
    from transformers import T5Tokenizer

    pieces = ["a", "red", "dog", "runs", "\u2581a", "\u2581red", "\u2581dog", "\u2581runs"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -5.0), *((word, -1.0) for word in pieces)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0)


@pytest.mark.parametrize("family", ["wan", "cogvideox"])
def test_embeddings_are_those_of_the_familys_pipeline(family: str) -> None:
    from diffusers import CogVideoXPipeline, WanPipeline
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    kind = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 32}
    torch.manual_seed(0)
    if family == "wan":
        encoder = UMT5EncoderModel(UMT5Config(**kind)).eval()
        pipeline = WanPipeline(tokenizer(), encoder, None, None, transformer=None)
    else:
        encoder = T5EncoderModel(T5Config(**kind)).eval()
        pipeline = CogVideoXPipeline(tokenizer(), encoder, None, None, None)
    captions = ["a red dog  runs", "", "a &amp;amp; dog", "dog " * 40]
    embed_captions = FAMILIES[family]().embed_captions
    ours = embed_captions(captions, encoder, tokenizer(), 12)
    with torch.no_grad():
        theirs = pipeline._get_t5_prompt_embeds(captions, max_sequence_length=12, device="cpu")
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other[: len(one)], atol=1e-6, rtol=1e-5)
        assert not other[len(one) :].any()
    assert [len(one) for one in ours] == (
        [len(embed_captions([c], encoder, tokenizer(), 12)[0]) for c in captions]
    )
    if family == "cogvideox":
        assert {len(one) for one in ours} == {12}
    else:
        assert len(ours[1]) == 1 and len(ours[0]) < len(ours[3]) == 12


def test_captions_are_cleaned_as_wan_does() -> None:
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    for text in ("  a \n\t b  ", "a &amp;lt; b", "caf\u00c3\u00a9", ""):
        assert clean_caption(text) == prompt_clean(text)
