"""The captioner on a tiny Qwen3-VL in its real format: order, batches, videos, pictures, errors, residue."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from curation.model_spec import ModelSpec
from reprise.errors import RepriseError

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")
if not hasattr(transformers, "Qwen3VLForConditionalGeneration"):
    pytest.skip("needs a transformers with Qwen3-VL", allow_module_level=True)

from curation.models.pretrained.vlm_captioner import VlmCaptioner, clean_answer  # noqa: E402

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_vlm(folder: Path) -> None:
    letters = [*SPECIAL, "Ġ", "Ċ", *string.ascii_letters, *string.digits, *string.punctuation]
    vocabulary = {token: number for number, token in enumerate(letters)}
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=[], eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    pixels = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    processor = transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(
            size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64}, **pixels
        ),
        tokenizer,
        transformers.Qwen3VLVideoProcessor(
            size={"shortest_edge": 2 * 32 * 32, "longest_edge": 16 * 64 * 64}, **pixels
        ),
        chat_template=TEMPLATE,
    )
    processor.save_pretrained(folder)
    config = transformers.Qwen3VLConfig(
        text_config={
            "vocab_size": len(vocabulary), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2],
                                "mrope_interleaved": True},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
            "out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [1],
        },
        image_token_id=vocabulary["<|image_pad|>"], video_token_id=vocabulary["<|video_pad|>"],
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Qwen3VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)  # as drawn, it hardly looks at its input
        # It speaks in letters, and never stops.
        model.lm_head.weight[: len(SPECIAL)] = 0
    model.generation_config.eos_token_id = vocabulary["<|im_end|>"]
    # Published settings sample; the captioner must not.
    model.generation_config.do_sample = True
    model.generation_config.temperature = 0.7
    model.generation_config.top_k = 20
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("vlm") / "qwen3-vl"
    save_vlm(folder)
    return folder


def load(folder: Path, batch_size: int = 8, **options: Any) -> VlmCaptioner:
    options = {"prompt": "What is it?", "max_new_tokens": 12} | options
    return VlmCaptioner(
        ModelSpec(backend="vlm", checkpoint=str(folder), batch_size=batch_size, options=options)
    )


def clip(seed: int, frames: int, height: int = 48, width: int = 64) -> list[NDArray[np.uint8]]:
    draw = np.random.default_rng(seed)
    noise = draw.integers(0, 255, (frames, height // 8, width // 8, 3), np.uint8)
    return [np.ascontiguousarray(frame.repeat(8, 0).repeat(8, 1)) for frame in noise]


# Lengths and sizes differ, so that prompts do and padding matters; one has a single frame, one none.
CLIPS = [
    clip(0, 4),
    clip(1, 2),
    clip(2, 1),
    clip(3, 6, 64, 32),
    [],
    clip(4, 3),
    clip(5, 5, 32, 96),
    clip(6, 2),
]


@pytest.mark.parametrize("frames", ["video", "images"])
def test_captions_never_swap_between_clips(vlm: Path, frames: str) -> None:
    """A clip has the same caption in batches of any size and order."""
    single = [load(vlm, 1, frames=frames).caption([each])[0] for each in CLIPS]
    assert single[4] == ""
    assert len(set(single)) == len(CLIPS)  # so a swap would show
    for batch_size in (2, 3, 8):
        assert load(vlm, batch_size, frames=frames).caption(CLIPS) == single
    order = [5, 0, 7, 4, 2, 6, 1, 3]
    shuffled = [CLIPS[each] for each in order]
    assert load(vlm, 4, frames=frames).caption(shuffled) == [single[each] for each in order]


def test_the_same_frames_give_the_same_caption_although_the_checkpoint_samples(vlm: Path) -> None:
    captioner = load(vlm)
    state = torch.random.get_rng_state()
    assert captioner.caption(CLIPS[:2]) == captioner.caption(CLIPS[:2])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_model_gets_the_time_of_each_frame(vlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    captioner = load(vlm, fps=4.0)
    real = captioner._generate_texts

    def record_prompts(inputs: Any) -> list[str]:
        prompts.extend(captioner._tokenizer.batch_decode(inputs["input_ids"]))
        return real(inputs)

    monkeypatch.setattr(captioner, "_generate_texts", record_prompts)
    captioner.caption([clip(0, 4), clip(1, 2)])
    # Two frames share a patch in time; 4 frames at 4 per second lie at 0, 0.25, 0.5, 0.75 s.
    assert "<0.1 seconds>" in prompts[0] and "<0.6 seconds>" in prompts[0]
    assert prompts[1].count("seconds>") == 1
    assert all("What is it?" in each and each.endswith("<|im_start|>assistant\n") for each in prompts)
    assert prompts[1].startswith("<|endoftext|>")  # padded on the left


def test_long_clips_are_thinned_and_large_frames_shrunk(vlm: Path) -> None:
    long = clip(7, 12)
    thinned = load(vlm, max_frames=3).caption([long])
    assert thinned == load(vlm, max_frames=0).caption([[long[0], long[6], long[11]]])
    large = [np.ascontiguousarray(frame.repeat(4, 0).repeat(4, 1)) for frame in clip(8, 2)]
    assert load(vlm, max_side=64).caption([large]) == load(vlm).caption([clip(8, 2)])


def test_what_cannot_caption_is_one_line(vlm: Path, tmp_path: Path) -> None:
    def without(name: str, *patterns: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in vlm.iterdir():
            if not any(file.match(pattern) for pattern in patterns):
                (folder / file.name).write_bytes(file.read_bytes())
        return folder

    for folder, message in (
        (without("mute", "chat_template*"), "no chat template"),
        (without("wordless", "tokenizer*", "vocab*", "merges*"), "tokenizer"),
        (without("weightless", "*.safetensors"), "holds no weights"),
        (without("unprocessed", "*processor*"), "processor"),
    ):
        with pytest.raises(RepriseError, match=message) as error:
            load(folder)
        assert "\n" not in str(error.value)
    with pytest.raises(RepriseError, match="frames must be video or images"):
        load(vlm, frames="gif")
    with pytest.raises(RepriseError, match="no option temperature"):
        load(vlm, temperature=0.7)
    with pytest.raises(RepriseError, match="must be positive"):
        load(vlm, fps=0.0)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("A dog runs.", "A dog runs."),
        ("assistant\nA dog runs.<|im_end|>", "A dog runs."),
        ("<|im_start|>assistant\nA dog runs.", "A dog runs."),
        ("Sure! Here is a description of the video: A dog runs.", "A dog runs."),
        ("Certainly, I can help with that. Here's the caption:\n\n\"A dog runs.\"", "A dog runs."),
        ("**Caption:** A dog runs.", "A dog runs."),
        ("<think>It has four legs.</think>\nA dog runs.", "A dog runs."),
        ("It has four legs.</think>\nA dog runs.", "A dog runs."),
        ("- A dog runs.\n- A cat sleeps.", "A dog runs. A cat sleeps."),
        ("“A dog runs.”", "A dog runs."),
        ("'A man says “sure” to a dog.'", "A man says “sure” to a dog."),
        ("Two dogs, one white-and-tan, run.", "Two dogs, one white-and-tan, run."),
        ("A model in a red dress walks.", "A model in a red dress walks."),
        ("Ok-go performs on a stage", "Ok-go performs on a stage"),
        ("", ""),
        ("<think>never closed", ""),
    ],
)  # fmt: skip
def test_residue_of_the_chat_goes_and_the_caption_stays(message: str, wanted: str) -> None:
    assert clean_answer(message) == wanted
    assert clean_answer(wanted) == wanted


def test_a_caption_that_was_cut_ends_with_its_last_whole_sentence() -> None:
    half = "A dog runs. It is 1.5 m tall. Behind it a ca"
    assert clean_answer(half, cut=True) == "A dog runs. It is 1.5 m tall."
    assert clean_answer("A dog that is", cut=True) == "A dog that is"
