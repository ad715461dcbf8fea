"""A rank reads the samples of the plan, with any number of readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reprise.errors import RepriseError, TransientStorageError
from reprise.storage import Storage
from tests.s3 import S3
from training.config import DataConfig, KaleidoTask, VideoTask
from training.data.loader import Loader
from training.data.sampler import Sampler
from training.data.samples import Batch
from training.latents import store
from training.latents.store import Latents
from training.playground.random_latents import make_random_tensor, write_latents
from training.tasks.build import build_tasks


def make(folder: Storage, batch: int = 4, micro_batch: int = 2) -> tuple[Sampler, dict[str, Latents]]:
    common = {"latents": folder.uri, "batch": batch, "micro_batch": micro_batch}
    tasks = build_tasks([KaleidoTask(weight=2, **common), VideoTask(**common)])
    latents = Latents(folder)
    sampler = Sampler(tasks, [latents.records] * 2, seed=5)
    return sampler, {task.name: latents for task in tasks}


def content(batch: Batch) -> list[object]:
    tensors = [batch.video, *batch.references, batch.text]
    return [batch.indices, batch.sample_ids, *(t.float().numpy().tobytes() for t in tensors)]


def test_a_batch_holds_what_was_written(tmp_path: Path) -> None:
    sampler, latents = make(write_latents(tmp_path / "L", 12, dtype="bf16"))
    seen = 0
    for step in Loader(sampler, latents).iterate_steps(0, 20):
        for batch in step:
            assert batch.video.shape[2:] == step.plan.size and len(batch) == 2
            assert len(batch.references) == step.plan.references
            assert batch.text.shape == (2, 16, 32)
            for n, (index, sample_id) in enumerate(zip(batch.indices, batch.sample_ids, strict=True)):
                wanted = make_random_tensor(sample_id, "video", tuple(batch.video.shape[1:]), "bf16")
                assert torch.equal(batch.video[n], wanted)
                record = latents["video"].records[int(sample_id[-5:])]
                choice = sampler.draw_choice(step.plan, index, record)
                for position, reference in zip(choice.references, batch.references, strict=True):
                    c, _, h, w = reference.shape[1:]
                    wanted = make_random_tensor(sample_id, f"reference/{position}", (c, h, w), "bf16")
                    assert torch.equal(reference[n, :, 0], wanted)
                tokens = 1 if choice.drop_caption else 1 + int(sample_id[-5:]) % 16
                name = "" if choice.drop_caption else sample_id
                assert torch.equal(
                    batch.text[n, :tokens], make_random_tensor(name, "text", (tokens, 32), "bf16")
                )
                assert not batch.text[n, tokens:].any()
                seen += 1
    assert seen == 80


def test_batches_do_not_depend_on_threads_ranks_or_where_reading_began(tmp_path: Path) -> None:
    sampler, latents = make(write_latents(tmp_path / "L", 12))
    single = [
        [content(b) for b in step]
        for step in Loader(sampler, latents, threads=1, prefetch=0).iterate_steps(0, 6)
    ]
    many = [
        [content(b) for b in step]
        for step in Loader(sampler, latents, threads=7, prefetch=9).iterate_steps(0, 6)
    ]
    assert single == many
    resumed, again = make(latents["video"].folder)
    assert single[3:] == [[content(b) for b in step] for step in Loader(resumed, again).iterate_steps(3, 6)]
    halves = [
        [
            content(b)
            for step in Loader(sampler, latents, rank=rank, ranks=2).iterate_steps(0, 6)
            for b in step
        ]
        for rank in range(2)
    ]
    assert [b for step in single for b in step] == [b for pair in zip(*halves, strict=True) for b in pair]


def test_micro_batches_left_over_are_skipped_and_a_loop_may_stop_in_between(tmp_path: Path) -> None:
    sampler, latents = make(write_latents(tmp_path / "L", 12))
    loader = Loader(sampler, latents)
    firsts = []
    for step in loader.iterate_steps(0, 100):
        firsts.append(next(iter(step)).indices)
        if len(firsts) == 3:
            break
    assert firsts == [(0, 1), (4, 5), (8, 9)]
    assert loader.read_batch(sampler.plan_step(2), 0).indices == (8, 9)


def test_latents_are_read_from_s3_as_from_a_disk(s3: S3, tmp_path: Path) -> None:
    sampler, latents = make(write_latents(f"{s3.uri}/run/L", 6))
    local = make(write_latents(tmp_path / "L", 6))
    there = [content(b) for step in Loader(sampler, latents).iterate_steps(0, 4) for b in step]
    assert there == [content(b) for step in Loader(*local).iterate_steps(0, 4) for b in step]


def test_a_damaged_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RepriseError, match="no latents in "):
        Latents(str(tmp_path / "nothing"))
    folder = write_latents(tmp_path / "L", 4, per_part=4)
    shard = next((tmp_path / "L" / "data").glob("*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RepriseError, match="cut short"):
        for step in Loader(*make(folder)).iterate_steps(0, 9):
            list(step)
    shard.write_bytes(b"nonsense")
    with pytest.raises(RepriseError, match=r"cannot read .*safetensors"):
        for step in Loader(*make(folder)).iterate_steps(0, 9):
            list(step)
    (tmp_path / "L" / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(RepriseError, match="not Parquet"):
        Latents(folder)
    (tmp_path / "L" / "manifest.json").write_text('{"schema_version": "0"}')
    with pytest.raises(RepriseError, match="version 0 of the latents' schema"):
        Latents(folder)
    (tmp_path / "L" / "manifest.json").unlink()
    with pytest.raises(RepriseError, match="are not finished"):
        Latents(folder)


def test_other_libraries_can_read_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = write_latents(tmp_path / "L", 4, per_part=4)
    record = Latents(folder).records[1]
    tensors = load_file(tmp_path / "L" / "data" / record.shard)
    assert tensors["clip-00001/video"].shape == (16, 3, 6, 4)
    assert tensors["clip-00001/reference/0"].shape == (16, 6, 4)


def test_parts_do_not_depend_on_the_order_of_work(tmp_path: Path) -> None:
    one = write_latents(tmp_path / "a", 12, per_part=12)
    other = write_latents(tmp_path / "b", 12, per_part=5)
    wanted = [Latents(one).records[n].sample_id for n in range(12)]
    assert wanted == [Latents(other).records[n].sample_id for n in range(12)] == sorted(wanted)


def test_a_batch_moves_to_another_type(tmp_path: Path) -> None:
    sampler, latents = make(write_latents(tmp_path / "L", 6))
    batch = Loader(sampler, latents).read_batch(sampler.plan_step(0), 0).move_to("cpu", torch.bfloat16)
    assert {t.dtype for t in (batch.video, batch.text, *batch.references)} == {torch.bfloat16}


class FlakyFile:
    """A file whose first reads fail, over all its handles."""

    failures = 0

    def __init__(self, file: Any) -> None:
        self.file = file
        self.broken = False

    def read_at(self, size: int, offset: int) -> bytes:
        if self.broken or FlakyFile.failures > 0:
            FlakyFile.failures -= 1
            self.broken = True  # such a handle never works again
            raise OSError(5, "Connection timed out")
        return bytes(self.file.read_at(size, offset))


def test_a_read_that_fails_is_tried_again_on_a_new_handle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_latents(tmp_path / "L", 4, per_part=4)
    plain = [content(batch) for step in Loader(*make(folder)).iterate_steps(0, 3) for batch in step]
    loader, other = Loader(*make(folder), threads=1), Loader(*make(folder), threads=1)
    open_input = Storage.open_input
    monkeypatch.setattr(Storage, "open_input", lambda self, rel: FlakyFile(open_input(self, rel)))
    monkeypatch.setattr(store, "RETRY_WAITS_S", (0.0, 0.0))
    FlakyFile.failures = 2
    assert plain == [content(batch) for step in loader.iterate_steps(0, 3) for batch in step]
    FlakyFile.failures = 1000
    with pytest.raises(TransientStorageError, match=r"tried 3 times: .*timed out"):
        for step in other.iterate_steps(0, 3):
            list(step)
    FlakyFile.failures = 0


def test_damaged_samples_are_replaced_the_same_way_by_any_workers(tmp_path: Path) -> None:
    folder = write_latents(tmp_path / "L", 12, per_part=1)
    intact = read_indices(folder, [0], 1, DataConfig())
    for shard in sorted((tmp_path / "L" / "data").glob("*.safetensors"))[:2]:
        shard.write_bytes(shard.read_bytes()[:200])
    skip = DataConfig(bad_samples="skip")
    one = read_indices(folder, [0], 1, skip)
    assert one == read_indices(folder, [0, 1], 2, skip)
    assert one | read_indices(folder, [0], 1, skip, first=4) == one
    assert one.keys() == intact.keys()
    replaced = {index for index in one if one[index] != intact[index]}
    assert 0 < len(replaced) < len(one)
    missing = {intact[index][0] for index in replaced}
    assert len(missing) == 2 and not missing & {found[0] for found in one.values()}
    with pytest.raises(RepriseError, match=r"encode again .*; or go on without it: data\.bad_samples=skip"):
        read_indices(folder, [0], 1, DataConfig())
    with pytest.raises(RepriseError, match=r"2 samples are damaged, more than data\.max_bad_samples=1"):
        read_indices(folder, [0], 1, DataConfig(bad_samples="skip", max_bad_samples=1))


def read_indices(
    folder: Storage, ranks: list[int], size: int, data: DataConfig, first: int = 0
) -> dict[int, tuple[str, bytes]]:
    """Sample id and video of each global index of some steps."""
    found = {}
    for rank in ranks:
        loader = Loader(*make(folder, micro_batch=1), rank=rank, ranks=size, data=data)
        for step in loader.iterate_steps(first, 12):
            for batch in step:
                found[batch.indices[0]] = batch.sample_ids[0], batch.video.numpy().tobytes()
    return found
