"""<cls>: a trained token before the text, which marks that the text is about the reference (3.4, A.4.1).

The released code never trains one: it adds "<cls>" to a tokenizer that its pipeline then does not use, so the
prompt's "<cls>" is ordinary text (docs/proxy-replay.md). Here it is one vector of the text's width before the
text encoder's output, where the transformer reads it like any other token. Training it needs no text encoder,
so encoded captions stay valid. `add_word` gives a text encoder a new row for the word itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reprise.errors import RepriseError

SUBJECT_TOKEN_FILE = "subject_token.safetensors"


class SubjectToken(nn.Module):
    """Holds the vector inside the module that reads the text: it is sharded and saved with the model."""

    def __init__(self, width: int, std: float = 0.02) -> None:
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.zeros(width))
        self.marked: Tensor | None = None  # (B,) 1 or 0 for the current call; None: no sample has it

    def reset_parameters(self) -> None:
        """Draw the vector anew."""
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, text: Tensor) -> Tensor:
        """Add the vector to the first row of each marked sample: (B, L, D) -> (B, L, D)."""
        if self.marked is None:
            return text
        row = self.marked.to(text.dtype)[:, None, None] * self.weight.to(text.dtype)
        return torch.cat([text[:, :1] + row, text[:, 1:]], dim=1)


def add_subject_token(model: nn.Module, *, seed: int = 0) -> SubjectToken:
    """Add the token, drawn from the seed, to a stock transformer (CogVideoX or Wan), to train both."""
    reader, width = _find_text_reader(model)
    token = SubjectToken(width).to(device=next(reader.parameters()).device, dtype=torch.float32)
    if token.weight.device.type != "meta":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            token.reset_parameters()
    reader.subject_token = token

    def insert_token(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (token(args[0]), *args[1:])

    reader.register_forward_pre_hook(insert_token)
    return token


def get_subject_token(model: nn.Module) -> SubjectToken | None:
    """Return the model's token, if it has one."""
    found: SubjectToken | None = getattr(_find_text_reader(model)[0], "subject_token", None)
    return found


def reserve_token(model: nn.Module, text: Tensor, marked: bool, *, first: bool = True) -> Tensor:
    """Shift the text by one row to make room for the token, and set the token up for the next call.

    Without a token, or unmarked, the text stays.

    Args:
        model: the transformer.
        text: (B, L, D).
        marked: whether the samples have the token.
        first: whether this rank has the start of the text.

    Returns:
        (B, L, D), without the last row of the text if it was shifted.
    """
    token = get_subject_token(model)
    if token is None or not marked:
        if token is not None:
            # The weight is part of every pass, so that no rank waits for its gradient.
            token.marked = text.new_zeros(text.shape[0])
        return text
    token.marked = text.new_full((text.shape[0],), float(first))
    return torch.cat([torch.zeros_like(text[:, :1]), text[:, :-1]], dim=1)


def pack_subject_token(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the token's file. Collective with a sharded model."""
    token = get_subject_token(model)
    if token is None:
        raise ValueError("the model has no subject token")
    weight = token.weight.detach()
    whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return {"weight": whole.float().cpu().contiguous()}


def save_subject_token(model: nn.Module, folder: str | Path) -> Path:
    """Write the token's file into the LoRA's or model's folder. Collective with a sharded model."""
    from safetensors.torch import save_file

    path = Path(folder) / SUBJECT_TOKEN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(pack_subject_token(model), path)
    return path


def load_subject_token(model: nn.Module, folder: str | Path) -> SubjectToken:
    """Load the token of a folder into a model.

    Raises:
        RepriseError: the folder has no token, or one of another width.
    """
    weight = read_subject_token(folder, _find_text_reader(model)[1])
    token = get_subject_token(model) or add_subject_token(model)
    with torch.no_grad():
        token.weight.copy_(weight)
    return token


def read_subject_token(folder: str | Path, width: int) -> Tensor:
    """Read the token of a folder: (width,).

    Raises:
        RepriseError: the folder has no token, or one of another width.
    """
    from safetensors.torch import load_file

    path = Path(folder) / SUBJECT_TOKEN_FILE
    if not path.is_file():
        raise RepriseError(f"{folder} has no {SUBJECT_TOKEN_FILE}; was it trained with token.kind trained?")
    weight = load_file(path)["weight"]
    if weight.shape != (width,):
        raise RepriseError(f"{path} is {len(weight)} wide, the model's text {width}")
    return weight


def add_word(encoder: nn.Module, tokenizer: Any, word: str = "<cls>") -> int:
    """Add a word to a tokenizer and its text encoder; return its id, which is that of a new row.

    The embedding grows and never shrinks; the new row starts as the mean of the others. The released code
    resizes to the tokenizer's length instead. For T5 that cuts rows off and gives the word an old row, unused
    and untrained.
    """
    known: dict[str, int] = tokenizer.get_vocab()
    if word in known:
        raise RepriseError(f"the tokenizer already has {word}: choose another name for the token")
    rows = encoder.get_input_embeddings().weight.shape[0]
    # Rows beyond the tokenizer's vocabulary are padding that other code may rely on.
    filler = [f"<unused_{n}>" for n in range(len(tokenizer), rows)]
    if filler:
        tokenizer.add_tokens(filler, special_tokens=True)
    tokenizer.add_tokens([word], special_tokens=True)
    number = int(tokenizer.convert_tokens_to_ids(word))
    encoder.resize_token_embeddings(max(rows, number + 1), mean_resizing=False)
    weight = encoder.get_input_embeddings().weight
    with torch.no_grad():
        weight[number] = weight[:rows].mean(0)
    return number


def _find_text_reader(model: nn.Module) -> tuple[nn.Module, int]:
    """The module of a transformer that first sees the text, and the text's width."""
    if hasattr(model, "patch_embed"):
        return model.patch_embed, int(model.config.text_embed_dim)
    return model.condition_embedder.text_embedder, int(model.config.text_dim)
