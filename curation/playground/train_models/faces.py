"""The face pack: a detector, head pose and identity in InsightFace's file format, trained on drawn people.

It holds small models of a published pack: `det_playground.onnx` in the format of SCRFD (Guo et al., arXiv
2105.04714: scores, boxes and five points at strides 8, 16 and 32, two anchors a cell), `1k3d68.onnx` (3D
landmarks, from which InsightFace reads the head's pose) and `w_playground.onnx` (identity, after CosFace,
arXiv 1801.09414). InsightFace identifies them by the shapes of their inputs and outputs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from curation.imaging.codec import RGB, compute_box_iou, pad_box
from curation.model_spec import ModelSpec
from curation.playground.scenes import (
    Thing,
    ThingTruth,
    compose_things,
    degrade_picture,
    sample_names,
    sample_scene,
)
from curation.playground.train_models.auc import compute_auc
from curation.playground.train_models.grounding import HELD_OUT_SEED
from curation.playground.train_models.loop import (
    Metrics,
    TrainingBudget,
    TrainingRecipe,
    disable_gradients,
    train_recipe,
)
from curation.playground.train_models.sample_cache import SampleCache
from curation.playground.world import (
    PERSON,
    CanvasPlacement,
    FaceTruth,
    Figure,
    Gaze,
    draw_backdrop,
    measure_face,
    sample_body,
)  # fmt: skip

F32 = NDArray[np.float32]

SIDE: Final = 128  # px: pictures are scaled to it for detection
STRIDES: Final = (8, 16, 32)
_LARGEST: Final = (34, 70)  # px: larger faces are assigned to the next stride
_POSE_SIDE, _ID_SIDE = 192, 112  # px: sizes of inputs by which InsightFace identifies a file
_REDUCTION: Final = 4  # both inputs are reduced by this factor
_LANDMARKS: Final = 1103  # the last 68 of them are the face
IDENTITIES: Final = 300
OPTIONS: Final[dict[str, Any]] = {"det_sizes": [SIDE]}  # of the backend
SCENE_SIZES: Final = ((128, 96), (96, 96), (192, 144))  # (width, height)


# ---- models --------------------------------------------------------------------------------------


def _make_conv(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outside), nn.ReLU())


class FaceDetectorNet(nn.Module):
    """Detector: (1, 3, H, W) -> nine outputs; H and W multiples of 32, pixels as (value - 127.5) / 128."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _make_conv(3, 16, 2), _make_conv(16, 32, 2), _make_conv(32, 48, 2), _make_conv(48, 48)
        )
        self.deeper, self.deepest = _make_conv(48, 64, 2), _make_conv(64, 64, 2)
        self.sides = nn.ModuleList([nn.Conv2d(width, 48, 1) for width in (48, 64, 64)])
        self.heads = nn.ModuleList([nn.Sequential(_make_conv(48, 48), nn.Conv2d(48, 30, 1)) for _ in STRIDES])
        for head in self.heads:
            nn.init.constant_(cast(Any, head)[1].bias[:2], -4.0)

    def compute_maps(self, images: Tensor) -> list[Tensor]:
        """Return per stride (B, H, W, 2, 15), in strides: logit, distances to the box's sides, points."""
        near = self.stem(images)
        middle = self.deeper(near)
        far = self.deepest(middle)
        third = self.sides[2](far)
        second = self.sides[1](middle) + F.interpolate(third, scale_factor=2.0)
        first = self.sides[0](near) + F.interpolate(second, scale_factor=2.0)
        found = []
        for head, level in zip(self.heads, (first, second, third), strict=True):
            out = head(level).permute(0, 2, 3, 1)
            rest = out[..., 2:].reshape(*out.shape[:3], 2, 14)
            found.append(torch.cat([out[..., :2, None], rest], -1))
        return found

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return scores, boxes and keypoints of each stride, as SCRFD does."""
        maps = [each.reshape(-1, 15) for each in self.compute_maps(images)]
        scores = [each[:, :1].sigmoid() for each in maps]
        return (*scores, *(each[:, 1:5] for each in maps), *(each[:, 5:] for each in maps))


class LandmarkNet(nn.Module):
    """Landmarks: (1, 3, 192, 192) -> (1, 3309): x, y, z of 1,103 points, from the middle, in half inputs.

    A network predicts the rotation, scale and shift of the mean face, and the points are computed from them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _make_conv(3, 16, 2), _make_conv(16, 32, 2), _make_conv(32, 48, 2), _make_conv(48, 64, 2),
            nn.Flatten(), nn.Linear(64 * 9, 64), nn.ReLU(), nn.Linear(64, 12),
        )  # fmt: skip
        points = np.zeros((_LANDMARKS, 3, 3, 4), np.float32)
        mean = load_mean_face()
        for axis in range(3):
            points[-68:, axis, axis, :3] = mean
            points[-68:, axis, axis, 3] = 1
        basis = torch.from_numpy(points.reshape(_LANDMARKS * 3, 12).T.copy())
        self.register_buffer("basis", basis, persistent=False)

    def predict_pose(self, small: Tensor) -> Tensor:
        """Predict the 3 x 4 matrix from the mean face to the face: (B, 3, 48, 48) -> (B, 12)."""
        return cast(Tensor, self.trunk(small))

    def forward(self, images: Tensor) -> Tensor:
        """Return the landmarks of each face."""
        return self.predict_pose(F.avg_pool2d(images, _REDUCTION)) @ cast(Tensor, self.basis)


class RecogniserNet(nn.Module):
    """Identity: an aligned face (1, 3, 112, 112) -> (1, 64), whose direction is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _make_conv(3, 24), _make_conv(24, 48, 2), _make_conv(48, 64, 2), _make_conv(64, 64, 2),
            nn.Flatten(),
            nn.Linear(64 * 16, 64),
        )  # fmt: skip

    def embed_face(self, small: Tensor) -> Tensor:
        """Embed reduced faces, (B, 3, 28, 28) -> (B, 64)."""
        return cast(Tensor, self.trunk(small))

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings (n, 64)."""
        return self.embed_face(F.avg_pool2d(images, _REDUCTION))


class FacePack(nn.Module):
    """The three models and, for training, one vector per identity of the training set."""

    def __init__(self) -> None:
        super().__init__()
        self.detector, self.landmarks, self.recogniser = FaceDetectorNet(), LandmarkNet(), RecogniserNet()
        self.people = nn.Parameter(torch.randn(IDENTITIES, 64))


def load_mean_face() -> F32:
    """Load InsightFace's mean face, (68, 3): x right, y down, z towards the camera, its middle at 0."""
    from insightface.data import get_object

    found = np.asarray(get_object("meanshape_68.pkl"), np.float32)
    return np.asarray(found - found.mean(0), np.float32)


def save_pack(model: nn.Module, output: Path) -> None:
    """Write the three ONNX files of the pack."""
    pack = cast(Any, model)
    output.mkdir(parents=True, exist_ok=True)
    names = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in STRIDES]
    anyhow = {2: "height", 3: "width"}
    _export_onnx(pack.detector, SIDE, output / "det_playground.onnx", names, {"input.1": anyhow})
    _export_onnx(pack.landmarks, _POSE_SIDE, output / "1k3d68.onnx", ["fc1"])
    _export_onnx(pack.recogniser, _ID_SIDE, output / "w_playground.onnx", ["fc"])


def _export_onnx(
    model: nn.Module, side: int, file: Path, outputs: list[str], axes: dict[str, dict[int, str]] | None = None
) -> None:
    was = model.training
    torch.onnx.export(
        model.eval(), (torch.zeros(1, 3, side, side),), str(file), input_names=["input.1"],
        output_names=outputs, opset_version=17, dynamic_axes=axes, dynamo=False,
    )  # fmt: skip
    model.train(was)


# ---- pictures of people --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CrowdPicture:
    """A picture at detection size. `image`: (SIDE, SIDE, 3). `faces`: (n, 14) px, box and five points."""

    image: RGB
    faces: F32


def has_visible_face(seen: ThingTruth) -> bool:
    """Return whether a person's face is visible: not hidden, and turned at least a little to the camera."""
    if seen.face is None or not seen.face.visible.any():
        return False
    height, width = seen.mask.shape
    x0, y0, x1, y1 = pad_box(list(seen.face.box), 0, width, height)
    area = max(1.0, (seen.face.box[2] - seen.face.box[0]) * (seen.face.box[3] - seen.face.box[1]))
    return float(seen.mask[y0:y1, x0:x1].sum()) >= 0.55 * area


def make_crowd(seed: int, index: int) -> CrowdPicture:
    """Make the training picture with this number: a whole scene, or a person's crop as in the filters."""
    rng = np.random.default_rng([seed, 9, index])
    width, height = SCENE_SIZES[index % len(SCENE_SIZES)]
    names = sample_names(int(rng.integers(0, 3)), rng)
    if rng.uniform() < 0.85 and PERSON not in names:
        names.insert(int(rng.integers(len(names) + 1)), PERSON)
    picture = sample_scene(rng, width=width, height=height, names=names)
    people = [seen for seen in picture.truths if seen.name == PERSON]
    window = (0, 0, width, height)
    if people and rng.uniform() < 0.6:
        window = pad_box(people[0].box, float(rng.uniform(0, 0.2)), width, height)
    x0, y0, x1, y1 = window
    faces = [_flatten_face(seen.face) for seen in people if seen.face is not None and has_visible_face(seen)]
    rows = np.array(faces, np.float32).reshape(-1, 14) - np.array([x0, y0] * 7, np.float32)
    image, scale = letterbox_image(picture.image[y0:y1, x0:x1])
    return CrowdPicture(image, rows * np.float32(scale))


def _flatten_face(face: FaceTruth) -> list[float]:
    return [*face.box, *(float(v) for v in face.points.reshape(-1))]


def letterbox_image(image: RGB) -> tuple[RGB, float]:
    """Place a picture in the upper left of a black square of `SIDE` px, as SCRFD does; return the scale."""
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    w, h = max(1, int(width * scale)), max(1, int(height * scale))
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    square[:h, :w] = cv2.resize(np.ascontiguousarray(image), (w, h))
    return square, scale


@dataclass(frozen=True, slots=True)
class Portrait:
    """A picture of one person. `image`: RGB; `face`: the truth of its face."""

    image: RGB
    face: FaceTruth


def draw_portrait(rng: np.random.Generator, body: Figure, gaze: Gaze) -> Portrait:
    """Draw a picture of one person with a gaze."""
    side, half = 96, float(rng.uniform(20, 44))
    where = CanvasPlacement(
        48 + float(rng.uniform(-6, 6)), 48 + 0.4 * half + float(rng.uniform(-4, 4)), half,
        float(rng.uniform(-8, 8)),
    )  # fmt: skip
    canvas, _ = compose_things(draw_backdrop(side, side, rng), [Thing(PERSON, where, body=body, gaze=gaze)])
    return Portrait(degrade_picture(canvas, rng), measure_face(body, gaze, where))


def make_pose_sample(seed: int, index: int) -> tuple[NDArray[np.uint8], F32]:
    """Make a face as InsightFace crops it for landmarks, (3, 48, 48), and the target of `predict_pose`."""
    rng = np.random.default_rng([seed, 10, index])
    gaze = Gaze(float(rng.uniform(-95, 95)), float(rng.uniform(-25, 25)), float(rng.uniform(-20, 20)))
    made = draw_portrait(rng, sample_body(rng), gaze)
    x0, y0, x1, y1 = made.face.box
    wide, tall = (x1 - x0), (y1 - y0)
    cx = (x0 + x1) / 2 + wide * float(rng.normal(0, 0.05))
    cy = (y0 + y1) / 2 + tall * float(rng.normal(0, 0.05))
    scale = _POSE_SIDE / (max(wide, tall) * 1.5) * float(np.exp(rng.normal(0, 0.06)))
    small, half = scale / _REDUCTION, _POSE_SIDE / 2
    middle = half / _REDUCTION
    move = np.array([[small, 0, middle - small * cx], [0, small, middle - small * cy]])
    cut = cv2.warpAffine(made.image, move, (2 * int(middle), 2 * int(middle)))
    matrix = np.zeros((3, 4))
    matrix[:, :3] = gaze.rotation * (
        made.face.scale * scale / half / 0.66
    )  # 0.66: the mean face's half width
    matrix[:2, 3] = (np.array(made.face.centre) - (cx, cy)) * scale / half
    return np.asarray(cut.transpose(2, 0, 1), np.uint8).copy(), matrix.reshape(-1).astype(np.float32)


def make_identity_sample(seed: int, index: int) -> tuple[NDArray[np.uint8], int]:
    """Make a face as InsightFace aligns it, (3, 28, 28), and the index of its identity."""
    from insightface.utils import face_align

    rng = np.random.default_rng([seed, 11, index])
    who = index % IDENTITIES
    body = sample_body(np.random.default_rng([seed, 12, who]))
    gaze = Gaze(float(rng.uniform(-45, 45)), float(rng.uniform(-12, 12)), float(rng.uniform(-15, 15)))
    made = draw_portrait(rng, body, gaze)
    points = made.face.points + rng.normal(0, 0.05 * made.face.scale, (5, 2))
    aligned = face_align.norm_crop(made.image, landmark=points, image_size=_ID_SIDE)
    side = _ID_SIDE // _REDUCTION
    small = cv2.resize(aligned, (side, side), interpolation=cv2.INTER_AREA)
    return small.transpose(2, 0, 1).copy(), who


# ---- loss ----------------------------------------------------------------------------------------


def _prepare_batch(images: Sequence[NDArray[np.uint8]], rng: np.random.Generator, spread: float) -> Tensor:
    """Normalise (3, H, W) uint8 pictures to (B, 3, H, W) as InsightFace does, with random light."""
    batch = torch.from_numpy(np.stack(images)).float()
    light = torch.from_numpy(rng.uniform(0.9, 1.1, (len(images), 1, 1, 1))).float()
    return ((batch * light).clamp(max=255) - 127.5) / spread


def compute_detection_loss(maps: Sequence[Tensor], faces: Sequence[F32]) -> Tensor:
    """Compute the loss of cells with a face's middle, of its sides (GIoU and L1) and of its points (L1)."""
    loss = torch.zeros(())
    total = max(1, sum(len(each) for each in faces))
    for level, (found, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        aim = torch.zeros(found.shape[:4])
        for b, rows in enumerate(faces):
            for row in rows:
                size = max(row[2] - row[0], row[3] - row[1])
                if int(np.searchsorted(_LARGEST, size)) != level:
                    continue
                cx, cy = (row[0] + row[2]) / 2 / stride, (row[1] + row[3]) / 2 / stride
                columns = range(max(0, round(cx - 0.75)), min(found.shape[2], round(cx + 0.75) + 1))
                lines = range(max(0, round(cy - 0.75)), min(found.shape[1], round(cy + 0.75) + 1))
                for y in lines:
                    for x in columns:
                        aim[b, y, x] = 1
                        here = np.array([x, y] * 7, np.float32)
                        off = row / np.float32(stride) - here
                        off[:2] *= -1  # distances to the left and the top
                        true = torch.from_numpy(off)
                        predicted = found[b, y, x, :, 1:]
                        share = 1 / (len(columns) * len(lines) * 2 * total)
                        near = F.smooth_l1_loss(
                            predicted, true.expand_as(predicted), reduction="none", beta=0.1
                        )
                        loss = loss + share * (near[:, :4].sum() + 0.3 * near[:, 4:].sum())
        entropy = F.binary_cross_entropy_with_logits(found[..., 0], aim, reduction="none")
        sure = (found[..., 0].sigmoid() - aim).abs().detach()
        loss = loss + (sure * entropy).sum() / total
    return loss


def compute_face_loss(pack: Any, seed: int, step: int, size: int, samples: FaceSamples) -> Tensor:
    """Compute the sum of the three losses on batch number `step`."""
    rng = np.random.default_rng([seed, step, 5])
    crowds = samples.crowds.draw_samples(size, rng)
    images = _prepare_batch([each.image.transpose(2, 0, 1) for each in crowds], rng, 128)
    found = compute_detection_loss(pack.detector.compute_maps(images), [each.faces for each in crowds])
    turns = samples.poses.draw_samples(3 * size, rng)
    predicted = pack.landmarks.predict_pose(_prepare_batch([image for image, _ in turns], rng, 128))
    pose = F.smooth_l1_loss(predicted, torch.from_numpy(np.stack([m for _, m in turns])), beta=0.05)
    faces = samples.identities.draw_samples(3 * size, rng)
    looks = F.normalize(pack.recogniser.embed_face(_prepare_batch([image for image, _ in faces], rng, 127.5)))
    who = torch.tensor([each for _, each in faces])
    cosine = looks @ F.normalize(pack.people).T
    margin = 0.2 * F.one_hot(who, IDENTITIES)
    return found + 10 * pose + F.cross_entropy(16 * (cosine - margin), who)


@dataclass(frozen=True, slots=True)
class FaceSamples:
    """The samples of the three models of a face pack."""

    crowds: SampleCache[CrowdPicture]
    poses: SampleCache[tuple[NDArray[np.uint8], F32]]
    identities: SampleCache[tuple[NDArray[np.uint8], int]]


# ---- held-out ------------------------------------------------------------------------------------


@disable_gradients
def evaluate_pack(model: nn.Module, *, seed: int = HELD_OUT_SEED, pictures: int = 60) -> Metrics:
    """Save the pack, then measure it with `measure_pack`."""
    from curation.models.pretrained.insightface_faces import InsightFaces

    with tempfile.TemporaryDirectory() as folder:
        save_pack(model, Path(folder))
        spec = ModelSpec(backend="insightface", checkpoint=folder, options=OPTIONS)
        return measure_pack(InsightFaces(spec), seed=seed, pictures=pictures)


def measure_pack(backend: Any, *, seed: int, pictures: int) -> Metrics:
    """Measure a pack, loaded by the real backend, on unseen people.

    `face_found`: share of faces in crops of people that have a detected box of IoU >= 0.5. `face_right`:
    share of detections that are faces. `turn_error`: mean error of a found face's yaw, degrees, for yaws
    within 60 degrees. `front_right`: accuracy of "looks at the camera within 45 degrees". `same_auc`: AUC of
    the similarity, for two pictures of one person against pictures of different people.
    """
    hit, shown, right, claimed = 0, 0, 0, 0
    errors: list[float] = []
    front: list[bool] = []
    for index in range(pictures):
        one = make_crowd(seed, index)
        found = backend.detect_faces([one.image])[0]
        for row in one.faces:
            shown += 1
            hit += any(compute_box_iou(face.box, row[:4].tolist()) >= 0.5 for face in found)
        claimed += len(found)
        right += sum(
            any(compute_box_iou(face.box, row[:4].tolist()) >= 0.5 for row in one.faces) for face in found
        )
        rng = np.random.default_rng([seed, 13, index])
        gaze = Gaze(float(rng.uniform(-80, 80)), float(rng.uniform(-12, 12)), float(rng.uniform(-10, 10)))
        alone = draw_portrait(rng, sample_body(rng), gaze)
        seen = backend.detect_faces([alone.image])[0]
        if seen:
            if abs(gaze.yaw) < 60:
                errors.append(abs((seen[0].yaw or 0.0) - gaze.yaw))
            if not 40 < abs(gaze.yaw) < 50:
                front.append((seen[0].frontality >= 0.5) == (abs(gaze.yaw) < 45))
    same, other = _compare_portraits(backend, seed, pictures // 2)
    return {
        "face_found": round(hit / max(1, shown), 4),
        "face_right": round(right / max(1, claimed), 4),
        "turn_error": round(float(np.mean(errors)) if errors else 90.0, 2),
        "front_right": round(float(np.mean(front)) if front else 0.0, 4),
        "same_auc": round(compute_auc(same, other) if same and other else 0.0, 4),
    }


def _compare_portraits(backend: Any, seed: int, people: int) -> tuple[list[float], list[float]]:
    """Compute similarities of two pictures of each person, and of pictures of different people."""
    looks: list[list[F32]] = []
    for who in range(people):
        rng = np.random.default_rng([seed, 14, who])
        body = sample_body(rng)
        found = []
        for _ in range(2):
            gaze = Gaze(float(rng.uniform(-30, 30)), float(rng.uniform(-10, 10)), 0.0)
            faces = backend.detect_faces([draw_portrait(rng, body, gaze).image])[0]
            if faces and faces[0].embedding is not None:
                found.append(faces[0].embedding)
        if len(found) == 2:
            looks.append(found)
    same = [float(one @ other) for one, other in looks]
    others = [float(a[0] @ b[1]) for i, a in enumerate(looks) for j, b in enumerate(looks) if i != j]
    return same, others


def train_faces(
    output: Path, *, seed: int = 0, budget: TrainingBudget, size: int = 8, scenes: int = 6_000
) -> Metrics:
    """Train the pack on `scenes` pictures of each kind and save it in `output`."""
    torch.manual_seed(seed)
    samples = FaceSamples(
        SampleCache(lambda index: make_crowd(seed, index), scenes),
        SampleCache(lambda index: make_pose_sample(seed, index), scenes),
        SampleCache(lambda index: make_identity_sample(seed, index), scenes),
    )
    recipe = TrainingRecipe(
        role="faces",
        model=FacePack(),
        loss=lambda model, step: compute_face_loss(model, seed, step, size, samples),
        evaluate=evaluate_pack,
        save=save_pack,
        seed=seed,
        rate=2e-3,
        decay=0.01,
        average=0.99,
        details={"batch": size, "scenes": scenes, "format": "InsightFace pack (ONNX)", "input": f"{SIDE} px"},
    )
    return train_recipe(recipe, budget, output)
