"""The judge of the plain stage, held against scenes whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from curation.playground.plain import CELLS, IDENTITIES, WAYS, PlainScene, draw_picture, make_plain_scene
from evaluation.plain_stage import compare_parts, compute_likeness, is_frozen, judge_video


def video_of(scene: PlainScene) -> np.ndarray:
    return np.stack(
        [draw_picture(scene.identity, scene.get_centre(k / 2), scene.ground, CELLS)[0] for k in range(3)]
    )


def test_every_identity_and_way_is_recognised() -> None:
    for index in range(2 * len(IDENTITIES)):
        scene = make_plain_scene(3, index)
        shown = judge_video(video_of(scene))
        assert (shown.identity, shown.way) == (scene.identity, scene.way)
        assert np.abs(np.array(shown.ground) - scene.ground).max() < 0.01


def test_noise_and_blur_do_not_deceive_it() -> None:
    rng = np.random.default_rng(0)
    for index in range(20):
        scene = make_plain_scene(4, index)
        shown = judge_video(video_of(scene) + rng.normal(0, 0.03, (3, CELLS, CELLS, 3)).astype(np.float32))
        assert (shown.identity, shown.way) == (scene.identity, scene.way)


@pytest.mark.parametrize("seed", range(3))
def test_an_empty_picture_shows_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.uniform(size=(3, CELLS, CELLS, 3)).astype(np.float32)
    assert judge_video(noise).identity is None
    assert judge_video(np.full_like(noise, 0.5) + 0.01 * noise).identity is None


def test_a_still_or_jumping_object_has_no_direction() -> None:
    scene = make_plain_scene(3, 0)
    frames = video_of(scene)
    assert judge_video(np.stack([frames[0]] * 3)).way is None
    assert judge_video(frames[[0, 2, 1]]).way is None


def test_a_still_object_is_frozen_and_an_empty_video_is_not() -> None:
    frames = video_of(make_plain_scene(3, 0))
    still = judge_video(np.stack([frames[0]] * 3))
    assert is_frozen(still) and still.move_cells == 0
    assert not is_frozen(judge_video(frames)) and judge_video(frames).move_cells == pytest.approx(4)
    assert not is_frozen(judge_video(np.full_like(frames, 0.5)))


def test_likeness_counts_colour_shape_and_texture() -> None:
    scene = make_plain_scene(3, 0)
    shown = judge_video(video_of(scene))
    assert compute_likeness(shown, scene.identity) == 1
    for part, other in (("colour", "red"), ("shape", "ring"), ("texture", "plain")):
        wanted = next(
            replace(scene.identity, **{part: each})  # type: ignore[arg-type]
            for each in (other, *{getattr(i, part) for i in IDENTITIES})
            if each != getattr(scene.identity, part)
        )
        assert compute_likeness(shown, wanted) == pytest.approx(2 / 3)
        assert [name for name, right in compare_parts(shown, wanted).items() if not right] == [part]
    assert compute_likeness(judge_video(np.full((3, CELLS, CELLS, 3), 0.5, np.float32)), scene.identity) == 0


def test_scenes_are_as_likely_as_they_should_be() -> None:
    scenes = [make_plain_scene(0, index) for index in range(2000)]
    for found, possible in (
        ([s.way for s in scenes], list(WAYS)),
        ([s.identity.shape for s in scenes], sorted({i.shape for i in IDENTITIES})),
    ):
        for each in possible:
            assert abs(found.count(each) / len(scenes) - 1 / len(possible)) < 0.04


def test_a_thing_stays_in_the_frame_for_three_steps() -> None:
    for index in range(500):
        scene = make_plain_scene(1, index)
        for step in range(3):
            assert all(0.25 - 1e-9 <= place <= 0.75 + 1e-9 for place in scene.get_centre(step / 2))
