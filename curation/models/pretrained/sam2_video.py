"""SAM 2 for video by transformers: follow subjects through a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoProcessor, Sam2VideoModel

from curation.imaging.codec import RGB, encode_mask, get_mask_box
from curation.model_spec import ModelSpec
from curation.models.checkpoints import resolve_checkpoint
from curation.models.pretrained.device import BatchRunner, choose_target
from curation.models.pretrained.loading import load_pretrained, load_processor, read_options
from curation.models.pretrained.masks import clean_mask
from curation.models.pretrained.sam_hf import read_model_type
from curation.models.roles import SubjectTrack
from curation.rows.schema import EncodedMask
from reprise.errors import RepriseError

_MODEL_LABEL = "SAM 2 video (transformers)"
_Observation = tuple[
    list[float] | None, EncodedMask | None, float
]  # of one subject in one frame: box, mask, presence


class Sam2Video:
    """roles.Tracker, without options.

    `batch_size` is the number of subjects at a time; each has its own memory.

    Raises:
        RepriseError: there is no checkpoint, it is of another model, or it lacks its processor.
    """

    name = "sam2-video"

    def __init__(self, spec: ModelSpec) -> None:
        read_options(spec)
        self._target = choose_target(spec)
        self._batches = BatchRunner(spec.batch_size)
        checkpoint = resolve_checkpoint(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        kind = read_model_type(checkpoint)
        if kind != "sam2_video":
            raise RepriseError(f"{checkpoint.path} holds a {kind}, not {_MODEL_LABEL}")
        self._processor = load_processor(AutoProcessor, checkpoint, _MODEL_LABEL)
        if getattr(self._processor, "video_processor", None) is None:
            raise RepriseError(f"{checkpoint.path} has no video processor, which {_MODEL_LABEL} needs")
        # Weights stay in float32, see `ComputeTarget.enter_autocast`.
        self._model = load_pretrained(Sam2VideoModel, checkpoint, _MODEL_LABEL, torch.float32).to(
            self._target.device
        )

    def track(self, frames: Sequence[RGB], start: int, boxes: Sequence[list[float]]) -> list[SubjectTrack]:
        """Follow the subject of each box in frame `start` to both ends of the clip.

        Args:
            frames: in time order, of one size; at least a few per second, because the model's memory spans
                only a few frames.
            start: index of the frame that the boxes are in.
            boxes: xyxy pixels of frame `start`.

        Returns:
            One track per box.
        """
        if not 0 <= start < len(frames):
            raise ValueError(f"frame {start} of {len(frames)}")
        video = np.stack(frames)
        return self._batches(list(boxes), lambda some: self._track_batch(video, start, some))

    def _track_batch(self, video: RGB, start: int, boxes: Sequence[list[float]]) -> list[SubjectTrack]:
        device = self._target.device
        session = self._processor.init_video_session(
            video=video,
            inference_device=device,
            video_storage_device="cpu",  # the GPU needs only one frame at a time
            dtype=torch.float32,
        )
        self._processor.add_inputs_to_inference_session(
            session, frame_idx=start, obj_ids=list(range(len(boxes))), input_boxes=[[*map(list, boxes)]]
        )
        observations: dict[int, list[_Observation]] = {}
        with self._target.enter_autocast():
            for reverse in (False, True):
                for out in self._model.propagate_in_video_iterator(
                    session, start_frame_idx=start, reverse=reverse
                ):
                    # The backward pass begins at `start` again; the result of the prompts in that frame is
                    # kept.
                    observations.setdefault(
                        int(out.frame_idx), list(self._read_output(out, video.shape[1:3]))
                    )
        ordered = [observations[index] for index in range(len(video))]
        return [_build_track([subjects[row] for subjects in ordered]) for row in range(len(boxes))]

    @staticmethod
    def _read_output(out: Any, size: tuple[int, int]) -> Iterator[_Observation]:
        """Read box, mask and presence of every subject in one frame, in the order of the boxes."""
        logits: torch.Tensor = out.pred_masks.float()
        chances: torch.Tensor = out.object_score_logits.float().sigmoid().flatten()
        for low, chance in zip(logits.reshape(-1, 1, 1, *logits.shape[-2:]), chances, strict=True):
            full = functional.interpolate(low, size, mode="bilinear", align_corners=False)
            mask = clean_mask((full[0, 0] > 0).cpu().numpy())
            box = get_mask_box(mask)
            yield box, encode_mask(mask) if box is not None else None, float(chance)


def _build_track(observations: Sequence[_Observation]) -> SubjectTrack:
    return SubjectTrack(
        [box for box, _, _ in observations],
        [mask for _, mask, _ in observations],
        [chance for _, _, chance in observations],
    )
