"""Grounding DINO in both implementations: phrases, coordinates, agreement, and files that are not theirs."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the pretrained profile is not installed")
pytest.importorskip("transformers", reason="the pretrained profile is not installed")
pytest.importorskip("torchvision", reason="the pretrained profile is not installed")

from curation.model_spec import ModelSpec  # noqa: E402
from curation.models.pretrained import phrases as mapping  # noqa: E402
from curation.models.pretrained.compat_bert import BertTextEncoder  # noqa: E402
from curation.models.pretrained.device import BatchRunner, choose_target  # noqa: E402
from curation.models.pretrained.grounding_dino_hf import GroundingDinoHF  # noqa: E402
from curation.models.pretrained.phrases import DetectionRules, PromptOutput, PromptPacker, collect_detections  # noqa: E402
from curation.models.roles import DetectionScene, Phrase  # noqa: E402
from reprise.errors import RepriseError  # noqa: E402
from tests.curation.models import tiny_perception as tiny  # noqa: E402

EVERYTHING = {"box_threshold": 0.0, "text_threshold": 0.0, "nms_iou": 1.0}
GOLDEN = Path(__file__).parent / "golden" / "bert_transformers_4_57.json"
torch.set_num_threads(1)


def make_phrases(*texts: str) -> list[Phrase]:
    return [Phrase(text, text, "thing", 1) for text in texts]


def spec(folder: Path, **options: object) -> ModelSpec:
    return ModelSpec(backend="grounding-dino", checkpoint=str(folder), device="cpu", options=options)


@pytest.fixture(scope="module")
def prompter() -> PromptPacker:
    return PromptPacker(tiny.tokenizer())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("dino")
    model = tiny.save_dino_hf(root / "hf")
    try:
        import groundingdino  # noqa: F401
    except ImportError:
        return {"hf": root / "hf"}
    tiny.save_dino_original(root / "original", model)
    return {"hf": root / "hf", "original": root / "original"}


def load(folders: dict[str, Path], which: str, **options: object) -> Any:
    if which == "hf":
        return GroundingDinoHF(spec(folders["hf"], **options))
    pytest.importorskip("groundingdino", reason="groundingdino-py is not installed")
    from curation.models.pretrained.grounding_dino_original import GroundingDinoOriginal

    sides = {"short_side": tiny.SHORT, "long_side": tiny.LONG}
    return GroundingDinoOriginal(spec(folders["original"], **sides, **options))


# Phrases and tokens


def make_planted_model(texts_seen: dict[str, float], prompter: PromptPacker):
    """A model that sees one box for each of these texts, with this probability on every one of its tokens.

    It finds a text between two separators of the line of tokens, not by the positions under test.
    """

    def forward(images, prompts):
        outputs = []
        for prompt in prompts:
            logits = torch.full((len(texts_seen), len(prompt.ids)), -20.0)
            boxes = torch.tensor([[0.1 + 0.15 * row, 0.5, 0.1, 0.4] for row in range(len(texts_seen))])
            for row, (text, chance) in enumerate(texts_seen.items()):
                own = prompter.tokenize_phrase(text)
                for at in range(1, len(prompt.ids) - len(own)):
                    between = prompt.ids[at - 1] in (101, 1012) and prompt.ids[at + len(own)] == 1012
                    if between and list(prompt.ids[at : at + len(own)]) == own:
                        logits[row, at : at + len(own)] = torch.logit(torch.tensor(chance))
            outputs.append((logits, boxes))
        return outputs

    return forward


VOCABULARY = [
    "dog",
    "hot dog",
    "dogs",
    "car",
    "cars",
    "red car",
    "blue car",
    "St. Bernard",
    "a teapot?",
    "xyz",
]


@settings(max_examples=40, deadline=None)
@given(st.permutations(VOCABULARY), st.integers(1, len(VOCABULARY)), st.data())
def test_permuting_the_phrases_permutes_their_boxes(order, count, data) -> None:
    prompter = PromptPacker(tiny.tokenizer())
    texts = order[:count]
    seen = data.draw(st.lists(st.sampled_from(texts), min_size=1, max_size=4, unique=True))
    forward = make_planted_model({text: 0.9 - 0.1 * row for row, text in enumerate(seen)}, prompter)
    scene = DetectionScene(np.zeros((100, 200, 3), np.uint8))
    found = mapping.detect_scenes(
        [scene], [make_phrases(*texts)], prompter, BatchRunner(4), forward, DetectionRules()
    )[0]
    assert [texts[each.phrase] for each in found] == seen
    for row, each in enumerate(found):
        assert each.box == pytest.approx(
            [200 * (0.05 + 0.15 * row), 30, 200 * (0.15 + 0.15 * row), 70], abs=1e-3
        )
        assert each.score == pytest.approx(0.9 - 0.1 * row, abs=1e-6) and each.label > 0.999


def test_a_phrase_inside_another_keeps_its_own_tokens(prompter: PromptPacker) -> None:
    (prompt,) = prompter.pack_prompts(["dog", "hot dog", "dogs"])
    message = [
        prompter.tokenizer.convert_ids_to_tokens(prompt.ids[start:stop]) for start, stop in prompt.spans
    ]
    assert message == [["dog"], ["hot", "dog"], ["dog", "##s"]]
    assert [prompt.ids[stop] for _, stop in prompt.spans] == [1012] * 3


def test_punctuation_and_special_tokens_never_split_a_phrase(prompter: PromptPacker) -> None:
    (prompt,) = prompter.pack_prompts(["St. Bernard.", "dog [SEP] car?", "red   CAR"])
    assert [prompt.ids[start:stop] for start, stop in prompt.spans] == [
        tuple(prompter.tokenize_phrase("st bernard")),
        tuple(prompter.tokenize_phrase("dog [SEP] car")),
        tuple(prompter.tokenize_phrase("red car")),
    ]
    assert sum(each in mapping.SEPARATOR_IDS for each in prompt.ids) == 2 + 3


def test_a_phrase_without_words_is_never_found(prompter: PromptPacker) -> None:
    (prompt,) = prompter.pack_prompts(["", "dog", "...", " ? "])
    assert prompt.phrases == ((1,),)
    assert prompter.pack_prompts(["", "."]) == []
    scene = DetectionScene(np.zeros((10, 10, 3), np.uint8))
    forward = make_planted_model({"dog": 0.9}, prompter)
    assert mapping.detect_scenes(
        [scene], [make_phrases("")], prompter, BatchRunner(1), forward, DetectionRules()
    ) == [[]]
    assert mapping.detect_scenes([scene], [[]], prompter, BatchRunner(1), forward, DetectionRules()) == [[]]


def test_subjects_named_alike_share_boxes_and_do_not_compete(prompter: PromptPacker) -> None:
    forward = make_planted_model({"dog": 0.8}, prompter)
    scene = DetectionScene(np.zeros((100, 100, 3), np.uint8))
    wanted_phrases = make_phrases("dog", "Dog.", "car")
    found = mapping.detect_scenes(
        [scene], [wanted_phrases], prompter, BatchRunner(1), forward, DetectionRules()
    )[0]
    assert [each.phrase for each in found] == [0, 1] and all(each.label > 0.999 for each in found)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(20, 256))
def test_long_captions_are_split_under_the_limit_and_lose_no_phrase(lengths: list[int], limit: int) -> None:
    prompter = PromptPacker(tiny.tokenizer(), limit)
    texts = [" ".join(["w" * (1 + index % 9)] * length) for index, length in enumerate(lengths)]
    prompts = prompter.pack_prompts(texts)
    assert all(len(prompt.ids) <= limit for prompt in prompts)
    assert sorted(index for prompt in prompts for group in prompt.phrases for index in group) == list(
        range(len(texts))
    )


def test_phrases_of_another_prompt_compete_on_the_same_box() -> None:
    prompter = PromptPacker(tiny.tokenizer(), limit=5)
    first, second = prompter.pack_prompts(["red car", "blue car"])

    def make_output(prompt, chance, box):
        logits = torch.logit(torch.full((1, len(prompt.ids)), chance))
        return PromptOutput(prompt, logits, torch.tensor([box]))

    here, there = [0.5, 0.5, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]
    same = collect_detections(
        [make_output(first, 0.6, here), make_output(second, 0.3, here)], 100, 100, DetectionRules()
    )
    assert [(each.phrase, round(each.label, 3), round(each.score, 3)) for each in same] == [
        (0, 0.667, 0.6),
        (1, 0.333, 0.6),
    ]
    apart = collect_detections(
        [make_output(first, 0.6, here), make_output(second, 0.3, there)], 100, 100, DetectionRules()
    )
    assert [(each.phrase, round(each.label, 3), round(each.score, 3)) for each in apart] == [
        (0, 1.0, 0.6),
        (1, 1.0, 0.3),
    ]


def test_labels_of_one_box_share_one_whole(prompter: PromptPacker) -> None:
    (prompt,) = prompter.pack_prompts(["dog", "car", "teapot"])
    logits = torch.randn((5, len(prompt.ids)), generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.1 + 0.2 * row, 0.5, 0.1, 0.1] for row in range(5)])
    found = collect_detections([PromptOutput(prompt, logits, boxes)], 50, 50, DetectionRules(0.0, 0.0))
    for row in range(5):
        mine = [
            each
            for each in found
            if each.box == pytest.approx(mapping.convert_to_pixels(boxes, 50, 50)[row].tolist())
        ]
        assert len(mine) == 3 and sum(each.label for each in mine) == pytest.approx(1, abs=1e-5)
        assert len({each.score for each in mine}) == 1


def test_overlapping_boxes_of_one_phrase_are_one_and_other_phrases_do_not_mind(
    prompter: PromptPacker,
) -> None:
    (prompt,) = prompter.pack_prompts(["dog", "car"])
    logits = torch.full((3, len(prompt.ids)), -20.0)
    logits[0, 1] = 2.0
    logits[1, 1] = 1.0  # the same dog again, a little off
    logits[2, 3] = 0.5  # a car at the same place
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.51, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4]])
    found = collect_detections([PromptOutput(prompt, logits, boxes)], 100, 100, DetectionRules())
    assert [each.phrase for each in found] == [0, 1]
    assert found[0].score == pytest.approx(float(torch.tensor(2.0).sigmoid()))


def test_pooling_takes_the_best_token_or_their_mean(prompter: PromptPacker) -> None:
    (prompt,) = prompter.pack_prompts(["red car"])
    logits = torch.tensor([[9.0, 2.0, -2.0, 9.0, 9.0]])
    high, low = float(torch.tensor(2.0).sigmoid()), float(torch.tensor(-2.0).sigmoid())
    assert mapping.pool_probabilities(logits, prompt, "max").item() == pytest.approx(high)
    assert mapping.pool_probabilities(logits, prompt, "mean").item() == pytest.approx((high + low) / 2)


# Boxes and pixels


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.data())
def test_shares_become_pixels_of_the_picture_itself(width: int, height: int, data) -> None:
    sides = sorted(data.draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    box = [sides[0] * width, 0.0, sides[1] * width, 0.5 * height]
    share = torch.tensor([[(sides[0] + sides[1]) / 2, 0.25, sides[1] - sides[0], 0.5]])
    assert mapping.convert_to_pixels(share, width, height)[0].tolist() == pytest.approx(box, abs=width * 1e-5)


def test_boxes_stay_inside_and_empty_ones_are_dropped(prompter: PromptPacker) -> None:
    (prompt,) = prompter.pack_prompts(["dog"])
    boxes = torch.tensor([[0.95, 0.5, 0.3, 0.5], [1.3, 0.5, 0.2, 0.5]])
    found = collect_detections(
        [PromptOutput(prompt, torch.full((2, len(prompt.ids)), 3.0), boxes)], 100, 60, DetectionRules()
    )
    assert [each.box for each in found] == [pytest.approx([80, 15, 100, 45], abs=1e-3)]


class BrightRectangle(torch.nn.Module):  # type: ignore[name-defined]
    """A substitute for the model: a box around the bright pixels, in shares of the picture in the mask."""

    def forward(self, pixel_values, pixel_mask, input_ids, **_):
        boxes = []
        self.canvas = tuple(pixel_values.shape[2:])
        for seen, mask in zip(pixel_values, pixel_mask, strict=True):
            height, width = int(mask[:, 0].sum()), int(mask[0].sum())
            # The middle between black and white, as normalised; beyond the mask all is padding.
            bright = seen[0, :height, :width] > (0.5 - 0.485) / 0.229
            rows, columns = bright.any(1).nonzero().flatten(), bright.any(0).nonzero().flatten()
            x0, x1 = float(columns[0]) / width, float(columns[-1] + 1) / width
            y0, y1 = float(rows[0]) / height, float(rows[-1] + 1) / height
            boxes.append([[(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]])
        logits = torch.full((len(boxes), 1, input_ids.shape[1]), 5.0)
        return type("Out", (), {"logits": logits, "pred_boxes": torch.tensor(boxes)})


@pytest.mark.parametrize("canvas", [None, {"height": 200, "width": 224}])
def test_planted_boxes_come_back_in_pixels_at_any_size(folders: dict[str, Path], canvas: object) -> None:
    """With the real processor: odd sizes, several in a call, scaled, and padded to `canvas`."""
    detector = GroundingDinoHF(spec(folders["hf"]))
    detector._model = BrightRectangle()
    if canvas:
        detector._images.pad_size = canvas

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.tuples(st.integers(40, 300), st.integers(40, 300), st.data()), min_size=1, max_size=3))
    def check(drawn) -> None:
        scenes, planted_boxes = [], []
        for height, width, data in drawn:
            assume(0.4 < height / width < 2.5)
            x0 = data.draw(st.integers(0, width - 20))
            y0 = data.draw(st.integers(0, height - 20))
            x1, y1 = data.draw(st.integers(x0 + 12, width)), data.draw(st.integers(y0 + 12, height))
            image = np.zeros((height, width, 3), np.uint8)
            image[y0:y1, x0:x1] = 255
            scenes.append(DetectionScene(image))
            planted_boxes.append([x0, y0, x1, y1])
        found = detector.detect(scenes, [make_phrases("dog")] * len(scenes))
        for scene, box, mine in zip(scenes, planted_boxes, found, strict=True):
            # Half a pixel of the scaled picture, in pixels of the picture itself, and rounding.
            grain = min(scene.image.shape[:2]) / tiny.SHORT
            assert len(mine) == 1 and mine[0].box == pytest.approx(box, abs=max(1.0, grain) * 0.75 + 0.26)

    check()
    assert not canvas or detector._model.canvas == (canvas["height"], canvas["width"])


@pytest.mark.parametrize("which", ["hf", "original"])
def test_untrained_boxes_sit_on_the_grid_of_the_features(folders: dict[str, Path], which: str) -> None:
    """With box heads at zero, every box is centred on a cell of one of the four feature maps, in pixels."""
    detector = load(folders, which, **EVERYTHING)
    heads = [each for name, each in detector._model.named_parameters() if "bbox_embed.layers.2" in name]
    heads += [
        each
        for name, each in detector._model.named_parameters()
        if ".layers.2." in name and "bbox_embed." in name
    ]
    with torch.no_grad():
        for each in heads:
            each.zero_()
    sizes = [(96, 144), (61, 77), (133, 97), (300, 211), (96, 144)]
    scenes = [DetectionScene(tiny.picture(*size, seed=index)) for index, size in enumerate(sizes)]
    for scene, found in zip(scenes, detector.detect(scenes, [make_phrases("red car")] * 5), strict=True):
        height, width = scene.image.shape[:2]
        scaled = mapping_size(height, width)
        centred = 0
        for each in found:
            x, y = (each.box[0] + each.box[2]) / 2, (each.box[1] + each.box[3]) / 2
            inside = each.box[0] > 0 and each.box[1] > 0 and each.box[2] < width and each.box[3] < height
            centred += inside
            assert not inside or any(
                on_grid(x / width, -(-scaled[1] // stride)) and on_grid(y / height, -(-scaled[0] // stride))
                for stride in (8, 16, 32, 64)
            )
        assert centred > 5


def mapping_size(height: int, width: int) -> tuple[int, int]:
    short = tiny.SHORT
    if max(height, width) / min(height, width) * short > tiny.LONG:
        short = round(tiny.LONG * min(height, width) / max(height, width))
    return (short, int(short * width / height)) if height <= width else (int(short * height / width), short)


def on_grid(share: float, cells: int) -> bool:
    return abs((share * cells) % 1 - 0.5) < 1e-3


@pytest.mark.parametrize("which", ["hf", "original"])
def test_what_else_is_in_the_batch_does_not_move_a_box(folders: dict[str, Path], which: str) -> None:
    detector = load(folders, which, **EVERYTHING)
    sizes = [(96, 120), (70, 131), (96, 120), (140, 90)]
    wanted_phrases = [
        make_phrases("red car"),
        make_phrases("dog", "blue teapot", "a hot dog"),
        make_phrases("dogs"),
        make_phrases("car", "dog"),
    ]
    scenes = [DetectionScene(tiny.picture(*size, seed=index)) for index, size in enumerate(sizes)]
    together = detector.detect(scenes, wanted_phrases)
    for scene, phrases, found in zip(scenes, wanted_phrases, together, strict=True):
        (single,) = detector.detect([scene], [phrases])
        assert summary(found) == summary(single)


def summary(found) -> list[tuple[object, ...]]:
    rounded = [(each.phrase, [round(side, 1) for side in each.box], round(each.score, 3)) for each in found]
    return sorted(rounded, key=str)


# Two implementations, one model


def test_both_implementations_find_the_same(folders: dict[str, Path]) -> None:
    ours, theirs = load(folders, "hf", **EVERYTHING), load(folders, "original", **EVERYTHING)
    # At these sizes neither scales the picture: how they do differs by a grey level.
    scenes = [DetectionScene(tiny.picture(96, 133, seed=1)), DetectionScene(tiny.picture(120, 96, seed=2))]
    wanted_phrases = [make_phrases("red car", "dogs", "hot dog"), make_phrases("a teapot")]
    for left, right in zip(
        ours.detect(scenes, wanted_phrases), theirs.detect(scenes, wanted_phrases), strict=True
    ):
        assert len(left) == len(right) > 10
        for one, other in zip(left, right, strict=True):
            assert one.phrase == other.phrase
            assert one.box == pytest.approx(other.box, abs=1e-3)
            assert (one.score, one.label) == pytest.approx((other.score, other.label), abs=1e-4)


def test_converting_there_and_back_changes_nothing(folders: dict[str, Path]) -> None:
    pytest.importorskip("groundingdino", reason="groundingdino-py is not installed")
    from safetensors.torch import load_file

    from curation.models.pretrained import convert

    state = torch.load(folders["original"] / "weights.pth", weights_only=True)["model"]
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    there = convert.convert_dino_to_hf(state)
    for name, tensor in load_file(folders["hf"] / "model.safetensors").items():
        assert "swin.layernorm" in name or torch.equal(there[name], tensor), name
    back = convert.convert_dino_from_hf(there, state)
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
    del there["model.level_embed"]
    with pytest.raises(RepriseError, match=r"no weight model\.level_embed"):
        convert.convert_dino_from_hf(there, state)


def test_the_text_encoder_computes_what_the_library_does() -> None:
    """Recorded from groundingdino-py 0.4.0's own BertModelWarper under transformers 4.57.6, same weights."""
    from transformers import BertConfig, BertModel

    golden = json.loads(GOLDEN.read_text())
    config = BertConfig(
        vocab_size=24,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
    )
    bert = BertModel(config).eval()
    rng = np.random.default_rng(7)
    with torch.no_grad():
        for _, weight in sorted(bert.named_parameters()):
            weight.copy_(torch.from_numpy(rng.normal(0, 0.4, tuple(weight.shape)).astype(np.float32)))
    ids = torch.tensor([[1, 5, 6, 3, 7, 3, 2], [1, 8, 3, 2, 0, 0, 0]])
    positions = torch.tensor([[0, 0, 1, 2, 0, 1, 0], [0, 0, 1, 0, 0, 0, 0]])
    seen = torch.eye(7, dtype=torch.bool).repeat(2, 1, 1)
    seen[0, 1:4, 1:4] = seen[0, 4:6, 4:6] = seen[1, 1:3, 1:3] = True
    encoder = BertTextEncoder(bert)
    with torch.no_grad():
        per_token = encoder(ids, seen, torch.zeros_like(ids), positions)["last_hidden_state"]
        per_text = encoder(ids, (ids != 0).long(), torch.zeros_like(ids))["last_hidden_state"]
    assert np.allclose(per_token.numpy(), golden["per_token"], atol=2e-6)
    assert np.allclose(per_text.numpy(), golden["per_text"], atol=2e-6)


# Bad input


def fails(build, *words: str) -> None:
    with pytest.raises(RepriseError) as caught:
        build()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def copy_folder(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_half_a_file_is_one_clear_line(folders: dict[str, Path], tmp_path: Path) -> None:
    half = copy_folder(folders["hf"], tmp_path / "hf")
    tiny.truncate(half / "model.safetensors")
    fails(lambda: load({"hf": half}, "hf"), str(half))
    if "original" in folders:
        half = copy_folder(folders["original"], tmp_path / "original")
        tiny.truncate(half / "weights.pth")
        fails(lambda: load({"original": half}, "original"), str(half))


def test_a_checkpoint_of_another_model_is_one_clear_line(folders: dict[str, Path], tmp_path: Path) -> None:
    tiny.save_sam_hf(tmp_path / "sam")
    fails(lambda: load({"hf": tmp_path / "sam"}, "hf"), "Grounding DINO")
    if "original" not in folders:
        return
    other = copy_folder(folders["original"], tmp_path / "original")
    state = torch.load(other / "weights.pth", weights_only=True)
    del state["model"]["module.feat_map.weight"]
    state["model"]["module.stranger"] = torch.zeros(1)
    torch.save(state, other / "weights.pth")
    fails(lambda: load({"original": other}, "original"), "another model", "feat_map.weight", "stranger")
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 2, 2, 8)}, other / "weights.pth")
    fails(lambda: load({"original": other}, "original"), "another model", "missing")
    torch.save([1, 2], other / "weights.pth")
    fails(lambda: load({"original": other}, "original"), "no weights by name")
    (other / "weights.pth").unlink()
    fails(lambda: load({"original": other}, "original"), ".pth")


def test_a_processor_without_tokenizer_is_one_clear_line(folders: dict[str, Path], tmp_path: Path) -> None:
    bare = copy_folder(folders["hf"], tmp_path / "hf")
    for file in bare.glob("*token*"):
        file.unlink()
    fails(lambda: load({"hf": bare}, "hf"), str(bare), "tokenizer")


def test_a_tokenizer_of_another_vocabulary_is_one_clear_line() -> None:
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "dog"]
    other = BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    fails(lambda: PromptPacker(other), "not Grounding DINO's", "1012")


def test_a_config_that_is_not_plain_values_is_one_clear_line(tmp_path: Path) -> None:
    pytest.importorskip("groundingdino", reason="groundingdino-py is not installed")
    from curation.models.pretrained.grounding_dino_original import read_original_config

    path = tmp_path / "config.py"
    path.write_text("import os\n")
    fails(lambda: read_original_config(path), "line 1")
    path.write_text("modelname = 'dino'\n")
    fails(lambda: read_original_config(path), "configures dino")
    path.write_text("modelname = \n")
    fails(lambda: read_original_config(path), "cannot read the config")


def test_options_are_checked(folders: dict[str, Path]) -> None:
    fails(lambda: load(folders, "hf", box_treshold=0.3), "box_treshold", "box_threshold")
    fails(lambda: load(folders, "hf", box_threshold=3.0), "0..1")
    fails(lambda: load(folders, "hf", pool="sum"), "max or mean")


def test_devices_and_dtypes_are_checked() -> None:
    auto = choose_target(ModelSpec(backend="x"))
    assert (auto.device.type, auto.dtype) in (("cpu", torch.float32), ("cuda", torch.bfloat16))
    fails(lambda: choose_target(ModelSpec(backend="x", device="gpu")), "gpu")
    fails(lambda: choose_target(ModelSpec(backend="x", device="cpu", dtype="int8")), "int8", "bfloat16")
    if not torch.cuda.is_available():
        fails(lambda: choose_target(ModelSpec(backend="x", device="cuda")), "no GPU")


# Memory


def test_a_batch_that_does_not_fit_is_halved_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    sizes = []

    def run(items):
        sizes.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [2 * item for item in items]

    batches = BatchRunner(8)
    with caplog.at_level(logging.WARNING):
        assert batches(list(range(10)), run) == [2 * item for item in range(10)]
    assert sizes == [8, 4, 2, 2, 2, 2, 2] and batches.size == 2
    assert [record.getMessage() for record in caplog.records] == [
        "out of GPU memory on a batch of 8: continuing with 4",
        "out of GPU memory on a batch of 4: continuing with 2",
    ]
    batches([1], run)
    assert sizes[-1] == 1


def test_a_single_item_that_does_not_fit_is_one_clear_line() -> None:
    def run(items):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    fails(lambda: BatchRunner(2)([1, 2], run), "out of memory")

    def other(items):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        BatchRunner(1)([1], other)


def test_a_detector_short_of_memory_finds_the_same(folders: dict[str, Path]) -> None:
    detector = load(folders, "hf", **EVERYTHING)
    scenes = [DetectionScene(tiny.picture(60, 90, seed=index)) for index in range(3)]
    expected = detector.detect(scenes, [make_phrases("dog")] * 3)
    model = detector._model

    class Narrow(torch.nn.Module):  # type: ignore[name-defined]
        def forward(self, **inputs):
            if len(inputs["input_ids"]) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return model(**inputs)

    detector._model = Narrow()
    again = detector.detect(scenes, [make_phrases("dog")] * 3)
    assert [summary(each) for each in again] == [summary(each) for each in expected]


def test_a_missing_text_encoder_is_one_clear_line(folders: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("groundingdino", reason="groundingdino-py is not installed")
    bare = copy_folder(folders["original"], tmp_path / "original")
    (bare / "bert-tiny").rename(tmp_path / "elsewhere")
    encoder = str(tmp_path / "elsewhere")
    assert load({"original": bare}, "original", text_encoder=encoder).revision
    fails(lambda: load({"original": bare}, "original", text_encoder=str(tmp_path / "none")), "none")
    with (bare / "config.py").open("a") as config:
        config.write("text_encoder_type = 'bert-base-uncased'\n")
    fails(lambda: load({"original": bare}, "original"), "google-bert/bert-base-uncased")
