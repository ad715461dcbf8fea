"""InsightFace on a pack of hand-made ONNX files in the published form, with known outputs.

The "detector" fires where a cell of 32 px is red and not blue, the "3D landmarks" are the mean face turned
by known angles, the "recogniser" returns the mean colour: so channel order, coordinates and angles are all
checked.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from curation.model_spec import ModelSpec
from reprise.errors import RepriseError

onnx = pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")
insightface = pytest.importorskip("insightface", reason="needs insightface")
pytest.importorskip("torch", reason="needs torch")

from curation.models.pretrained.insightface_faces import (  # noqa: E402
    InsightFaces,
    compute_frontality,
    estimate_turn,
)

POINTS = [(0.3, 0.35), (0.7, 0.35), (0.5, 0.55), (0.35, 0.75), (0.65, 0.75)]  # of the face's box
CELL = 32


def save(
    file: Path, inputs: list[Any], outputs: list[str], nodes: list[Any], weights: dict[str, Any], shapes: Any
) -> None:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes(name)) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def save_detector(file: Path, keypoints: bool = True, points: Any = POINTS) -> None:
    """SCRFD's form: scores, boxes and keypoints at strides 8, 16 and 32, two anchors a cell."""
    from onnx import helper

    box = np.array([[0, 0, 1, 1]], np.float32)  # from the anchor at a cell's corner to the next, in strides
    weights: dict[str, Any] = {
        "red": np.array([1, 0, -1], np.float32).reshape(1, 3, 1, 1) / 2,
        "column": np.array([-1, 1], np.int64),
        "zero": np.zeros((1, 1), np.float32),
        "box": box,
        "points": np.array(points, np.float32).reshape(1, 10),
        "lowest": np.float32(0),
        "highest": np.float32(1),
    }
    nodes = [helper.make_node("Conv", ["input.1", "red"], ["redness"])]
    names: dict[str, list[str]] = {"score": [], "bbox": [], "kps": []}
    for stride in (8, 16, 32):
        weights[f"gain{stride}"] = np.float32(1 if stride == CELL else 0)
        nodes += [
            helper.make_node(
                "AveragePool", ["redness"], [f"p{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            ),
            helper.make_node("Mul", [f"p{stride}", f"gain{stride}"], [f"g{stride}"]),
            helper.make_node("Clip", [f"g{stride}", "lowest", "highest"], [f"c{stride}"]),
            helper.make_node("Reshape", [f"c{stride}", "column"], [f"r{stride}"]),
            helper.make_node("Concat", [f"r{stride}", f"r{stride}"], [f"a{stride}"], axis=1),
            helper.make_node("Reshape", [f"a{stride}", "column"], [f"score{stride}"]),
            helper.make_node("Mul", [f"score{stride}", "zero"], [f"z{stride}"]),
            helper.make_node("Add", [f"z{stride}", "box"], [f"bbox{stride}"]),
        ]  # fmt: skip
        if keypoints:
            nodes.append(helper.make_node("Add", [f"z{stride}", "points"], [f"kps{stride}"]))
        for kind, found in names.items():
            found.append(f"{kind}{stride}")
    kinds = ("score", "bbox", "kps") if keypoints else ("score", "bbox")
    widths = {"score": 1, "bbox": 4, "kps": 10}
    if not keypoints:
        weights.pop("points")
    save(
        file, [1, 3, "height", "width"], [name for kind in kinds for name in names[kind]], nodes, weights,
        lambda name: ["n" + name, widths[name.rstrip("0123456789")]],
    )  # fmt: skip


def rotation(pitch: float, yaw: float, roll: float) -> NDArray[np.float64]:
    """Turned about x, then y, then z, in degrees: the convention of InsightFace's angles."""
    x, y, z = np.radians([pitch, yaw, roll])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def save_landmarks(file: Path, pitch: float, yaw: float, roll: float) -> None:
    """1k3d68's form: 1,103 points of which the last 68 count, as shares of half the 192 px input."""
    from insightface.data import get_object
    from onnx import helper

    mean = np.asarray(get_object("meanshape_68.pkl"), np.float64)
    turned = (mean - mean.mean(0)) @ rotation(pitch, yaw, roll).T
    turned *= 60 / np.abs(turned).max()
    points = np.zeros((1103, 3))
    points[-68:, :2] = turned[:, :2] / 96
    points[-68:, 2] = turned[:, 2] / 96
    weights = {
        "zero": np.zeros((1, 1), np.float32),
        "answer": points.reshape(1, -1).astype(np.float32),
        "row": np.array([1, 3], np.int64),
        "one": np.zeros((3, 1), np.float32),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["input.1"], ["mean"]),
        helper.make_node("Reshape", ["mean", "row"], ["flat"]),
        helper.make_node("MatMul", ["flat", "one"], ["nothing"]),
        helper.make_node("Add", ["nothing", "answer"], ["fc1"]),
    ]
    weights.pop("zero")
    save(file, [1, 3, 192, 192], ["fc1"], nodes, weights, lambda _: [1, 3309])


def save_recogniser(file: Path) -> None:
    from onnx import helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["input.1"], ["mean"]),
        helper.make_node("Reshape", ["mean", "row"], ["fc"]),
    ]
    save(file, [1, 3, 112, 112], ["fc"], nodes, {"row": np.array([1, 3], np.int64)}, lambda _: [1, 3])


def save_pack(
    folder: Path, pose: tuple[float, float, float] | None = (0, 0, 0), identity: bool = True
) -> Path:
    folder.mkdir(parents=True)
    save_detector(folder / "det_10g.onnx")
    if pose is not None:
        save_landmarks(folder / "1k3d68.onnx", *pose)
    if identity:
        save_recogniser(folder / "w600k_r50.onnx")
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("tried the network")

    monkeypatch.setattr(socket.socket, "connect", refused)


def load(folder: Path, **options: Any) -> InsightFaces:
    options = {"det_sizes": [640]} | options
    return InsightFaces(ModelSpec(backend="insightface", checkpoint=str(folder), options=options))


Box = tuple[int, int, int, int]
FACE: Box = (96, 64, 128, 96)


def scene(width: int, height: int, *boxes: Box, colour: tuple[int, int, int] = (255, 0, 0)) -> Any:
    image = np.full((height, width, 3), 128, np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1] = colour
    return image


def test_boxes_are_pixels_of_the_picture(tmp_path: Path) -> None:
    model = load(save_pack(tmp_path / "pack"))
    exact, halved, tall = model.detect_faces(
        [
            scene(640, 640, (96, 64, 128, 96)),
            scene(320, 240, (48, 32, 64, 48)),  # scaled by two to 640
            scene(240, 320, (16, 240, 32, 256)),
        ]
    )
    assert len(exact) == 1 and np.allclose(exact[0].box, [96, 64, 128, 96], atol=0.01)
    assert exact[0].score == pytest.approx(0.996, abs=0.01)
    assert np.allclose(halved[0].box, [48, 32, 64, 48], atol=0.01)
    assert np.allclose(tall[0].box, [16, 240, 32, 256], atol=0.01)
    assert model.detect_faces([scene(64, 64)]) == [[]]


def test_pictures_are_rgb(tmp_path: Path) -> None:
    """A red face is found and known as red; were red and blue swapped, a blue one would be."""
    model = load(save_pack(tmp_path / "pack"))
    red, blue = model.detect_faces(
        [scene(640, 640, (96, 64, 128, 96)), scene(640, 640, (96, 64, 128, 96), colour=(0, 0, 255))]
    )
    assert len(red) == 1 and blue == []
    assert red[0].embedding is not None
    assert np.argmax(red[0].embedding) == 0
    assert np.linalg.norm(red[0].embedding) == pytest.approx(1, abs=1e-5)


def test_the_surest_face_comes_first_and_every_picture_keeps_its_own(tmp_path: Path) -> None:
    model = load(save_pack(tmp_path / "pack"))
    image = scene(640, 640, (96, 64, 128, 96))
    image[320:352, 320:352] = (255, 0, 90)
    image[512:544, 32:64] = (255, 0, 45)
    several, none, one = model.detect_faces([image, scene(640, 640), scene(640, 640, (0, 0, 32, 32))])
    assert [round(face.box[0]) for face in several] == [96, 32, 320]
    assert none == [] and len(one) == 1


@pytest.mark.parametrize(
    ("pitch", "yaw", "roll"), [(0, 0, 0), (0, 45, 0), (-20, 30, 0), (10, -60, 15), (0, 0, 80)]
)
def test_angles_come_from_the_landmarks(tmp_path: Path, pitch: float, yaw: float, roll: float) -> None:
    face = load(save_pack(tmp_path / "pack", (pitch, yaw, roll))).detect_faces([scene(640, 640, FACE)])[0][0]
    assert (face.pitch, face.yaw, face.roll) == (
        pytest.approx(pitch, abs=0.5), pytest.approx(yaw, abs=0.5), pytest.approx(roll, abs=0.5),
    )  # fmt: skip
    assert face.frontality == pytest.approx(compute_frontality(yaw, pitch), abs=0.01)


def test_frontality_is_linear_in_the_angle_to_the_camera() -> None:
    assert compute_frontality(0, 0) == 1
    assert compute_frontality(45, 0) == compute_frontality(0, -45) == pytest.approx(0.5)
    assert compute_frontality(90, 0) == pytest.approx(0, abs=1e-6)
    assert compute_frontality(150, 0) == compute_frontality(180, 0) == 0  # the back of a head
    assert compute_frontality(30, 30) < compute_frontality(30, 0) < compute_frontality(20, 0)


def test_without_landmarks_the_five_points_tell_the_turn(tmp_path: Path) -> None:
    face = load(save_pack(tmp_path / "pack", pose=None, identity=False)).detect_faces(
        [scene(640, 640, FACE)]
    )[0][0]
    assert face.yaw == pytest.approx(0, abs=0.5) and face.pitch is None and face.embedding is None
    assert face.frontality == pytest.approx(1, abs=0.01)
    points = np.array(POINTS) * 100
    assert estimate_turn(points) == (pytest.approx(0), pytest.approx(0))
    turned = points.copy()
    turned[2, 0] += 20  # the nose over the right eye
    assert estimate_turn(turned)[0] == pytest.approx(45)
    spin = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    yaw, roll = estimate_turn(turned @ spin.T)
    assert yaw == pytest.approx(45) and roll == pytest.approx(np.degrees(0.5))
    assert estimate_turn(np.zeros((5, 2)))[0] == 90


def test_a_pack_in_a_folder_of_its_own_is_found(tmp_path: Path) -> None:
    save_pack(tmp_path / "antelopev2" / "antelopev2")
    assert load(tmp_path / "antelopev2").detect_faces([scene(640, 640, (96, 64, 128, 96))])[0]


def test_several_detection_sizes_find_a_face_once(tmp_path: Path) -> None:
    model = load(save_pack(tmp_path / "pack"), det_sizes=[128, 640])
    image = scene(640, 640, (0, 0, 160, 160))  # one cell of the small size
    found = model.detect_faces([image])[0]
    assert any(np.allclose(face.box, [0, 0, 160, 160], atol=0.1) for face in found)


def test_a_pack_that_is_not_here_or_not_whole_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    faceless = tmp_path / "faceless"
    faceless.mkdir()
    save_recogniser(faceless / "w600k_r50.onnx")
    blind = tmp_path / "blind"
    blind.mkdir()
    save_detector(blind / "det.onnx", keypoints=False)
    half = save_pack(tmp_path / "half")
    data = (half / "det_10g.onnx").read_bytes()
    (half / "det_10g.onnx").write_bytes(data[: len(data) // 2])
    for folder, message in (
        (tmp_path / "absent", "no checkpoint at"),
        (tmp_path / "empty", "holds no weights"),
        (faceless, "holds no face detector"),
        (blind, "cannot measure head pose"),
        (half, "damaged or incomplete"),
    ):
        with pytest.raises(RepriseError, match=message) as error:
            load(folder)
        assert "\n" not in str(error.value)
    with pytest.raises(RepriseError, match="multiples of 32"):
        load(save_pack(tmp_path / "fine"), det_sizes=[100])
    with pytest.raises(RepriseError, match="reprise models pull faces"):
        url = "https://github.com/deepinsight/insightface/releases/download/v0.7/antelopev2.zip"
        InsightFaces(ModelSpec(backend="insightface", checkpoint=url))
