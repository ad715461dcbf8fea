"""<cls>: what the released pipeline really does with it, and a token that is really trained."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from reprise.errors import RepriseError
from tests.training.goldens import names, read
from tests.training.lora.test_lora import SMALL, tiny_wan
from tests.training.models.test_cogvideox import FAMILY, POSITIONS, inputs, make_prepared_model
from training.config import PositionsConfig
from training.lora.adapters import add_lora
from training.models.family import Conditioning
from training.models.subject_token import (
    SUBJECT_TOKEN_FILE,
    add_subject_token,
    add_word,
    get_subject_token,
    load_subject_token,
    save_subject_token,
)
from training.models.wan import WanFamily


@pytest.mark.parametrize("name", names("proxyreplay_B7*.safetensors"))
def test_the_released_pipeline_reads_cls_as_ordinary_text_and_its_script_cuts_rows_off(name):
    tensors, metadata = read(name)
    facts = metadata["facts"]
    before, after = tensors["embedding_before_resize"], tensors["embedding_after_resize"]
    assert torch.equal(after, before[: len(after)])  # nothing new: the word gets a row that was there, unused
    assert facts["cls_id"] < facts["embedding_rows_before"]
    encoder = T5EncoderModel(T5Config(**metadata["t5_config"])).eval()
    weights = {key.removeprefix("t5."): one for key, one in tensors.items() if key.startswith("t5.")}
    _, unexpected = encoder.load_state_dict(weights, strict=False)
    assert not unexpected
    with torch.no_grad():
        for kind in ("with_cls_token", "official_pipeline"):
            found = encoder(tensors[f"ids_{kind}"])[0]
            torch.testing.assert_close(found, tensors[f"embeds_{kind}"], atol=1e-5, rtol=1e-5)
    assert facts["cls_id"] in tensors["ids_with_cls_token"]
    assert facts["cls_id"] not in tensors["ids_official_pipeline"]
    # Ours, on the same encoder before the cut: a row that was not there, and every other as it was.
    encoder.resize_token_embeddings(len(before), mean_resizing=False)
    with torch.no_grad():
        encoder.get_input_embeddings().weight.copy_(before)
    number = add_word(encoder, tiny_tokenizer(facts["len_tokenizer_before"]))
    rows = encoder.get_input_embeddings().weight
    assert number == facts["embedding_rows_before"] and len(rows) == number + 1
    assert torch.equal(rows[:number], before)


def tiny_tokenizer(size: int) -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "<unk>": 1, **{f"w{n}": n for n in range(2, size)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def tiny_t5(rows: int) -> T5EncoderModel:
    torch.manual_seed(0)
    return T5EncoderModel(
        T5Config(vocab_size=rows, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).eval()


def test_a_word_of_its_own_is_one_token_with_a_new_row_and_changes_no_other_text():
    tokenizer, encoder = tiny_tokenizer(20), tiny_t5(24)
    ids = tokenizer("w3 w4", return_tensors="pt").input_ids
    with torch.no_grad():
        before = encoder(ids)[0]
    number = add_word(encoder, tokenizer)
    assert number == 24
    assert tokenizer("<cls> w3").input_ids == [24, 3]
    with torch.no_grad():
        assert torch.equal(encoder(ids)[0], before)
    encoder(torch.tensor([[24, 3]]))[0].square().mean().backward()
    gradient = encoder.get_input_embeddings().weight.grad
    assert gradient[24].abs().sum() > 0
    with pytest.raises(RepriseError, match="already has <cls>"):
        add_word(encoder, tokenizer)


def cog(model: nn.Module, marked: bool, **changes: Tensor) -> Tensor:
    given = {**inputs(8, 12), **changes}
    condition = Conditioning(given["text"], (given["reference"],), marked=marked)
    return FAMILY.predict(model, given["noisy"], given["timestep"], condition, POSITIONS)


def wan(model: nn.Module, marked: bool, **changes: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    video, reference, text = draw(2, 4, 3, 4, 4), draw(2, 4, 1, 4, 4), draw(2, 5, 10)
    condition = Conditioning(changes.get("text", text), (reference,), marked=marked)
    steps = torch.tensor([300.0, 20.0])
    return WanFamily().predict(model, video, steps, condition, PositionsConfig())


KINDS = {"cogvideox": (make_prepared_model, cog, 12), "wan": (tiny_wan, wan, 10)}


@pytest.mark.parametrize("kind", list(KINDS))
def test_unmarked_the_model_is_what_it_was_and_marked_it_reads_the_vector_first(kind):
    make, predict, width = KINDS[kind]
    with torch.no_grad():
        before = predict(make(), marked=False)
        model = make()
        token = add_subject_token(model)
        assert token.weight.shape == (width,)
        assert torch.equal(predict(model, marked=False), before)
        marked = predict(model, marked=True)
        assert not torch.allclose(marked, before)
        # The same as the stock model on a text that begins with the vector.
        generator = torch.Generator().manual_seed(8)
        text = torch.randn(2, 5 if kind == "wan" else 6, width, generator=generator)
        with_token = torch.cat([token.weight.detach().expand(2, 1, -1), text[:, :-1]], dim=1)
        torch.testing.assert_close(
            predict(model, marked=True, text=text), predict(make(), marked=False, text=with_token)
        )


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_vector_is_trained_beside_lora(kind):
    make, predict, _ = KINDS[kind]
    model = make()
    add_lora(model, SMALL, kind)
    token = add_subject_token(model)
    predict(model, marked=True).square().mean().backward()
    assert token.weight.grad.abs().sum() > 0
    token.weight.grad = None
    predict(model, marked=False).square().mean().backward()
    assert token.weight.grad.abs().sum() == 0  # no part of the loss, and yet no rank that waits for it


def test_a_model_without_the_token_ignores_the_mark():
    with torch.no_grad():
        assert torch.equal(cog(make_prepared_model(), marked=True), cog(make_prepared_model(), marked=False))


def test_the_vector_is_drawn_from_the_seed():
    weights = [add_subject_token(make_prepared_model(), seed=seed).weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_it_is_saved_and_loaded(tmp_path):
    model = make_prepared_model()
    add_subject_token(model, seed=3)
    assert load_file(save_subject_token(model, tmp_path))["weight"].shape == (12,)
    again = make_prepared_model()
    load_subject_token(again, tmp_path)
    assert torch.equal(get_subject_token(again).weight, get_subject_token(model).weight)
    with pytest.raises(RepriseError, match="10"):
        load_subject_token(tiny_wan(), tmp_path)
    with pytest.raises(RepriseError, match=SUBJECT_TOKEN_FILE):
        load_subject_token(make_prepared_model(), tmp_path / "other")
