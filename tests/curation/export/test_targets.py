"""What single targets write, where their rules differ from the common ones."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Video, load_dataset

from curation.export.build import TARGETS, build_target
from curation.export.reference_video import fit_on_white, write_reference_video
from curation.imaging.codec import decode_mask
from reprise.storage import Storage
from reprise.video.decode import decode_frames
from reprise.video.open_video import open_video
from tests.curation.dataset.fake_dataset import Fake, write_dataset
from tests.curation.export.test_export import export, read_files
from tests.house.names import REPOSITORY


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    root = tmp_path_factory.mktemp("targets") / "dataset"
    return write_dataset(root, 20, size=(320, 192), seconds=6.0, rows_per_shard=20)


def test_huggingface_datasets_reads_pictures_and_streams(fake: Fake, tmp_path: Path) -> None:
    export(fake, tmp_path / "out", "huggingface", "references.per_subject=2", "validation=0.4")
    loaded = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    loaded = loaded.cast_column("video", Video(decode=False))  # decoding needs torchcodec
    assert set(loaded) == {"train", "validation"}
    assert sum(part.num_rows for part in loaded.values()) == fake.count("kept")
    picture = loaded["train"][0]["references"][0]["image"]
    assert picture.size[0] > 8  # decoded by the library
    dogs = loaded["train"].filter(lambda row: any(s["category"] == "dog" for s in row["subjects"]))
    assert 0 < dogs.num_rows < loaded["train"].num_rows
    streamed = load_dataset(str(tmp_path / "out"), streaming=True, split="train")
    first = next(iter(streamed.cast_column("video", Video(decode=False))))
    assert first["video"]["bytes"][4:8] == b"ftyp" and first["caption"]
    card = (tmp_path / "out/README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert {each["split"] for each in metadata["configs"][0]["data_files"]} == {"train", "validation"}
    assert "CC-BY-4.0" in card and "| `video` |" in card


def test_kaleido_gets_numbered_files_of_one_line(fake: Fake, tmp_path: Path) -> None:
    export(fake, tmp_path / "out", "kaleido", "video.preset=ultrafast")
    numbers = sorted(int(path.stem) for path in (tmp_path / "out/train/videos").iterdir())
    assert numbers == list(range(fake.count("kept")))
    assert all(len(path.read_text().splitlines()) == 1 for path in (tmp_path / "out/train/labels").iterdir())


def test_musubi_names_every_length_in_its_config(fake: Fake, tmp_path: Path) -> None:
    export(fake, tmp_path / "out", "h3-musubi", "video.preset=ultrafast")
    (dataset,) = tomllib.loads((tmp_path / "out/train.toml").read_text())["datasets"]
    # 6 s are 144 frames at 24 per second, of which 17 * 8 + 5 = 141 go.
    assert dataset["target_frames"] == [141] and dataset["source_fps"] == 24.0


def test_simpletuner_joins_each_reference_to_its_clips(fake: Fake, tmp_path: Path) -> None:
    export(fake, tmp_path / "out", "simpletuner", "references.per_subject=2")
    backends = {b["id"]: b for b in json.loads((tmp_path / "out/multidatabackend.json").read_text())}
    videos = [backend for backend in backends.values() if backend["dataset_type"] == "video"]
    assert len(videos) >= 2  # clips with one subject, and with two
    for backend in videos:
        for name in backend["conditioning_data"]:
            assert backends[name]["source_dataset_id"] == backend["id"]
            assert {p.stem for p in Path(backends[name]["instance_data_dir"]).iterdir()} == {
                p.stem for p in Path(backend["instance_data_dir"]).glob("*.mp4")
            }


def test_customdit_lists_one_subject_a_row(fake: Fake, tmp_path: Path) -> None:
    export(fake, tmp_path / "out", "customdit")
    with (tmp_path / "out/train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["videoid"] for row in rows}) == fake.count("kept") < len(rows)
    entry = json.loads(
        (tmp_path / "out/train" / rows[0]["videoid"] / f"{rows[0]['videoid']}.json").read_text()
    )
    mask = decode_mask(entry["annotations"][0]["segmentation"])
    x0, y0, x1, y1 = (round(side) for side in entry["annotations"][0]["bbox"])
    assert mask.shape == (192, 320) and mask[y0:y1, x0:x1].sum() == mask.sum()


def test_opens2v_keeps_masks_by_frame_of_the_clip(fake: Fake, tmp_path: Path) -> None:
    export(fake, tmp_path / "out", "opens2v")
    entries = json.loads((tmp_path / "out/train.json").read_text())
    assert len(entries) == fake.count("kept")
    entry = next(iter(entries.values()))
    index = entry["annotation"]["ann_frame_data"]["ann_frame_idx"]
    assert index == "25"  # a second after the clip's first frame, wherever the clip begins in its source
    assert entry["annotation"]["mask_annotation"][index].keys() == entry["annotation"]["mask_map"].keys()


def test_each_reference_of_ltx_is_one_latent_frame(tmp_path: Path) -> None:
    red, blue = np.full((40, 80, 3), (220, 20, 20), np.uint8), np.full((90, 30, 3), (20, 20, 220), np.uint8)
    path = tmp_path / "references.mp4"
    assert write_reference_video([red, blue], path, (128, 96), 24.0, 8) == 9
    with open_video(path) as source:
        middles = [each.frame.to_ndarray(format="rgb24")[48, 64] for each in decode_frames(source)]
    assert all(np.allclose(pixel, (220, 20, 20), atol=12) for pixel in middles[:1])
    assert all(np.allclose(pixel, (20, 20, 220), atol=12) for pixel in middles[1:])
    assert np.all(fit_on_white(blue, 128, 96)[:, 0] == 255)  # the whole picture, with white beside it


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"webdataset", "energon"}))
def test_an_export_without_a_video_does_not_pass(fake: Fake, tmp_path: Path, target: str) -> None:
    out = tmp_path / "out"
    export(fake, out, target, "video.preset=ultrafast")
    media = next(path for path in sorted(read_files(out)) if path.endswith((".mp4", ".parquet")))
    beginning = (out / media).read_bytes()[:600]
    (out / media).unlink()  # it may be a link to the clip of the dataset
    (out / media).write_bytes(beginning)
    try:
        problems = list(build_target(target).check_export(Storage.from_uri(out)))
    except Exception as error:  # a list that cannot be read
        problems = [str(error)]
    assert problems


def test_the_docs_list_every_target() -> None:
    text = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
    assert {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")} == set(TARGETS)
