"""The order of samples is exact, complete, and independent of the order of calls."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise.errors import RepriseError
from training.config import KaleidoTask, MixtureConfig, VideoTask
from training.data import random_streams
from training.data.sampler import Sampler, find_turn
from training.data.samples import SampleReference, Subject
from training.latents.store import Records, build_index
from training.playground.random_latents import VARIANTS
from training.tasks.build import build_tasks
from training.tasks.kaleido import Kaleido, draw_reference


def records(clips: int, sizes: int = 2, subjects: tuple[int, ...] = (1, 2), source_of: int = 1) -> Records:
    """An index without tensors: `clips` samples of `sizes` latent sizes."""
    rows = []
    for n in range(clips):
        several = [
            {
                "subject_id": f"{n}-{s}",
                "category": "dog",
                "references": [
                    {"reference_id": v, "variant": v, "position": s * 5 + i, "height": 4, "width": 4}
                    for i, v in enumerate(VARIANTS)
                ],
            }
            for s in range(subjects[n % len(subjects)])
        ]
        row = {"sample_id": f"{n:06d}", "source_id": f"v{n // source_of}", "key": f"k{n}", "shard": "a"}
        size = {"frames": 1 + (n * 7919 + n // 3) % sizes, "height": 4, "width": 4}
        video = {"video_frames": 5, "video_height": 32, "video_width": 32, "fps": 16.0}
        rows.append(
            {**row, **size, **video, "caption": "", "text_tokens": 1, "subjects": several, "left_out": []}
        )
    return Records(build_index(rows))


def video_sampler(clips: int, batch: int, seed: int = 0, sizes: int = 2, holdout: float = 0.0) -> Sampler:
    tasks = build_tasks([VideoTask(latents="L", batch=batch)])
    return Sampler(tasks, [records(clips, sizes)], seed=seed, holdout=holdout)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 17), st.integers(1, 4), st.integers(0, 2**40))
def test_each_bucket_gives_every_sample_once_an_epoch_and_drops_none(
    clips: int, batch: int, sizes: int, seed: int
) -> None:
    sampler = video_sampler(clips, batch, seed, sizes)
    streams: dict[tuple[int, ...], list[int]] = {}
    for step in range(3 * clips // batch + 3 * sizes):
        plan = sampler.plan_step(step)
        streams.setdefault(plan.size, []).extend(plan.rows)
    for bucket in sampler.buckets["video"]:
        seen, n = streams.get(bucket.size, []), len(bucket.rows)
        for epoch in range(len(seen) // n):
            assert sorted(seen[epoch * n : (epoch + 1) * n]) == sorted(bucket.rows)
        rest = seen[len(seen) // n * n :]
        assert len(set(rest)) == len(rest) and set(rest) <= set(bucket.rows)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 4), st.integers(0, 50))
def test_slices_of_ranks_are_disjoint_and_together_the_step(
    share: int, ranks: int, micro_batch: int, step: int
) -> None:
    plan = video_sampler(30, share * ranks).plan_step(step)
    got = [
        pair
        for micro_step in range(plan.count_micro_steps(ranks, micro_batch))
        for rank in range(ranks)
        for pair in plan.slice_samples(rank, ranks, micro_step, micro_batch)
    ]
    assert sorted(got) == list(zip(plan.indices, plan.rows, strict=True))
    passes = range(plan.count_micro_steps(ranks, micro_batch))
    lengths = {
        tuple(len(plan.slice_samples(rank, ranks, m, micro_batch)) for m in passes) for rank in range(ranks)
    }
    assert len(lengths) == 1, "all ranks run the same forward passes"


def test_a_batch_that_workers_cannot_share_is_refused_by_name() -> None:
    with pytest.raises(RepriseError, match="batch of 6 cannot be shared by 4 workers"):
        video_sampler(30, 6).plan_step(0).slice_samples(0, 4, 0, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 2**40))
def test_a_step_does_not_depend_on_the_order_of_calls(step: int, seed: int) -> None:
    def fresh() -> Sampler:
        tasks = build_tasks(
            [KaleidoTask(latents="L", weight=3, batch=4), VideoTask(latents="L", weight=1, batch=6)]
        )
        return Sampler(tasks, [records(20), records(9, 3)], seed=seed)

    one, other = fresh(), fresh()
    following = [one.plan_step(step), one.plan_step(step + 1)]
    assert [other.plan_step(step + 1), other.plan_step(step)][::-1] == following
    first, second = following
    assert second.indices.start == first.indices.stop, "global indices count every sample of the run once"


def test_walking_from_the_start_and_jumping_to_a_step_agree_on_every_step() -> None:
    tasks = build_tasks([KaleidoTask(latents="L", batch=3), VideoTask(latents="L", weight=2, batch=5)])
    sampler = Sampler(tasks, [records(20), records(13, 3)], seed=4)
    walked, used, streams = 0, Counter[str](), Counter[tuple[str, object]]()
    for step in range(400):
        plan = sampler.plan_step(step)
        assert plan.indices.start == walked
        walked += len(plan.indices)
        used[plan.task] += 1
        streams[plan.task, plan.size] += len(plan.rows)
    assert sum(streams.values()) == walked


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=12), st.integers(0, 100_000))
def test_turns_are_proportional_and_count_up(sizes: list[int], step: int) -> None:
    bucket, had = find_turn(sizes, step)
    share = step * sizes[bucket] / sum(sizes)
    assert abs(had - share) <= len(sizes) + 1


def test_turns_taken_at_random_and_in_order_are_the_same() -> None:
    sizes = [1, 1, 7, 300, 41]
    had = [0] * len(sizes)
    for step in range(2000):
        bucket, before = find_turn(sizes, step)
        assert before == had[bucket]
        had[bucket] += 1


def test_steps_of_tasks_follow_their_weights() -> None:
    tasks = build_tasks([KaleidoTask(latents="L", weight=0.8), VideoTask(latents="L", weight=0.2)])
    sampler = Sampler(tasks, [records(20), records(20)], seed=1)
    count = 20_000
    share = sum(sampler._find_task(step)[0] for step in range(count)) / count
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / count) ** 0.5


def _shares(mixture: MixtureConfig, variants: tuple[str, ...], count: int = 20_000) -> dict[str, float]:
    subject = Subject("s", "dog", tuple(SampleReference(v, v, i) for i, v in enumerate(variants)))
    got = Counter(
        draw_reference(subject, mixture, random_streams.make_generator(7, "choice", index)).variant
        for index in range(count)
    )
    return {variant: got[variant] / count for variant in variants}


def _close(found: dict[str, float], wanted: dict[str, float], count: int = 20_000) -> None:
    for variant, p in wanted.items():
        assert abs(found[variant] - p) <= 4 * (p * (1 - p) / count) ** 0.5, (variant, found)


def test_variants_follow_the_papers_mixture() -> None:
    wanted = {"crop": 0.06, "segment": 0.3, "inpaint": 0.18, "redux": 0.06, "crosspair": 0.4}
    _close(_shares(MixtureConfig(), VARIANTS), wanted)


def test_variants_that_a_subject_lacks_leave_their_share_to_the_others() -> None:
    _close(_shares(MixtureConfig(), ("crop", "segment")), {"crop": 1 / 6, "segment": 5 / 6})
    _close(_shares(MixtureConfig(), ("crosspair",)), {"crosspair": 1.0})
    mixture = MixtureConfig(retrieved=0.5)
    _close(
        _shares(mixture, ("crop", "crosspair", "retrieved")),
        {"crop": 0.6, "crosspair": 0.2, "retrieved": 0.2},
    )


def test_number_of_references_captions_and_their_dropout_follow_the_config() -> None:
    config = KaleidoTask(latents="L", batch=8, max_references=3, reference_dropout=0.2, caption_dropout=0.1)
    task, index = Kaleido(config), records(40, 1, (3,))
    sampler = Sampler([task], [index], seed=3)
    plans = [sampler.plan_step(step) for step in range(4000)]
    numbers = Counter(plan.references for plan in plans)
    for number, p in {0: 0.2, 1: 0.8 / 3, 2: 0.8 / 3, 3: 0.8 / 3}.items():
        assert abs(numbers[number] / 4000 - p) < 4 * (p * (1 - p) / 4000) ** 0.5
    dropped = 0
    for plan in plans[:500]:
        for sample, row in plan.slice_samples(0, 1, 0, 8):
            choice = sampler.draw_choice(plan, sample, index[row])
            shown = {position // len(VARIANTS) for position in choice.references}
            assert len(shown) == plan.references, "each reference shows another subject"
            dropped += choice.drop_caption
    assert abs(dropped / 4000 - 0.1) < 4 * (0.1 * 0.9 / 4000) ** 0.5


def test_a_clip_gives_at_most_one_reference_per_subject() -> None:
    index = records(30, 2, (1, 2, 5))
    sampler = Sampler(build_tasks([KaleidoTask(latents="L", batch=4)]), [index], seed=0)
    assert {bucket.capacity for bucket in sampler.buckets["kaleido"]} == {1, 2, 3}
    for step in range(50):
        plan = sampler.plan_step(step)
        for sample, row in zip(plan.indices, plan.rows, strict=True):
            chosen = sampler.draw_choice(plan, sample, index[row])
            assert len(chosen.references) == plan.references <= len(index[row].subjects)


def test_held_out_sources_are_never_trained_on_in_any_run() -> None:
    index = records(400, 2, source_of=2)
    splits = []
    for seed in (0, 1):
        sampler = Sampler(build_tasks([VideoTask(latents="L", batch=8)]), [index], seed=seed, holdout=0.1)
        held = {int(row) for bucket in sampler.held_out["video"] for row in bucket.rows}
        seen = {row for step in range(200) for row in sampler.plan_step(step).rows}
        assert not held & seen and len(held) + len(seen) == 400
        assert 10 < len(held) < 80
        assert not {r // 2 for r in held} & {r // 2 for r in seen}, "clips of one video stay together"
        splits.append(held)
    assert splits[0] == splits[1]


def test_an_empty_or_unusable_index_is_one_clear_line() -> None:
    with pytest.raises(RepriseError, match="none of the 5 samples in L can be used"):
        Sampler(build_tasks([KaleidoTask(latents="L")]), [records(5, 1, (0,))], seed=0)
    with pytest.raises(RepriseError, match="holdout leaves no sample"):
        video_sampler(1, 1, holdout=0.999999)
    with pytest.raises(RepriseError, match="no task"):
        Sampler([], [], seed=0)


def test_the_fingerprint_depends_only_on_what_determines_the_order() -> None:
    def print_of(clips: int = 20, batch: int = 4, seed: int = 0, caption_dropout: float = 0.1) -> str:
        tasks = build_tasks([VideoTask(latents="L", batch=batch, caption_dropout=caption_dropout)])
        return Sampler(tasks, [records(clips)], seed=seed).fingerprint

    assert print_of() == print_of() == print_of(caption_dropout=0.5)
    assert len({print_of(), print_of(21), print_of(batch=5), print_of(seed=1)}) == 4


def test_permutations_reach_all_orders_alike() -> None:
    orders = Counter(
        tuple(random_streams.draw_permutation(3, seed, "order").tolist()) for seed in range(3000)
    )
    assert len(orders) == 6 and max(orders.values()) - min(orders.values()) < 150


def test_draws_are_the_same_on_every_machine() -> None:
    assert random_streams.derive_stream_seed(1, "noise", 5) == 128392685608380107
    np.testing.assert_allclose(
        random_streams.draw_uniforms(2, 1, "task"), [0.9994718538568483, 0.10445116409293997], rtol=1e-15
    )
    assert random_streams.draw_permutation(6, 1, "order").tolist() == [5, 4, 0, 2, 1, 3]
