"""The two tasks of proxy replay: what they draw, what they drop, and how steps are shared between them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from reprise.errors import RepriseError
from tests.training.models.test_cogvideox import FAMILY, POSITIONS, make_prepared_model
from training.config import IdentityTask, KaleidoTask, ReplayTask, TrainConfig, VideoTask
from training.data import random_streams
from training.data.sampler import Sampler
from training.data.samples import Batch, SampleReference, Subject
from training.latents.store import Records, build_index
from training.models.subject_token import add_subject_token
from training.objectives import VPrediction
from training.tasks.build import build_tasks, share_replay
from training.tasks.replay import draw_kept_tokens
from training.tasks.task import LossContext


def records(count: int, frames: int, variants: tuple[str, ...]) -> Records:
    """`count` samples of so many latent frames, each with one subject that has these pictures."""
    rows = []
    for n in range(count):
        pictures = [
            {"reference_id": f"{v}{i}", "variant": v, "position": i, "height": 8, "width": 12}
            for i, v in enumerate(variants)
        ]
        subjects = [{"subject_id": f"{n}", "category": "dog", "references": pictures}] if pictures else []
        rows.append(
            {
                "sample_id": f"{n:04d}",
                "source_id": f"v{n}",
                "key": f"k{n}",
                "shard": "a",
                "frames": frames,
                "height": 8,
                "width": 12,
                "video_frames": 4 * frames - 3,
                "video_height": 64,
                "video_width": 96,
                "fps": 8.0,
                "caption": "a dog",
                "text_tokens": 6,
                "subjects": subjects,
                **({"left_out": []} if "left_out" in _index_columns() else {}),
            }
        )
    return Records(build_index(rows))


def _index_columns() -> list[str]:
    from training.latents.store import INDEX_SCHEMA

    return list(INDEX_SCHEMA.names)


PAIRS = records(40, 1, ("pair",))
VIDEOS = records(30, 3, ("segment", "frame", "frame", "frame", "frame"))


def proxy_replay(p: float = 0.2, **replay: object) -> Sampler:
    tasks = (IdentityTask(latents="P", batch=16), ReplayTask(latents="V", batch=4, **replay))
    built = build_tasks(share_replay(tasks, p))
    index = {"P": PAIRS, "V": VIDEOS}
    return Sampler(built, [index[task.latents] for task in built], seed=7)


def test_steps_are_replay_with_the_probability_p_and_each_task_has_its_own_batch():
    sampler = proxy_replay()
    plans = [sampler.plan_step(step) for step in range(4000)]
    share = sum(plan.task == "replay" for plan in plans) / len(plans)
    assert share == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / 4000) ** 0.5)
    assert {(plan.task, len(plan.rows)) for plan in plans} == {("identity", 16), ("replay", 4)}
    assert {plan.size for plan in plans if plan.task == "identity"} == {(1, 8, 12)}


@pytest.mark.parametrize(("p", "names"), [(0.0, {"identity"}), (1.0, {"replay"})])
def test_p_of_0_is_image_only_and_of_1_video_only(p, names):
    assert {task.name for task in proxy_replay(p).tasks} == names


def test_a_watched_task_takes_no_step_and_no_number_of_the_others():
    tasks = (IdentityTask(latents="P", batch=16), ReplayTask(latents="V", batch=4))
    built = build_tasks(share_replay(tasks, 0.0, keep_zero_weight=True))
    sampler = Sampler(built, [PAIRS, VIDEOS], seed=7)
    plain = proxy_replay(0.0)
    assert [sampler.plan_step(step) for step in range(50)] == [plain.plan_step(step) for step in range(50)]
    assert sampler.fingerprint == plain.fingerprint
    assert sampler.plan_watched_step("identity", 3) is None
    seen = [sampler.plan_watched_step("replay", step) for step in range(30)]
    assert all(plan.task == "replay" and len(plan.rows) == 4 for plan in seen)
    assert len({row for plan in seen for row in plan.rows}) == 30  # other samples each time
    trained = {index for step in range(50) for index in plain.plan_step(step).indices}
    assert trained.isdisjoint(index for plan in seen for index in plan.indices)


def test_p_leaves_weights_within_each_side_in_proportion():
    tasks = (
        IdentityTask(latents="a", weight=3),
        KaleidoTask(latents="b", weight=1),
        ReplayTask(latents="c", weight=2),
        ReplayTask(latents="d", weight=6),
    )
    assert [task.weight for task in share_replay(tasks, 0.2)] == pytest.approx([0.6, 0.2, 0.05, 0.15])
    assert share_replay((VideoTask(latents="a"),), 0.2) == (VideoTask(latents="a"),)


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_p_outside_0_to_1_is_refused(p):
    with pytest.raises(ValidationError, match="replay"):
        TrainConfig(replay=p)


def test_the_reference_is_any_of_the_encoded_frames_equally_often():
    sampler = proxy_replay()
    plan = next(plan for plan in map(sampler.plan_step, range(100)) if plan.task == "replay")
    chosen = Counter(sampler.draw_choice(plan, index, VIDEOS[0]).references for index in range(4000))
    assert set(chosen) == {(1,), (2,), (3,), (4,)}  # position 0 is a picture of a subject, not a frame
    assert all(abs(count / 4000 - 0.25) < 0.03 for count in chosen.values())


def test_without_random_frames_it_is_the_first():
    sampler = proxy_replay(frame="first")
    plan = next(plan for plan in map(sampler.plan_step, range(100)) if plan.task == "replay")
    assert {sampler.draw_choice(plan, index, VIDEOS[0]).references for index in range(50)} == {(1,)}


def test_without_references_the_two_tasks_are_text_to_image_and_text_to_video():
    tasks = [
        IdentityTask(latents="P", reference_dropout=1),
        ReplayTask(latents="V", reference_dropout=1),
    ]
    sampler = Sampler(build_tasks(tasks), [PAIRS, VIDEOS], seed=0)
    for plan in map(sampler.plan_step, range(20)):
        record = (PAIRS if plan.task == "identity" else VIDEOS)[plan.rows[0]]
        assert plan.references == 0 and sampler.draw_choice(plan, plan.indices[0], record).references == ()


def test_fewer_videos_are_among_more_of_them():
    def used(count: int | None) -> set[int]:
        return set(
            np.flatnonzero(proxy_replay(1.0, videos=count).tasks[0].get_capacities(VIDEOS) >= 0).tolist()
        )

    assert len(used(5)) == 5 and used(5) < used(11) < used(None) == set(range(30))


@pytest.mark.parametrize(
    ("task", "index"),
    [
        (ReplayTask(latents="V"), records(4, 3, ("crop",))),
        (IdentityTask(latents="P"), records(4, 1, ("crop",))),
        (IdentityTask(latents="P"), records(4, 3, ("pair",))),
    ],
)
def test_a_task_without_a_sample_that_it_can_use_is_one_clear_line(task, index):
    with pytest.raises(RepriseError, match=f"task {task.kind}") as error:
        Sampler(build_tasks([task]), [index], seed=0)
    assert "\n" not in str(error.value)


def test_dropped_tokens_are_another_share_of_each_sample_and_the_same_for_any_layout():
    keep = draw_kept_tokens(range(200), 24, 0.5, seed=1)
    assert keep.shape == (200, 12)
    assert (keep.diff(dim=1) > 0).all()
    assert len({tuple(row) for row in keep.tolist()}) > 190
    share = torch.bincount(keep.flatten(), minlength=24) / 200
    assert (share - 0.5).abs().max() < 0.15
    assert torch.equal(draw_kept_tokens(range(100, 110), 24, 0.5, seed=1), keep[100:110])
    assert draw_kept_tokens([0], 24, 0.0, seed=1).tolist() == [list(range(24))]
    assert draw_kept_tokens([0], 24, 1.0, seed=1).shape == (1, 0)


def context(model: torch.nn.Module) -> LossContext:
    alphas = torch.linspace(0.999, 0.0, 1000)
    return LossContext(model, FAMILY, VPrediction(alphas), POSITIONS, seed=3, dtype=torch.float32)


def batch(frames: int, indices: tuple[int, ...] = (5, 6)) -> Batch:
    def drawn(index: int, purpose: str, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random_streams.make_generator(0, purpose, index))

    return Batch(
        indices=indices,
        sample_ids=tuple(map(str, indices)),
        video=torch.stack([drawn(i, "video", 4, frames, 8, 12) for i in indices]),
        references=(torch.stack([drawn(i, "reference", 4, 1, 8, 12) for i in indices]),),
        text=torch.stack([drawn(i, "text", 6, 12) for i in indices]),
    )


@pytest.mark.parametrize("kind", ["identity", "replay"])
def test_losses_do_not_depend_on_how_samples_are_put_into_batches(kind):
    config = IdentityTask(latents="L") if kind == "identity" else ReplayTask(latents="L")
    task, around = build_tasks([config])[0], context(make_prepared_model())
    frames = 1 if kind == "identity" else 3
    with torch.no_grad():
        both = task.compute_loss(batch(frames), around)[0]
        single = torch.cat([task.compute_loss(batch(frames, (i,)), around)[0] for i in (5, 6)])
    torch.testing.assert_close(both, single)


def test_what_is_dropped_is_not_seen_in_training_either():
    task = build_tasks([ReplayTask(latents="L", token_dropout=0.75)])[0]
    around, given = context(make_prepared_model()), batch(3, (5,))
    keep = draw_kept_tokens((5,), 24, 0.75, seed=3)[0].tolist()
    gone = next(token for token in range(24) if token not in keep)
    row, column = divmod(gone, 6)
    with torch.no_grad():
        before = task.compute_loss(given, around)[0]
        given.references[0][..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 5.0
        assert torch.equal(task.compute_loss(given, around)[0], before)
        row, column = divmod(keep[0], 6)
        given.references[0][..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 5.0
        assert not torch.equal(task.compute_loss(given, around)[0], before)


def test_the_subject_token_is_used_only_in_identity_steps():
    model = make_prepared_model()
    token = add_subject_token(model)
    for config, frames, speaks in ((IdentityTask(latents="L"), 1, True), (ReplayTask(latents="L"), 3, False)):
        token.weight.grad = None
        build_tasks([config])[0].compute_loss(batch(frames), context(model))[0].sum().backward()
        assert bool(token.weight.grad.abs().sum() > 0) is speaks


def test_subjects_with_several_pairs_give_each_of_them():
    record = PAIRS[0]
    several = Subject("s", "dog", tuple(SampleReference(f"r{i}", "pair", i) for i in range(3)))
    record = type(record)(record.sample_id, record.source_id, record.shard, record.size, "", (several,))
    task = build_tasks([IdentityTask(latents="P")])[0]
    chosen = {
        task.choose_references(record, 1, random_streams.make_generator(0, "choice", i)).references
        for i in range(60)
    }
    assert chosen == {(0,), (1,), (2,)}


@pytest.mark.parametrize("kind", ["identity", "replay"])
def test_validation_samples_under_what_training_conditions_on(kind, monkeypatch):
    """The subject's token in identity, dropped tokens in replay; with guidance, for both halves."""
    from types import SimpleNamespace

    from diffusers import CogVideoXDDIMScheduler

    from training.callbacks import validation
    from training.models import components

    seen = []

    class Spy:
        def predict(self, model, noisy, timestep, condition, positions, **more):
            seen.append(condition)
            return FAMILY.predict(model, noisy, timestep, condition, positions, **more)

    scheduler = CogVideoXDDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    monkeypatch.setattr(components, "load_scheduler", lambda path, revision: scheduler)
    config = IdentityTask(latents="L") if kind == "identity" else ReplayTask(latents="L")
    model = make_prepared_model()
    add_subject_token(model)
    state = SimpleNamespace(
        config=TrainConfig(validation={"steps": 1, "guidance": 3.0}),
        context=context(model),
        device=torch.device("cpu"),
        family=Spy(),
        latents={kind: SimpleNamespace(empty_text=torch.zeros(2, 12))},
        model=model,
        tasks={kind: build_tasks([config])[0]},
    )
    given = batch(1 if kind == "identity" else 3, (5,))
    made = validation.sample_latents(state, kind, given, seed=1)
    assert made.shape == given.video.shape and made.isfinite().all()
    (condition,) = seen
    assert len(condition.text) == 2 and condition.marked is (kind == "identity")
    if kind == "identity":
        assert condition.keep is None
    else:
        assert torch.equal(condition.keep, draw_kept_tokens((5, 5), 24, 0.5, seed=3))
