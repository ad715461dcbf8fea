"""SAM 2 video: a subject is followed from any frame to both ends of its clip."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the pretrained profile is not installed")
pytest.importorskip("transformers", reason="the pretrained profile is not installed")

from curation.imaging.codec import decode_mask, get_mask_box  # noqa: E402
from curation.model_spec import ModelSpec  # noqa: E402
from curation.models.pretrained.sam2_video import Sam2Video  # noqa: E402
from curation.models.roles import SubjectTrack  # noqa: E402
from reprise.errors import RepriseError  # noqa: E402
from tests.curation.models import tiny_perception as tiny  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam2") / "video"
    tiny.save_sam2_video(path)
    return path


@pytest.fixture(scope="module")
def tracker(folder: Path) -> Sam2Video:
    return Sam2Video(ModelSpec(backend="sam2", checkpoint=str(folder), device="cpu"))


def clip(length: int, height: int = 75, width: int = 121) -> list[np.ndarray]:
    return [tiny.picture(height, width, seed=index) for index in range(length)]


@pytest.mark.parametrize("start", [0, 3, 5])
def test_every_box_has_a_track_over_every_frame(tracker: Sam2Video, start: int) -> None:
    tracks = tracker.track(clip(6), start, [[10.0, 10.0, 60.0, 60.0], [30.0, 20.0, 100.0, 70.0]])
    assert len(tracks) == 2
    for track in tracks:
        assert len(track.boxes) == len(track.masks) == len(track.presence) == 6
        assert all(0 <= chance <= 1 for chance in track.presence)
        for box, mask in zip(track.boxes, track.masks, strict=True):
            assert (box is None) == (mask is None)
            assert mask is None or (mask["size"] == [75, 121] and get_mask_box(decode_mask(mask)) == box)


class Follower(torch.nn.Module):  # type: ignore[name-defined]
    """In the place of the model: a subject is where the frame is bright, in the session's scale."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[int, bool]] = []

    def propagate_in_video_iterator(self, session, start_frame_idx, reverse):
        self.requests.append((start_frame_idx, reverse))
        order = range(start_frame_idx, -1, -1) if reverse else range(start_frame_idx, session.num_frames)
        for index in order if not reverse or start_frame_idx else []:
            bright = session.get_frame(index).squeeze().mean(0) > 0
            masks = torch.where(bright, 4.0, -4.0)[None, None].repeat(session.get_obj_num(), 1, 1, 1)
            logits = torch.full((session.get_obj_num(), 1), 2.0 if bright.any() else -2.0)
            yield type("Out", (), {"frame_idx": index, "pred_masks": masks, "object_score_logits": logits})


def test_boxes_of_a_track_are_pixels_of_the_frames(folder: Path) -> None:
    """Through the real processor: what moves in a clip of odd size is boxed where it is, or not at all."""
    tracker = Sam2Video(ModelSpec(backend="sam2", checkpoint=str(folder), device="cpu"))
    tracker._model = Follower()
    frames = [np.zeros((75, 121, 3), np.uint8) for _ in range(7)]
    wanted = []
    for index, frame in enumerate(frames):
        box = None if index == 4 else [10 + 9 * index, 20 + 3 * index, 40 + 9 * index, 45 + 3 * index]
        wanted.append(box)
        if box:
            frame[box[1] : box[3], box[0] : box[2]] = 255
    (track,) = tracker.track(frames, 2, [[28.0, 26.0, 58.0, 51.0]])
    assert tracker._model.requests == [(2, False), (2, True)]
    for box, found in zip(wanted, track.boxes, strict=True):
        assert (found is None) == (box is None)
        assert box is None or found == pytest.approx(box, abs=1.01)
    assert track.visible_share == pytest.approx(6 / 7)
    assert [chance > 0.5 for chance in track.presence] == [box is not None for box in wanted]


def test_subjects_are_followed_independently(tracker: Sam2Video) -> None:
    frames, boxes = clip(5), [[10.0, 10.0, 60.0, 60.0], [30.0, 20.0, 100.0, 70.0]]
    together = tracker.track(frames, 1, boxes)
    for box, track in zip(boxes, together, strict=True):
        (single,) = tracker.track(frames, 1, [box])
        assert single.presence == pytest.approx(track.presence, abs=1e-4)


def test_no_box_is_no_track_and_a_frame_that_is_not_there_is_a_mistake(tracker: Sam2Video) -> None:
    assert tracker.track(clip(2), 0, []) == []
    with pytest.raises(ValueError, match="frame 2 of 2"):
        tracker.track(clip(2), 2, [[0.0, 0.0, 5.0, 5.0]])


def test_the_share_of_frames_in_which_it_is_seen() -> None:
    mask = {"size": [1, 1], "counts": "0"}
    assert SubjectTrack([[0, 0, 1, 1], None], [mask, None], [1.0, 0.1]).visible_share == 0.5
    assert SubjectTrack([], [], []).visible_share == 0


def test_wrong_and_half_files_are_one_clear_line(folder: Path, tmp_path: Path) -> None:
    tiny.save_sam_hf(tmp_path / "sam")
    half = tmp_path / "half"
    shutil.copytree(folder, half)
    tiny.truncate(half / "model.safetensors")
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    for file in bare.glob("*processor*"):
        file.unlink()
    for path in (tmp_path / "sam", half, bare):
        with pytest.raises(RepriseError) as caught:
            Sam2Video(ModelSpec(backend="sam2", checkpoint=str(path), device="cpu"))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
