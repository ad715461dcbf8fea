"""open_clip and transformers CLIP and SigLIP, from tiny checkpoints in their real formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from curation.model_spec import ModelSpec
from curation.models.pretrained.contrastive import (
    TextCache,
    compute_probabilities,
    normalize_rows,
    pad_to_square,
)
from reprise.errors import RepriseError

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")
open_clip = pytest.importorskip("open_clip", reason="needs open_clip")

from curation.models.pretrained.clip_hf import ClipHf  # noqa: E402
from curation.models.pretrained.open_clip_scorer import OpenClipScorer  # noqa: E402

SIDE, WIDTH, LAYERS, HEADS, LENGTH, DIMENSIONS = 32, 32, 2, 2, 24, 16
TEXTS = ["a dog", "a red bicycle", "two cats on a mat"]


def tokenizer(length: int = LENGTH) -> Any:
    """Letters as tokens; the end has the highest id, since open_clip takes the sentence from there."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", *letters, *(each + "</w>" for each in letters), "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=length)


VOCABULARY = 54


def save_open_clip(folder: Path) -> Any:
    """A folder as open_clip pushes it to the hub, with a tokenizer of its own; returns the model."""
    config = {
        "embed_dim": DIMENSIONS,
        "vision_cfg": {
            "image_size": SIDE, "layers": LAYERS, "width": WIDTH, "head_width": 16, "patch_size": 8,
        },
        "text_cfg": {
            "context_length": LENGTH, "vocab_size": VOCABULARY, "width": WIDTH, "heads": HEADS,
            "layers": LAYERS, "hf_tokenizer_name": "own",
        },
    }  # fmt: skip
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=DIMENSIONS,
        vision_cfg=open_clip.CLIPVisionCfg(**config["vision_cfg"]),  # type: ignore[arg-type]
        text_cfg=open_clip.CLIPTextCfg(**config["text_cfg"]),  # type: ignore[arg-type]
    ).eval()
    with torch.no_grad():
        # As drawn, every text is nearly the same point.
        model.token_embedding.weight.mul_(40)
        model.positional_embedding.mul_(10)
    folder.mkdir(parents=True)
    preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    from safetensors.torch import save_file

    state = model.state_dict()
    state.pop("attn_mask", None)
    copies = {key: value.contiguous().clone() for key, value in state.items()}
    save_file(copies, str(folder / "open_clip_model.safetensors"))
    tokenizer().save_pretrained(folder)
    return model


def hf_processor() -> Any:
    return transformers.CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.48, 0.46, 0.41], image_std=[0.27, 0.26, 0.28],
    )  # fmt: skip


def save_clip(folder: Path) -> Any:
    """A folder as transformers saves CLIP, drawn at random."""
    common = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS,
              "num_attention_heads": HEADS, "hidden_act": "gelu", "projection_dim": DIMENSIONS}  # fmt: skip
    config = transformers.CLIPConfig(
        text_config={**common, "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH,
                     "bos_token_id": 0, "eos_token_id": VOCABULARY - 1, "pad_token_id": VOCABULARY - 1},
        vision_config={**common, "image_size": SIDE, "patch_size": 8},
        projection_dim=DIMENSIONS,
    )  # fmt: skip
    torch.manual_seed(1)
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight.mul_(40)
        model.vision_model.embeddings.patch_embedding.weight.mul_(20)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    hf_processor().save_pretrained(folder)
    return model


def save_siglip(folder: Path) -> Any:
    common = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS,
              "num_attention_heads": HEADS}  # fmt: skip
    config = transformers.SiglipConfig(
        text_config={**common, "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH,
                     "projection_size": WIDTH, "bos_token_id": 0, "eos_token_id": VOCABULARY - 1,
                     "pad_token_id": VOCABULARY - 1},
        vision_config={**common, "image_size": SIDE, "patch_size": 8},
    )  # fmt: skip
    torch.manual_seed(2)
    model = transformers.SiglipModel(config).eval()
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight.mul_(20)
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    transformers.SiglipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return model


def convert_weights(model: Any, into: Any) -> None:
    """Write open_clip's weights into a CLIPModel: the same numbers under other names."""
    state, named = model.state_dict(), {}

    def block(source: str, target: str) -> None:
        whole, bias = state[f"{source}.attn.in_proj_weight"], state[f"{source}.attn.in_proj_bias"]
        for name, part, offset in zip("qkv", whole.chunk(3), bias.chunk(3), strict=True):
            named[f"{target}.self_attn.{name}_proj.weight"] = part
            named[f"{target}.self_attn.{name}_proj.bias"] = offset
        for ours, theirs in (
            ("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"),
            ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
        ):  # fmt: skip
            for kind in ("weight", "bias"):
                named[f"{target}.{theirs}.{kind}"] = state[f"{source}.{ours}.{kind}"]

    for layer in range(LAYERS):
        block(f"visual.transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}")
        block(f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}")
    for ours, theirs in (
        ("visual.ln_pre", "vision_model.pre_layrnorm"), ("visual.ln_post", "vision_model.post_layernorm"),
        ("ln_final", "text_model.final_layer_norm"),
    ):  # fmt: skip
        for kind in ("weight", "bias"):
            named[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    named |= {
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "visual_projection.weight": state["visual.proj"].T,
        "text_projection.weight": state["text_projection"].T,
        "logit_scale": state["logit_scale"],
    }
    missing = set(dict(into.named_parameters())) - set(named)
    assert not missing, missing
    into.load_state_dict(named, strict=False)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints: open_clip, the same weights as CLIP of transformers, another CLIP, SigLIP."""
    root = tmp_path_factory.mktemp("checkpoints")
    original = save_open_clip(root / "open_clip")
    twin = save_clip(root / "twin")
    convert_weights(original, twin)
    twin.save_pretrained(root / "twin")
    save_clip(root / "clip")
    save_siglip(root / "siglip")
    return root


def spec(path: Path | str, batch_size: int = 2, **options: Any) -> ModelSpec:
    return ModelSpec(backend="scorer", checkpoint=str(path), batch_size=batch_size, options=options)


def pictures(*sizes: tuple[int, int], seed: int = 0) -> list[NDArray[np.uint8]]:
    draw = np.random.default_rng(seed)
    found = []
    for height, width in sizes:
        tint = draw.integers(0, 255, 3)
        noise = draw.integers(-60, 60, (height, width, 3))
        found.append(np.clip(tint + noise, 0, 255).astype(np.uint8))
    return found


LOADED = {"open_clip": OpenClipScorer, "clip": ClipHf, "siglip": ClipHf}


@pytest.mark.parametrize("kind", LOADED)
def test_probabilities_sum_to_one_whatever_the_batches(checkpoints: Path, kind: str) -> None:
    images = pictures((32, 32), (50, 20), (17, 90), (64, 64), (33, 31))
    scores = [
        LOADED[kind](spec(checkpoints / kind, batch_size)).score(images, TEXTS) for batch_size in (1, 3)
    ]
    assert scores[0].shape == (5, 3) and scores[0].dtype == np.float32
    assert np.allclose(scores[0].sum(axis=1), 1, atol=1e-6)
    assert np.allclose(scores[0], scores[1], atol=1e-5)
    assert np.ptp(scores[0], axis=1).max() > 0.01  # the scores of the texts differ


@pytest.mark.parametrize("kind", LOADED)
def test_a_text_scores_the_same_beside_longer_ones(checkpoints: Path, kind: str) -> None:
    scorer = LOADED[kind](spec(checkpoints / kind))
    images = pictures((40, 40))
    beside = scorer.compute_similarities(images, ["a dog", "two large dogs on a mat"])[:, :1]
    assert np.allclose(scorer.compute_similarities(images, ["a dog"]), beside, atol=1e-5)


def test_the_same_weights_agree_in_open_clip_and_transformers(checkpoints: Path) -> None:
    ours, theirs = OpenClipScorer(spec(checkpoints / "open_clip")), ClipHf(spec(checkpoints / "twin"))
    images = pictures(*[(SIDE, SIDE)] * 3, seed=3)  # of the model's own size: nothing resizes
    assert np.allclose(ours.embed(images), theirs.embed(images), atol=2e-5)
    assert np.allclose(
        ours.compute_similarities(images, TEXTS), theirs.compute_similarities(images, TEXTS), atol=2e-5
    )
    assert np.allclose(ours.score(images, TEXTS), theirs.score(images, TEXTS), atol=1e-4)


def test_scores_are_those_of_transformers(checkpoints: Path) -> None:
    model = transformers.CLIPModel.from_pretrained(checkpoints / "clip").eval()
    images = pictures((SIDE, SIDE), (SIDE, SIDE))
    inputs = tokenizer()(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs, pixel_values=hf_processor()(images, return_tensors="pt")["pixel_values"])
    assert np.allclose(
        ClipHf(spec(checkpoints / "clip")).score(images, TEXTS),
        expected.logits_per_image.softmax(1),
        atol=1e-5,
    )


def test_siglip_is_conditioned_on_exactly_one_text_being_right(checkpoints: Path) -> None:
    """P(j | exactly one) from the model's own sigmoids, by brute force."""
    model = transformers.SiglipModel.from_pretrained(checkpoints / "siglip").eval()
    images = pictures((SIDE, SIDE), (SIDE, SIDE))
    inputs = tokenizer()(TEXTS, padding="max_length", max_length=LENGTH, return_tensors="pt")
    inputs.pop("attention_mask", None)
    processor = transformers.SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    with torch.no_grad():
        logits = model(
            **inputs, pixel_values=processor(images, return_tensors="pt")["pixel_values"]
        ).logits_per_image
    each = torch.sigmoid(logits.double())
    single = torch.stack(
        [
            each[:, one] * torch.stack([1 - each[:, other] for other in range(3) if other != one]).prod(0)
            for one in range(3)
        ],
        dim=1,
    )
    wanted = (single / single.sum(1, keepdim=True)).numpy()
    assert np.allclose(ClipHf(spec(checkpoints / "siglip")).score(images, TEXTS), wanted, atol=1e-4)


def test_a_tall_subject_is_seen_whole(checkpoints: Path) -> None:
    """A red hat and blue shoes: cut to the middle, they are gone."""
    person = np.full((96, 32, 3), 120, np.uint8)
    dressed = person.copy()
    dressed[:16], dressed[-16:] = (255, 0, 0), (0, 0, 255)
    for kind in ("open_clip", "clip"):
        seen = LOADED[kind](spec(checkpoints / kind)).embed([person, dressed])
        cut = LOADED[kind](spec(checkpoints / kind, fit="crop")).embed([person, dressed])
        assert np.allclose(cut[0], cut[1], atol=1e-5)
        assert not np.allclose(seen[0], seen[1], atol=1e-3)


def test_a_single_weight_file_wants_its_architecture(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = checkpoints / "open_clip" / "open_clip_model.safetensors"
    with pytest.raises(RepriseError, match=r"set its architecture in options.model"):
        OpenClipScorer(spec(file))
    with pytest.raises(RepriseError, match="has no architecture ViT-Z"):
        OpenClipScorer(spec(file, model="ViT-Z"))
    with pytest.raises(RepriseError, match="cannot be loaded as an open_clip model") as error:
        OpenClipScorer(spec(file, model="RN50"))
    assert "\n" not in str(error.value)
    config = json.loads((checkpoints / "open_clip" / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"]["hf_tokenizer_name"] = str(checkpoints / "open_clip")
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    scorer = OpenClipScorer(spec(file, model="tiny-clip", fit="crop"))
    assert scorer.score(pictures((40, 40)), TEXTS).shape == (1, 3)


@pytest.mark.parametrize("kind", LOADED)
def test_nothing_in_gives_nothing_out(checkpoints: Path, kind: str) -> None:
    scorer: Any = LOADED[kind](spec(checkpoints / kind))
    assert scorer.score([], TEXTS).shape == (0, 3)
    assert scorer.score(pictures((40, 40)), []).shape == (1, 0)
    assert len(scorer.embed([])) == 0
    assert scorer.name and scorer.revision


def copy(source: Path, target: Path, *without: str) -> Path:
    target.mkdir()
    for file in source.iterdir():
        if file.is_file() and not any(file.match(pattern) for pattern in without):
            (target / file.name).write_bytes(file.read_bytes())
    return target


def test_checkpoints_that_lack_something_are_one_line(checkpoints: Path, tmp_path: Path) -> None:
    cases: list[tuple[type[Any], Path, str]] = [
        (
            ClipHf,
            copy(checkpoints / "clip", tmp_path / "a", "tokenizer*", "vocab*", "merges*"),
            "it has no tokenizer",
        ),
        (ClipHf, copy(checkpoints / "clip", tmp_path / "b", "*processor*"), "the image processor of"),
        (ClipHf, copy(checkpoints / "clip", tmp_path / "c", "*.safetensors"), "holds no weights"),
        (OpenClipScorer, checkpoints / "clip", "no checkpoint of open_clip"),
        (ClipHf, checkpoints / "open_clip", "cannot be loaded as CLIP or SigLIP"),
    ]
    for backend, folder, expected in cases:
        with pytest.raises(RepriseError, match=expected) as error:
            backend(spec(folder))
        assert "\n" not in str(error.value)


def test_weights_of_another_model_are_not_made_up(checkpoints: Path, tmp_path: Path) -> None:
    """transformers would draw missing weights at random, and warn."""
    folder = copy(checkpoints / "clip", tmp_path / "mixed", "*.safetensors")
    (folder / "model.safetensors").write_bytes((checkpoints / "siglip" / "model.safetensors").read_bytes())
    with pytest.raises(RepriseError, match="checkpoint of another model than CLIP or SigLIP") as error:
        ClipHf(spec(folder))
    assert "\n" not in str(error.value)


def test_a_text_tower_on_the_hub_is_never_requested(checkpoints: Path, tmp_path: Path) -> None:
    folder = copy(checkpoints / "open_clip", tmp_path / "hub")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = "someone/text-tower"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(RepriseError, match="from the hub, but runs never download"):
        OpenClipScorer(spec(folder))


def test_a_tokenizer_that_the_folder_lacks_is_not_made_up(checkpoints: Path, tmp_path: Path) -> None:
    folder = copy(checkpoints / "open_clip", tmp_path / "words", "tokenizer*", "vocab*", "merges*")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "someone/words"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(RepriseError, match="has no tokenizer, which its open_clip_config"):
        OpenClipScorer(spec(folder))


def test_options_are_checked(checkpoints: Path) -> None:
    with pytest.raises(RepriseError, match="no option crop; known: fit"):
        ClipHf(spec(checkpoints / "clip", crop=True))
    with pytest.raises(RepriseError, match="fit must be pad or crop"):
        ClipHf(spec(checkpoints / "clip", fit="stretch"))


# ---- what they share --------------------------------------------------------------------------------------


def test_texts_are_encoded_once_per_list() -> None:
    requests: list[list[str]] = []

    def encode(texts: Any) -> NDArray[np.float32]:
        requests.append(list(texts))
        return np.ones((len(texts), 2), np.float32)

    cache = TextCache(encode)
    for _ in range(3):
        cache(["a", "b"])
    assert requests == [["a", "b"]]
    for number in range(20):
        cache([str(number)])
        cache(["a", "b"])  # used all the time, so never forgotten
    assert requests.count(["a", "b"]) == 1


def test_probabilities_are_a_softmax_that_does_not_overflow() -> None:
    images, texts = normalize_rows(np.array([[1.0, 0], [0, 1]])), normalize_rows(np.array([[1.0, 0], [1, 1]]))
    cold = compute_probabilities(images, texts, 0.0)
    assert np.allclose(cold, 0.5)
    assert np.allclose(compute_probabilities(images, texts, 1e6), [[1, 0], [0, 1]])
    assert normalize_rows(np.zeros((1, 3))).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(("height", "width"), [(30, 10), (10, 30), (7, 7), (1, 5)])
def test_a_squared_picture_keeps_every_pixel_where_it_will_be_seen(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(1, 255, (height, width, 3), np.uint8)
    square = pad_to_square(image, (0, 0, 0), 224 / 256)
    assert square.shape[0] == square.shape[1] == int(np.ceil(max(height, width) * 256 / 224))
    rows, columns = np.flatnonzero(square.any(axis=(1, 2))), np.flatnonzero(square.any(axis=(0, 2)))
    assert np.array_equal(square[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], image)
    assert abs((rows[0] + rows[-1]) / 2 - (len(square) - 1) / 2) <= 0.5
