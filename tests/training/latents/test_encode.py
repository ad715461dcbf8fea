"""Encoding without Ray: what comes out is what the VAE and the text encoder make, row for row."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from pipelines.verify import main as verify
from reprise.errors import RepriseError
from reprise.storage import Storage
from tests.s3 import S3
from tests.training.curated_folder import moving_square, picture, row_of, subject_of, write_curated
from tests.training.tiny_models import write_cogvideox, write_wan
from training.data.samples import SampleChoice
from training.latents import encode as module
from training.latents.config import EncodeConfig
from training.latents.encode import EncodeJob, ItemOutcome, WorkUnit, encode_dataset, execute_here
from training.latents.encoders import Encoders, hash_model_parts, read_model_facts
from training.latents.sources.curated import CuratedSource
from training.latents.sources.videos import VideoSource
from training.latents.store import Latents, LatentsManifest
from training.models.components import load_vae
from training.models.pictures import prepare_picture

SMALL = {"area": 64 * 96, "frames": (9, 5), "fps": 8.0}


def config(**changes: Any) -> EncodeConfig:
    values = {"buckets": SMALL, "dtype": "fp32", "text_dtype": "fp32", "engine": {"part_rows": 2}, **changes}
    return EncodeConfig.model_validate(values)


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_wan(tmp_path_factory.mktemp("wan")))


def run(root: Path, model: str, settings: EncodeConfig, out: Path, **options: Any) -> LatentsManifest:
    return encode_dataset(
        CuratedSource(Storage.from_uri(root), settings),
        model,
        Storage.from_uri(out),
        settings,
        execute_here,
        **options,
    )


def test_latents_are_those_of_the_vae_and_each_reference_is_encoded_separately(
    tmp_path: Path, wan: str
) -> None:
    root = write_curated(tmp_path / "O")
    manifest = run(root, wan, config(), tmp_path / "L")
    assert (manifest.rows_in, manifest.encoded, manifest.dropped) == (6, 6, 0)
    assert manifest.buckets == {"3x8x12": 6} and manifest.references["segment"] == 12
    latents = Latents(str(tmp_path / "L"))
    vae = load_vae(wan)
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)

    def through(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return ((vae.encode(pixels[None]).latent_dist.mode() - mean) / std)[0]

    record = latents.records[3]
    assert record.sample_id == "clip3" and record.source_id == "video1"
    assert [len(s.references) for s in record.subjects] == [5, 5]
    sample = latents.read_sample(0, record, SampleChoice((6, 1)))
    for position, got in zip((6, 1), sample.references, strict=True):
        subject, variant = divmod(position, 5)
        name = ("crop", "segment", "inpaint", "redux", "crosspair")[variant]
        image = Image.open(io.BytesIO(picture(30 + subject, name)))
        wanted = through(prepare_picture(image, 64, 96)[:, None])
        assert got.shape == (16, 1, 8, 12)
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-4)
    white = through(torch.ones(3, 1, 64, 96))[:, 0]
    assert not torch.allclose(sample.references[1][:, 0], white, atol=1e-2)
    # The same frames that decoding gives, through the VAE as one clip.
    from training.latents.video import read_clip

    facts = read_model_facts(wan, None, config())
    clip = read_clip(root / "clips" / "3.mp4", module.make_buckets(facts, config()))
    pixels = torch.from_numpy(clip.frames).permute(3, 0, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(sample.video, through(pixels), atol=2e-5, rtol=1e-4)
    encoders = Encoders(facts, config())
    torch.testing.assert_close(sample.text, encoders.encode_texts(["a red dog runs"])[0])
    dropped = latents.read_sample(0, record, SampleChoice((), drop_caption=True))
    torch.testing.assert_close(dropped.text, encoders.encode_texts([""])[0])


def test_every_dropped_row_has_a_reason(tmp_path: Path, wan: str) -> None:
    bare = {**subject_of(4, 0), "verdict": {"kept": False}}
    broken = subject_of(5, 0, ("crop", "segment"))
    broken["references"][0]["image"] = {"bytes": b"no picture", "path": None}
    hopeless = subject_of(7, 0, ("crop",))
    hopeless["references"][0]["image"] = {"bytes": b"", "path": None}
    root = write_curated(
        tmp_path / "O",
        10,
        c0={"status": "rejected", "stop": {"stage": "caption", "reason": "no caption"}},
        c1={"status": "failed", "clip_path": None, "subjects": []},
        c2={"video": moving_square(2, frames=10)},
        c3={"video": b"nonsense"},
        c4={"subjects": [bare]},
        c5={"subjects": [broken]},
        c6={"caption": None},
        c7={"subjects": [hopeless]},
        c8={"clip_path": "clips/gone.mp4", "video": b""},
    )
    manifest = run(root, wan, config(), tmp_path / "L")
    assert manifest.reasons == {
        "not kept: rejected": 1,
        "not kept: failed": 1,
        "too short": 1,
        "unreadable": 1,
        "no usable reference": 2,
        "no caption": 1,
        "missing file": 1,
    }
    assert manifest.rows_in == 10 == manifest.encoded + manifest.dropped and manifest.encoded == 2
    assert manifest.left_out == 1
    ledger = {row["sample_id"]: row for row in pq.read_table(tmp_path / "L" / "dropped.parquet").to_pylist()}
    assert len(ledger) == 8 and ledger["clip0"]["message"] == "caption: no caption"
    assert "4 frames at 8 per second" in ledger["clip2"]["message"]
    latents = Latents(str(tmp_path / "L"))
    assert [r.reference_id for r in latents.records[0].subjects[0].references] == ["clip5-s0-segment0"]
    assert latents.records.get_column("left_out")[0] == ["clip5-s0-crop0"]


def test_an_interrupted_run_goes_on_and_ends_like_an_undisturbed_one(tmp_path: Path, wan: str) -> None:
    root, settings = write_curated(tmp_path / "O", 8), config()
    source = CuratedSource(Storage.from_uri(root), settings)
    encode_dataset(source, wan, Storage.from_uri(tmp_path / "whole"), settings, execute_here)
    worked: list[str] = []

    def killed(job: EncodeJob, units: Sequence[WorkUnit]) -> Iterator[ItemOutcome]:
        for number, outcome in enumerate(execute_here(job, units)):
            worked.append(outcome.sample_id)
            yield outcome
            if number == 4:  # amid the third unit of two
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_dataset(source, wan, Storage.from_uri(tmp_path / "L"), settings, killed)
    with pytest.raises(RepriseError, match="are not finished"):
        Latents(str(tmp_path / "L"))
    # A kill may also leave the tensors of a part without its rows.
    (tmp_path / "L" / "data" / "0123456789abcdef0123.safetensors").write_bytes(b"half")
    worked.clear()

    def counted(job: EncodeJob, units: Sequence[WorkUnit]) -> Iterator[ItemOutcome]:
        for outcome in execute_here(job, units):
            worked.append(outcome.sample_id)
            yield outcome

    encode_dataset(source, wan, Storage.from_uri(tmp_path / "L"), settings, counted)
    assert sorted(worked) == ["clip4", "clip5", "clip6", "clip7"]
    one, other = Latents(str(tmp_path / "whole")), Latents(str(tmp_path / "L"))
    assert (
        one.records.get_column("sample_id")
        == other.records.get_column("sample_id")
        == [f"clip{n}" for n in range(8)]
    )
    for n in range(8):
        a, b = (x.read_sample(0, x.records[n], SampleChoice((0, 9))) for x in (one, other))
        assert torch.equal(a.video, b.video) and torch.equal(a.text, b.text)
        assert all(torch.equal(x, y) for x, y in zip(a.references, b.references, strict=True))
    assert not (tmp_path / "L" / "data" / "0123456789abcdef0123.safetensors").exists()
    worked.clear()
    encode_dataset(source, wan, Storage.from_uri(tmp_path / "L"), settings, counted)
    assert worked == []


def test_only_changed_rows_are_encoded_again(tmp_path: Path, wan: str) -> None:
    settings, worked = config(), []

    def counted(job: EncodeJob, units: Sequence[WorkUnit]) -> Iterator[ItemOutcome]:
        for outcome in execute_here(job, units):
            worked.append(outcome.sample_id)
            yield outcome

    def again(**changes: Any) -> LatentsManifest:
        shutil.rmtree(tmp_path / "O", ignore_errors=True)
        root = write_curated(tmp_path / "O", 5, **changes)
        worked.clear()
        return encode_dataset(
            CuratedSource(Storage.from_uri(root), settings),
            wan,
            Storage.from_uri(tmp_path / "L"),
            settings,
            counted,
        )

    again()
    assert len(worked) == 5
    fewer = {**row_of(1), "subjects": [subject_of(1, 0)]}
    manifest = again(c1=fewer, c2={"caption": "a cup"}, c3={"status": "rejected"})
    assert sorted(worked) == ["clip1", "clip2"] and manifest.encoded == 4
    latents = Latents(str(tmp_path / "L"))
    assert [latents.records[n].sample_id for n in range(4)] == ["clip0", "clip1", "clip2", "clip4"]
    assert latents.records[2].caption == "a cup" and len(latents.records[1].subjects) == 1
    manifest = again()
    # What the index has no more is encoded again when it comes back: once, and nothing else.
    assert sorted(worked) == ["clip1", "clip2", "clip3"] and manifest.encoded == 5


def test_latents_of_another_model_or_config_are_refused(tmp_path: Path, wan: str) -> None:
    root = write_curated(tmp_path / "O", 2)
    run(root, wan, config(), tmp_path / "L")
    other = str(write_wan(tmp_path / "other", vae=load_vae(wan)))
    changed = load_vae(wan)
    next(changed.parameters()).data.add_(0.01)
    changed.save_pretrained(tmp_path / "other" / "vae")
    with pytest.raises(RepriseError, match="latents of another VAE"):
        run(root, other, config(), tmp_path / "L")
    load_vae(wan).save_pretrained(tmp_path / "other" / "vae")
    shutil.rmtree(tmp_path / "other" / "tokenizer")
    write_cogvideox(tmp_path / "cog")
    shutil.copytree(
        tmp_path / "cog" / "text_encoder", tmp_path / "other" / "text_encoder", dirs_exist_ok=True
    )
    shutil.copytree(tmp_path / "cog" / "tokenizer", tmp_path / "other" / "tokenizer")
    with pytest.raises(RepriseError, match="latents of another text encoder"):
        run(root, other, config(), tmp_path / "L")
    with pytest.raises(RepriseError, match=r"another config \(buckets.fps 8.0, now 16.0\)"):
        run(root, wan, config(buckets={**SMALL, "fps": 16.0}), tmp_path / "L")
    # Settings of the engine do not change the latents.
    run(root, wan, config(engine={"part_rows": 9, "image_batch": 1}), tmp_path / "L")
    assert run(root, other, config(), tmp_path / "L", overwrite=True).encoded == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("text")
    with pytest.raises(RepriseError, match="files that are not latents"):
        run(root, wan, config(), tmp_path / "mine")


def test_overwrite_removes_latents_and_no_other_file(wan: str, tmp_path: Path) -> None:
    root = write_curated(tmp_path / "O", 2)
    mine = tmp_path / "mine" / "data" / "thesis.parquet"
    mine.parent.mkdir(parents=True)
    mine.write_text("text")
    with pytest.raises(RepriseError, match=r"not latents, such as data/thesis\.parquet"):
        run(root, wan, config(), tmp_path / "mine", overwrite=True)
    assert mine.read_text() == "text"
    run(root, wan, config(), tmp_path / "L")
    (tmp_path / "L" / "data" / "notes.txt").write_text("text")
    assert run(root, wan, config(), tmp_path / "L", overwrite=True).encoded == 2
    assert (tmp_path / "L" / "data" / "notes.txt").read_text() == "text"


def test_a_vae_saved_again_by_another_library_version_is_the_same_vae(tmp_path: Path, wan: str) -> None:
    load_vae(wan).save_pretrained(tmp_path / "m" / "vae")
    file = tmp_path / "m" / "vae" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_diffusers_version": "9.9"}))
    assert hash_model_parts(str(tmp_path / "m"), None, "vae") == hash_model_parts(wan, None, "vae")
    file.write_text(json.dumps({**json.loads(file.read_text()), "latents_mean": [0.0] * 16}))
    assert hash_model_parts(str(tmp_path / "m"), None, "vae") != hash_model_parts(wan, None, "vae")


def test_references_of_their_own_size_make_fewer_tokens_and_never_exceed_the_video(
    tmp_path: Path, wan: str
) -> None:
    root = write_curated(tmp_path / "O", 2)
    run(root, wan, config(references={"size": "own"}), tmp_path / "L")
    latents = Latents(str(tmp_path / "L"))
    sample = latents.read_sample(0, latents.records[0], SampleChoice((0,)))
    assert sample.video.shape == (16, 3, 8, 12)
    assert sample.references[0].shape == (16, 1, 8, 8)  # 40x50 px fits as 51x64, on 64x64


def test_sampled_posteriors_of_cogvideox_are_scaled_and_seeded(tmp_path: Path) -> None:
    model = str(write_cogvideox(tmp_path / "cog", text_limit=12))
    root, settings = write_curated(tmp_path / "O", 3), config()
    manifest = run(root, model, settings, tmp_path / "a")
    assert (manifest.latents.posterior, manifest.latents.normalisation) == ("sample", "scaling_factor")
    assert manifest.text.length == 12
    run(
        root,
        model,
        settings.model_copy(update={"engine": config(engine={"part_rows": 1}).engine}),
        tmp_path / "b",
    )
    one, other = Latents(str(tmp_path / "a")), Latents(str(tmp_path / "b"))
    pair = [x.read_sample(0, x.records[1], SampleChoice((2,))) for x in (one, other)]
    torch.testing.assert_close(pair[0].video, pair[1].video, atol=1e-5, rtol=1e-4)
    assert pair[0].text.shape == (12, 32), "padding is part of the embedding"
    run(root, model, config(posterior="mode"), tmp_path / "c")
    mode = Latents(str(tmp_path / "c"))
    vae = load_vae(model)
    from training.latents.video import read_clip

    facts = read_model_facts(model, None, settings)
    clip = read_clip(root / "clips" / "1.mp4", module.make_buckets(facts, settings))
    with torch.no_grad():
        pixels = torch.from_numpy(clip.frames).permute(3, 0, 1, 2).float()[None] / 127.5 - 1
        wanted = vae.encode(pixels).latent_dist.mode()[0] * 0.7
    got = mode.read_sample(0, mode.records[1], SampleChoice()).video
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-4)
    assert not torch.equal(got, pair[0].video)


def test_plain_videos_need_no_references_and_give_single_frames(tmp_path: Path, wan: str) -> None:
    folder = tmp_path / "V"
    (folder / "deep").mkdir(parents=True)
    for n in range(3):
        (folder / "deep" / f"{n}.mp4").write_bytes(moving_square(n))
    (folder / "deep" / "0.txt").write_text("a red dog")
    (folder / "deep" / "1.json").write_text('{"caption": "a blue cup"}')
    settings = config(frames_alone=3)
    manifest = encode_dataset(
        VideoSource(str(folder), settings), wan, Storage.from_uri(tmp_path / "L"), settings, execute_here
    )
    assert (manifest.encoded, manifest.reasons) == (2, {"no caption": 1})
    latents = Latents(str(tmp_path / "L"))
    captions = {latents.records[n].caption for n in range(2)}
    assert captions == {"a red dog", "a blue cup"}
    frames = latents.records[0].subjects[0]
    assert [r.reference_id.split("-")[-1] for r in frames.references] == ["frame0", "frame4", "frame8"]
    assert {r.variant for r in frames.references} == {"frame"}
    sample = latents.read_sample(0, latents.records[0], SampleChoice((0,)))
    # The causal VAE encodes the first frame by itself, so the latent is the same in the clip.
    torch.testing.assert_close(sample.references[0][:, 0], sample.video[:, 0], atol=2e-5, rtol=1e-4)
    optional = config(captions="optional")
    assert (
        encode_dataset(
            VideoSource(str(folder), optional), wan, Storage.from_uri(tmp_path / "M"), optional, execute_here
        ).encoded
        == 3
    )


def test_lists_of_videos_are_read_in_each_format(tmp_path: Path, wan: str) -> None:
    import pyarrow as pa

    for n in range(2):
        (tmp_path / f"{n}.mp4").write_bytes(moving_square(n))
    rows = [{"path": "0.mp4", "caption": "a dog"}, {"path": str(tmp_path / "1.mp4"), "caption": "a, cup"}]
    rows += [{"path": "gone.mp4", "caption": "x"}, {"path": "0.mp4", "caption": "again"}]
    (tmp_path / "a.csv").write_text(
        "file_name,text\n" + "\n".join(f'{r["path"]},"{r["caption"]}"' for r in rows)
    )
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    plans = [VideoSource(str(tmp_path / f"a.{kind}")).plan_items() for kind in ("csv", "jsonl", "parquet")]
    assert plans[0] == plans[1] == plans[2]
    assert [p.drop for p in plans[0]] == [None, None, "missing file", "listed twice"]
    settings = config()
    manifest = encode_dataset(
        VideoSource(str(tmp_path / "a.csv"), settings),
        wan,
        Storage.from_uri(tmp_path / "L"),
        settings,
        execute_here,
    )
    assert manifest.encoded == 2 and manifest.rows_in == 4
    (tmp_path / "b.csv").write_text("name,words\nx,y\n")
    with pytest.raises(RepriseError, match="no column path: found name, words"):
        VideoSource(str(tmp_path / "b.csv")).plan_items()


def test_a_dataset_and_latents_on_s3_are_like_those_on_a_disk(s3: S3, tmp_path: Path, wan: str) -> None:
    root = write_curated(tmp_path / "O", 3)
    for file in root.rglob("*.*"):
        s3.put(f"data set/O/{file.relative_to(root)}", file.read_bytes())
    settings = config()
    for _ in range(2):  # the second time there is nothing to do
        source = CuratedSource(Storage.from_uri(f"{s3.uri}/data set/O"), settings)
        manifest = encode_dataset(source, wan, Storage.from_uri(f"{s3.uri}/run/L"), settings, execute_here)
        assert manifest.encoded == 3
    run(root, wan, settings, tmp_path / "L")
    there, local = Latents(f"{s3.uri}/run/L"), Latents(str(tmp_path / "L"))
    assert there.records.table.equals(local.records.table)
    one, other = (x.read_sample(0, x.records[1], SampleChoice((3,))) for x in (there, local))
    assert torch.equal(one.video, other.video) and torch.equal(one.references[0], other.references[0])
    (tmp_path / "V").mkdir()
    s3.put("videos/a.mp4", moving_square(1))
    s3.put("videos/a.txt", b"a red dog")
    s3.put("videos/list.csv", b"path,caption\na.mp4,a blue cup\n")
    for place in ("videos", "videos/list.csv"):
        videos = VideoSource(f"{s3.uri}/{place}", settings)
        assert (
            encode_dataset(
                videos, wan, Storage.from_uri(f"{s3.uri}/run/{len(place)}"), settings, execute_here
            ).encoded
            == 1
        )


def test_bad_input_is_one_clear_line(tmp_path: Path, wan: str) -> None:
    with pytest.raises(RepriseError, match=r"no dataset at .* has no manifest\.json"):
        run(tmp_path / "nothing", wan, config(), tmp_path / "L")
    root = write_curated(tmp_path / "O", 2)
    table = pq.read_table(root / "data" / "clips-00000.parquet")
    pq.write_table(table.drop_columns(["caption"]), root / "data" / "clips-00000.parquet")
    with pytest.raises(RepriseError, match="has no column caption"):
        run(root, wan, config(), tmp_path / "L")
    pq.write_table(table.slice(0, 0), root / "data" / "clips-00000.parquet")
    with pytest.raises(RepriseError, match="has no row"):
        run(root, wan, config(), tmp_path / "L")
    with pytest.raises(RepriseError, match=r"80 frames is not 4n\+1"):
        run(root, wan, config(buckets={"frames": (80,)}), tmp_path / "L")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RepriseError, match="no video in"):
        VideoSource(str(tmp_path / "empty")).plan_items()
    with pytest.raises(RepriseError, match=r"vae/config\.json"):
        run(root, str(tmp_path / "empty"), config(), tmp_path / "L")
    all_rejected = write_curated(tmp_path / "R", 2, c0={"status": "rejected"}, c1={"status": "rejected"})
    manifest = run(all_rejected, wan, config(), tmp_path / "R-latents")
    assert manifest.encoded == 0 and manifest.reasons == {"not kept: rejected": 2}
    with pytest.raises(RepriseError, match="holds no sample"):
        Latents(str(tmp_path / "R-latents"))


def test_rows_of_a_dead_worker_are_tried_one_by_one_and_only_the_bad_row_is_dropped(
    tmp_path: Path, wan: str
) -> None:
    source, settings = CuratedSource(Storage.from_uri(write_curated(tmp_path / "O", 4)), config()), config()
    tried: list[tuple[str, ...]] = []

    def dying(job: EncodeJob, units: Sequence[WorkUnit]) -> Iterator[ItemOutcome]:
        """As on a cluster: no item in a unit with clip2 has an outcome."""
        tried.extend(tuple(planned.sample_id for planned in unit) for unit in units)
        yield from execute_here(job, [unit for unit in units if all(p.sample_id != "clip2" for p in unit)])

    manifest = encode_dataset(source, wan, Storage.from_uri(tmp_path / "L"), settings, dying)
    assert tried == [("clip0", "clip1"), ("clip2", "clip3"), ("clip2",), ("clip3",)]
    assert manifest.encoded == 3 and manifest.reasons == {"worker died": 1}
    assert Latents(str(tmp_path / "L")).records.get_column("sample_id") == ["clip0", "clip1", "clip3"]
    # Another time it may live.
    manifest = encode_dataset(source, wan, Storage.from_uri(tmp_path / "L"), settings, execute_here)
    assert manifest.encoded == 4 and manifest.reasons == {}


def test_numbers_that_are_not_finite_never_get_into_the_latents(tmp_path: Path, wan: str) -> None:
    root = write_curated(tmp_path / "O", 2)

    class Broken(Encoders):
        def encode_video(self, frames: np.ndarray, key: str) -> torch.Tensor:
            return super().encode_video(frames, key) / 0.0

    def broken(job: EncodeJob, units: Sequence[WorkUnit]) -> Iterator[ItemOutcome]:
        encoders = Broken(job.facts, job.config)
        for unit in units:
            yield from module.encode_unit(job, unit, encoders)

    settings = config()
    manifest = encode_dataset(
        CuratedSource(Storage.from_uri(root), settings),
        wan,
        Storage.from_uri(tmp_path / "L"),
        settings,
        broken,
    )
    assert manifest.reasons == {"not finite": 2}


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_damaged_parts_are_found_and_encoded_again(tmp_path: Path, wan: str, damage: str) -> None:
    root, out = write_curated(tmp_path / "O"), tmp_path / "L"
    run(root, wan, config(), out)
    undisturbed = {path: path.read_bytes() for path in (out / "data").glob("*.safetensors")}
    assert run_verify(out) == (
        0,
        f"{len(undisturbed) + 3} of {len(undisturbed) + 3} files are as they were written\n",
    )
    victim = sorted(undisturbed)[0]
    data = bytearray(undisturbed[victim])
    data[-1] ^= 1
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(data if damage == "flipped" else data[:-1])
    assert run_verify(out, "--quick")[0] == (0 if damage == "flipped" else 1)
    code, text = run_verify(out)
    assert (code, f"damaged  data/{victim.name}: " in text) == (1, True)
    if damage == "flipped":
        victim.unlink()  # as the command says
    encoded: list[str] = []

    def count(job: EncodeJob, units: Sequence[WorkUnit]) -> Iterator[ItemOutcome]:
        for outcome in execute_here(job, units):
            encoded.append(outcome.sample_id)
            yield outcome

    settings = config()
    encode_dataset(
        CuratedSource(Storage.from_uri(root), settings), wan, Storage.from_uri(out), settings, count
    )
    assert len(encoded) == 2, "the samples of one part"
    assert {path: path.read_bytes() for path in (out / "data").glob("*.safetensors")} == undisturbed
    assert run_verify(out)[0] == 0


def run_verify(folder: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(verify, [str(folder), *options])
    return result.exit_code, result.output


def test_a_source_can_be_sent_to_workers_whatever_listened_to_its_listing(tmp_path: Path) -> None:
    (tmp_path / "0.mp4").write_bytes(moving_square(0))
    (tmp_path / "notes.pdf").write_bytes(b"no video")
    source = VideoSource(str(tmp_path), config(captions="optional"))
    lines: list[str] = []
    planned = source.plan_items(lambda line: lines.append(line))  # a lambda cannot be pickled
    assert any("1 pdf" in line for line in lines)
    copy = pickle.loads(pickle.dumps(source))
    assert [item.sample_id for item in copy.load_items([each.place for each in planned])] == [
        each.sample_id for each in planned
    ]
