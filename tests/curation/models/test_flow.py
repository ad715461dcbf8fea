"""RAFT in its real format with weights of known output, and motion of subjects without the camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from curation.filters.motion import FlowMagnitude, measure_clip_flow, measure_flow_magnitude
from curation.model_spec import ModelSpec
from reprise.errors import RepriseError

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("torchvision", reason="needs torchvision")

from curation.models.pretrained.raft_flow import RaftFlow  # noqa: E402

STEP = (
    0.25,
    -0.125,
)  # what the flow head of `constant` adds with each update, at an eighth of the resolution
UPDATES = 4
SHIFT = (STEP[0] * UPDATES * 8, STEP[1] * UPDATES * 8)  # so the flow, in pixels: 8 right, 4 up


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def random_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("raft") / "raft_small.pth", "raft_small")


@pytest.fixture(scope="module")
def constant_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("raft") / "constant.pth", "raft_small", constant=True)


def save(file: Path, name: str, constant: bool = False) -> Path:
    """A state dict as torchvision publishes it; `constant`: every update adds STEP for any input."""
    from torchvision.models import optical_flow

    torch.manual_seed(0)
    model: Any = getattr(optical_flow, name)(weights=None)
    if constant:
        head = model.update_block.flow_head.conv2
        torch.nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor(STEP)
    torch.save(model.state_dict(), file)
    return file


def load(file: Path, **options: Any) -> RaftFlow:
    return RaftFlow(ModelSpec(backend="raft", checkpoint=str(file), batch_size=2, options=options))


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])


@pytest.mark.parametrize(("height", "width"), [(128, 128), (130, 200), (64, 40), (31, 257)])
def test_flow_has_the_size_of_the_picture_whatever_that_is(
    constant_small: Path, height: int, width: int
) -> None:
    model = load(constant_small, updates=UPDATES)
    flow = model.estimate_flow([picture(height, width)], [picture(height, width, 1)])[0]
    assert flow.shape == (height, width, 2) and flow.dtype == np.float32
    # Pixels of the picture, x before y: neither padding nor the eighth of the resolution shows.
    inner = flow[8:-8, 8:-8]
    assert np.allclose(inner, SHIFT, atol=1e-3)


def test_the_size_of_raft_is_detected_from_its_keys(tmp_path: Path) -> None:
    model = load(save(tmp_path / "large.pth", "raft_large"), updates=1)
    assert model.variant == "large"
    assert model.estimate_flow([picture(128, 136)], [picture(128, 136)])[0].shape == (128, 136, 2)


def test_sizes_may_be_mixed_and_results_keep_their_order(random_small: Path) -> None:
    model = load(random_small, updates=3)
    sizes = [(128, 160), (136, 128), (128, 160), (127, 160), (128, 160)]
    before = [picture(height, width, seed) for seed, (height, width) in enumerate(sizes)]
    after = [np.roll(image, 3, axis=1) for image in before]
    together = model.estimate_flow(before, after)
    for position, flow in enumerate(together):
        single = model.estimate_flow([before[position]], [after[position]])[0]
        assert flow.shape == (*before[position].shape[:2], 2)
        assert np.allclose(flow, single, atol=1e-3 * max(1.0, float(np.abs(single).max())))


def test_padding_changes_nothing_where_there_is_none_and_little_elsewhere(random_small: Path) -> None:
    """A pixel keeps its place: the same picture, one row longer, has the same flow at its top."""
    model = load(random_small, updates=1)
    before, after = picture(136, 128, 1), picture(136, 128, 2)
    whole = model.estimate_flow([before], [after])[0]
    shorter = model.estimate_flow([before[:135]], [after[:135]])[0]
    scale = float(np.abs(whole).mean())
    assert np.abs(whole[:100] - shorter[:100]).mean() < 0.2 * scale


def test_a_pixel_keeps_its_coordinates(random_small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network whose flow at a pixel is that pixel's red and green, the output is the picture."""
    model = load(random_small)
    monkeypatch.setattr(model, "_model", lambda before, after, num_flow_updates: [before[:, :2]])
    for height, width in ((130, 200), (64, 40), (31, 257)):
        image = picture(height, width)
        flow = model.estimate_flow([image], [image])[0]
        assert np.allclose(flow, image[..., :2] / 127.5 - 1, atol=1e-6)


def test_pictures_of_a_pair_must_agree_in_size(random_small: Path) -> None:
    with pytest.raises(ValueError, match="different sizes"):
        load(random_small).estimate_flow([picture(128, 128)], [picture(128, 136)])
    assert load(random_small).estimate_flow([], []) == []


def test_a_checkpoint_of_another_model_is_one_line(tmp_path: Path, random_small: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(RepriseError, match="another model than RAFT") as error:
        load(tmp_path / "other.pth")
    assert "\n" not in str(error.value)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(RepriseError, match="not a state dict"):
        load(tmp_path / "list.pth")
    data = random_small.read_bytes()
    (tmp_path / "half.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(RepriseError, match="damaged or incomplete"):
        load(tmp_path / "half.pth")
    with pytest.raises(RepriseError, match="no option update; known: updates"):
        load(random_small, update=3)
    with pytest.raises(RepriseError, match="updates must be int"):
        load(random_small, updates="3")


# ---- motion of the subject, proxy replay A.5 --------------------------------------------------------------


def field(
    foreground: tuple[float, float], background: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    mask = np.zeros((20, 30), bool)
    mask[5:10, 5:15] = True
    flow = np.empty((20, 30, 2), np.float32)
    flow[:] = background
    flow[mask] = foreground
    return flow, mask


def test_motion_is_the_mean_length_on_each_side_of_the_mask() -> None:
    motion = measure_flow_magnitude(*field((3, 4), (0, -2)))
    assert motion == FlowMagnitude(pytest.approx(5), pytest.approx(2))
    # The mean of lengths, not the length of the mean: what shakes moves.
    flow, mask = field((0, 0), (0, 0))
    flow[mask] = np.where((np.arange(mask.sum()) % 2)[:, None] == 0, (6, 0), (-6, 0))
    assert measure_flow_magnitude(flow, mask).foreground == pytest.approx(6)


def test_nothing_to_measure_is_none_and_not_zero() -> None:
    flow, mask = field((3, 4), (0, 0))
    assert measure_flow_magnitude(flow, np.zeros_like(mask)).foreground is None
    assert measure_flow_magnitude(flow, np.ones_like(mask)).background is None
    flow[5, 5] = np.nan
    assert measure_flow_magnitude(flow, mask).foreground == pytest.approx(5)
    assert measure_clip_flow([], mask) == FlowMagnitude(None, None)
    with pytest.raises(ValueError, match="does not fit"):
        measure_flow_magnitude(flow[:5], mask)


def test_a_clip_is_the_mean_over_its_frames() -> None:
    flows = [field((step, 0), (1, 0)) for step in (10, 20, 60)]
    motion = measure_clip_flow([flow for flow, _ in flows], flows[0][1])
    assert motion == FlowMagnitude(pytest.approx(30), pytest.approx(1))
