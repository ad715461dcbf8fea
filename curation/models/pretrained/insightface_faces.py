"""Detect faces with InsightFace, from a model pack on this machine.

The published packs (antelopev2, buffalo_l, ...) are for **non-commercial research only**; the licence of the
code is another one. A user's own pack in the same format works too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.imaging.codec import RGB
from curation.model_spec import ModelSpec
from curation.models.checkpoints import resolve_checkpoint
from curation.models.pretrained.contrastive import normalize_rows
from curation.models.pretrained.device import choose_target
from curation.models.pretrained.loading import explain_loading_errors, read_options
from curation.models.roles import Face
from reprise.errors import RepriseError

_DETECTION, _POSE, _IDENTITY = "detection", "landmark_3d_68", "recognition"


class InsightFaces:
    """roles.FaceDetector. `checkpoint` is a pack: a folder of ONNX files.

    A pack must hold a detector (SCRFD) and should hold the 3D landmarks (head pose) and a recogniser
    (identity embedding). Without 3D landmarks, yaw and roll of the head are estimated from the detector's
    five points. Without a recogniser, there is no embedding.

    Options: `det_sizes`, sides of the squares to which each picture is scaled for detection, px (SCRFD misses
    a face that fills a large square, so a small square is tried too); `det_thresh`, 0..1.
    """

    name = "insightface"

    def __init__(self, spec: ModelSpec) -> None:
        """Load the pack without the network.

        Raises:
            RepriseError: the pack is not here, damaged, or lacks a face detector.
        """
        given = read_options(spec, det_sizes=[128, 640], det_thresh=0.5)
        sizes = given["det_sizes"]
        if not sizes or any(type(side) is not int or side < 32 or side % 32 for side in sizes):
            raise RepriseError(f"models: insightface option det_sizes must be multiples of 32, not {sizes!r}")
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        pack = find_pack_folder(checkpoint.path)
        # The import takes a second, so missing files are reported first.
        from insightface.app import FaceAnalysis

        device = choose_target(spec).device
        providers, context = ["CPUExecutionProvider"], -1
        if device.type == "cuda":
            providers, context = ["CUDAExecutionProvider", "CPUExecutionProvider"], device.index or 0
        with explain_loading_errors(checkpoint, "an InsightFace pack"):
            try:
                self._app: Any = FaceAnalysis(
                    name=str(pack), providers=providers, allowed_modules=[_DETECTION, _POSE, _IDENTITY]
                )
            except AssertionError as error:
                raise RepriseError(
                    f"{pack} holds no face detector: an ONNX file with at least 5 outputs (SCRFD)"
                ) from error
            self._app.prepare(
                ctx_id=context,
                det_thresh=float(given["det_thresh"]),
                det_size=[(side, side) for side in sizes],
            )
        if _POSE not in self._app.models and not self._app.det_model.use_kps:
            raise RepriseError(
                f"{pack} cannot measure head pose: add 3D landmarks, or a detector with keypoints"
            )

    def detect_faces(self, images: Sequence[RGB]) -> list[list[Face]]:
        """Find the faces of each picture, the surest first.

        Boxes are in pixels of the picture and inside it.
        """
        return [self._detect_image(image) for image in images]

    def _detect_image(self, image: RGB) -> list[Face]:
        # InsightFace expects BGR, as OpenCV reads it. In RGB it finds fewer and other faces.
        found = self._app.get(np.ascontiguousarray(image[..., ::-1]))
        faces = [_convert_face(each, image.shape[1], image.shape[0]) for each in found]
        return sorted(
            (face for face in faces if face is not None),
            key=lambda face: (-face.score, face.box[0], face.box[1]),
        )


def find_pack_folder(path: Path) -> Path:
    """Find the folder of a pack's ONNX files: the path, or the only folder in it (as in antelopev2.zip).

    Raises:
        RepriseError: there is no such folder.
    """
    if path.is_dir():
        if any(path.glob("*.onnx")):
            return path
        inside = [
            folder for folder in sorted(path.iterdir()) if folder.is_dir() and any(folder.glob("*.onnx"))
        ]
        if len(inside) == 1:
            return inside[0]
    raise RepriseError(f"{path} is no InsightFace pack: give a folder with ONNX files")


def compute_frontality(yaw: float, pitch: float) -> float:
    """Compute how much a face looks at the camera, 0..1, from its angles in degrees.

    The result is 1 - a / 90 with a = acos(cos yaw * cos pitch), the angle between the direction of the gaze
    and that to the camera: 1 straight ahead, 0.5 at 45 degrees, 0 in profile and beyond. Roll does not count,
    because a tilted head still shows its whole face.
    """
    cosine = np.cos(np.radians(yaw)) * np.cos(np.radians(pitch))
    angle = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return max(0.0, 1 - angle / 90)


def estimate_turn(points: NDArray[np.floating]) -> tuple[float, float]:
    """Estimate (yaw, roll), degrees, from five points (5, 2), px: left eye, right eye, nose, mouth corners.

    Roll is the slope of the line through the eyes. Along this line, the nose is p sin(yaw) away from the
    middle of the eyes, and each eye e cos(yaw). We assume p = e: the nose protrudes as far as each eye is
    from the middle. Then tan(yaw) is the ratio. Positive yaw: the nose points to the picture's right.
    """
    left, right, nose = (np.asarray(point, np.float64) for point in points[:3])
    across = right - left
    half = float(np.hypot(*across)) / 2
    roll = float(np.degrees(np.arctan2(across[1], across[0])))
    if half == 0:
        return 90.0, 0.0
    offset = float(np.dot(nose - (left + right) / 2, across)) / (2 * half)
    return float(np.degrees(np.arctan2(offset, half))), roll


def _convert_face(found: Any, width: int, height: int) -> Face | None:
    """Convert a face; None: its box is outside the picture."""
    x0, y0, x1, y1 = (float(side) for side in found.bbox)
    x0, x1 = np.clip([x0, x1], 0, width).tolist()
    y0, y1 = np.clip([y0, y1], 0, height).tolist()
    if x1 <= x0 or y1 <= y0:
        return None
    pitch: float | None
    if found.pose is not None:
        pitch, yaw, roll = (float(angle) for angle in found.pose)
    else:
        pitch, (yaw, roll) = None, estimate_turn(found.kps)
    embedding = None if found.embedding is None else normalize_rows(np.asarray(found.embedding)[None])[0]
    front = compute_frontality(yaw, pitch or 0.0)
    return Face([x0, y0, x1, y1], float(found.det_score), front, yaw, pitch, roll, embedding)
