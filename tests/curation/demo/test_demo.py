"""The truth of the demo videos describes their pictures, and both are the same every time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco

from curation.demo import render_demo
from curation.demo.backdrops import OCCLUDERS, PLACES, get_backdrop, get_canvas_size, get_occluder
from curation.demo.cutouts import NAMES, get_cutout
from curation.demo.render import get_camera_matrix, get_pose_matrix, render_scene
from curation.demo.scenes import SCENES, Actor, ActorPath, ActorPose, DemoScene, DemoShot, View
from reprise.errors import InputError

U8 = npt.NDArray[np.uint8]


def _short(name: str, seconds: float = 0.4) -> DemoScene:
    scene = next(each for each in SCENES if each.name == name)
    return replace(scene, shots=tuple(replace(shot, seconds=seconds) for shot in scene.shots))


def _frames(video: Path) -> list[U8]:
    with av.open(str(video)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def _truth(video: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((video.parent / "truth" / f"{video.stem}.json").read_text())
    return content


def _mask(entry: dict[str, Any]) -> npt.NDArray[np.bool_]:
    rle = entry["mask"]
    decoded = coco.decode({"size": rle["size"], "counts": rle["counts"].encode("ascii")})
    return np.asarray(decoded, dtype=bool)


@pytest.fixture(scope="module")
def coin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_scene(_short("gold-coin"), tmp_path_factory.mktemp("demo"))


@pytest.mark.parametrize("name", NAMES)
def test_a_cutout_is_one_clean_piece(name: str) -> None:
    piece = get_cutout(name)
    alpha = piece.rgba[..., 3]
    assert piece.words and piece.rgba.shape[2] == 4
    assert 0.3 < float((alpha > 127).mean()) < 0.9  # cropped to its content, and not a rectangle
    assert float((alpha > 250).mean()) > 0.25  # solid inside
    assert all(alpha[edge].max() > 0 for edge in (0, -1))


def test_an_unknown_cutout_is_named() -> None:
    with pytest.raises(KeyError, match=r"no cut-out called 'dragon'.*astronaut"):
        get_cutout("dragon")


def test_every_place_fills_its_canvas() -> None:
    for name in PLACES:
        assert get_backdrop(name, 96, 54).shape == (*get_canvas_size(96, 54)[::-1], 3)
    for name in OCCLUDERS:
        layer = get_occluder(name, 96, 54)
        assert layer.shape == (*get_canvas_size(96, 54)[::-1], 4)
        assert 0.02 < float((layer[..., 3] > 127).mean()) < 0.3


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_scene_uses_what_exists_and_no_camera_leaves_its_backdrop(scene: DemoScene) -> None:
    assert scene.width % 2 == 0 and scene.height % 2 == 0
    canvas = np.array(get_canvas_size(scene.width, scene.height))
    for shot in scene.shots:
        assert shot.place in PLACES and (shot.occluder is None or shot.occluder in OCCLUDERS)
        assert 2.0 <= shot.seconds <= 5.0
        for t in (0.0, 0.5, 1.0):
            matrix = get_camera_matrix(shot.camera.get_view(t), scene.width, scene.height)
            corners = np.array([(0, 0), (scene.width, scene.height)]) - matrix[:, 2]
            corners /= matrix[0, 0]
            assert (corners >= -1e-6).all() and (corners <= canvas + 1e-6).all()


def test_there_are_all_kinds_of_scenes() -> None:
    actors = [actor for scene in SCENES for shot in scene.shots for actor in shot.actors]
    assert len({scene.name for scene in SCENES}) == len(SCENES) >= 12
    assert {scene.sidecar for scene in SCENES} == {"txt", "json"}
    assert any(scene.height > scene.width for scene in SCENES)
    assert {actor.quality for actor in actors} == {"good", "dark", "blurred", "static"}
    assert any(not actor.named for actor in actors)
    assert any(
        len({a.cutout for a in shot.actors if a.named}) > 1 for scene in SCENES for shot in scene.shots
    )


def test_a_pose_puts_the_anchor_at_its_position() -> None:
    matrix = get_pose_matrix(ActorPose(0.25, 0.5, 0.5, 30), (10, 20), 100, 640, 360)
    assert matrix @ (10, 20, 1) == pytest.approx((160, 180))
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(1.8**2)


def test_a_track_begins_and_ends_at_its_poses() -> None:
    track = ActorPath(begin=ActorPose(0, 0, 1), end=ActorPose(1, 1, 2, 90), glide=True, bob=0.1, beats=2)
    assert track.get_pose(0) == track.begin
    assert track.get_pose(1).x == 1 and track.get_pose(1).turn == 90


def test_truth_covers_exactly_the_frames_that_decode(coin: Path) -> None:
    truth, frames = _truth(coin), _frames(coin)
    assert truth["video"] == coin.name
    assert len(frames) == truth["num_frames"] == truth["shots"][-1]["end_frame"]
    assert frames[0].shape == (truth["height"], truth["width"], 3)
    assert [s["start_frame"] for s in truth["shots"]] == [0, *(s["end_frame"] for s in truth["shots"][:-1])]
    for subject in truth["subjects"]:
        shot = truth["shots"][subject["shot"]]
        assert {int(key) for key in subject["frames"]} == set(range(shot["start_frame"], shot["end_frame"]))


def test_boxes_are_tight_around_the_masks(coin: Path) -> None:
    for subject in _truth(coin)["subjects"]:
        for entry in subject["frames"].values():
            mask = _mask(entry)
            x0, y0, x1, y1 = entry["box_xyxy"]
            assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
            assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()
            assert 0 < entry["visible_share"] <= 1


def test_the_mask_of_a_frame_is_where_the_subject_is_in_that_frame(coin: Path) -> None:
    truth, frames = _truth(coin), _frames(coin)
    gold = next(s for s in truth["subjects"] if s["name"] == "coin" and s["shot"] == 0)
    for key, entry in gold["frames"].items():
        frame, mask = frames[int(key)].astype(int), _mask(entry)
        yellow = (frame[..., 0] - frame[..., 2]) > 40  # nothing else is, on the grey gravel
        assert (yellow & mask).sum() / (yellow | mask).sum() > 0.93
    # Frame-exact: the mask of one frame fits its own picture better than that of the frame after the next.
    keys = sorted(gold["frames"], key=int)
    frame = frames[int(keys[4])].astype(int)
    yellow = (frame[..., 0] - frame[..., 2]) > 40
    ious = [(yellow & m).sum() / (yellow | m).sum() for m in (_mask(gold["frames"][k]) for k in keys[2:7])]
    assert int(np.argmax(ious)) == 2


def test_captions_lie_beside_the_videos(coin: Path, tmp_path: Path) -> None:
    assert json.loads(coin.with_suffix(".json").read_text()) == {"caption": "A gold coin rolls by."}
    assert not coin.with_suffix(".txt").exists()
    video = render_scene(_short("no-dog", 0.1), tmp_path)
    assert video.with_suffix(".txt").read_text() == "A dog runs as fast as it can.\n"
    truth = _truth(video)
    assert [s["name"] for s in truth["subjects"]] == ["ball"] and not truth["subjects"][0]["named"]


def test_what_is_hidden_is_not_in_the_mask(tmp_path: Path) -> None:
    def walk(x: float) -> ActorPath:
        return ActorPath(begin=ActorPose(x, 0.5, 0.4), end=ActorPose(x, 0.5, 0.4))

    scene = replace(
        SCENES[0],
        name="hidden",
        shots=(
            DemoShot(
                place="gravel",
                seconds=0.08,
                camera=SCENES[2].shots[0].camera,
                actors=(
                    Actor(cutout="ball", track=walk(0.5)),
                    Actor(cutout="coin", track=walk(0.55)),
                    Actor(cutout="cup", track=walk(1.0)),
                ),
            ),
        ),
    )
    ball, coin, cup = (
        subject["frames"]["0"] for subject in _truth(render_scene(scene, tmp_path))["subjects"]
    )
    assert not (_mask(ball) & _mask(coin)).any()
    assert ball["visible_share"] < 0.6 and coin["visible_share"] > 0.98
    assert cup["visible_share"] == pytest.approx(0.5, abs=0.1) and cup["box_xyxy"][2] == scene.width


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(coin: Path, tmp_path: Path) -> None:
    scene = _short("gold-coin")
    again = render_scene(scene, tmp_path / "again")
    other = render_scene(scene, tmp_path / "other", seed=1)
    assert again.read_bytes() == coin.read_bytes()
    assert _truth(again) == _truth(coin) != _truth(other)


def test_the_encoder_is_exact_where_the_width_is_no_multiple_of_its_blocks(tmp_path: Path) -> None:
    scene = _short("cat-prowls", 0.3)
    first, second = (render_scene(scene, tmp_path / name) for name in ("first", "second"))
    assert scene.width % 16 and first.read_bytes() == second.read_bytes()


def test_render_demo_reports_and_returns_videos_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = (_short("title-card", 0.1), _short("no-dog", 0.1))
    monkeypatch.setattr("curation.demo.render.SCENES", short)
    lines: list[str] = []
    videos = render_demo(tmp_path / "new" / "folder", videos=3, on_progress=lines.append)
    assert [video.name for video in videos] == ["title-card.mp4", "no-dog.mp4", "title-card-2.mp4"]
    assert all(video.is_file() and _truth(video)["num_frames"] > 0 for video in videos)
    assert lines == ["1/3 title-card.mp4", "2/3 no-dog.mp4", "3/3 title-card-2.mp4"]
    with pytest.raises(InputError, match="at least 1"):
        render_demo(tmp_path, videos=0)


def test_the_view_can_reach_every_corner() -> None:
    matrix = get_camera_matrix(View(-1, -1, 1.0), 640, 360)
    assert matrix @ (0, 0, 1) == pytest.approx((0, 0))
