"""SAM 2 for video by transformers: follows subjects through a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoProcessor, Sam2VideoModel

from curation.imaging.codec import RGB, encode_mask, mask_box
from curation.models.checkpoints import resolve
from curation.models.pretrained.device import Batches, place
from curation.models.pretrained.loading import options, pretrained, processor
from curation.models.pretrained.masks import clean_mask
from curation.models.pretrained.sam_hf import model_type
from curation.models.roles import Track
from curation.models.spec import ModelSpec
from curation.rows.schema import Mask
from reprise.errors import RepriseError

_WHAT = "SAM 2 video (transformers)"
_Seen = tuple[list[float] | None, Mask | None, float]  # of one subject in one frame: box, mask, presence


class Sam2Video:
    """roles.Tracker; no options. `batch_size` is subjects at a time: each has a memory of its own.

    Raises:
        RepriseError: no checkpoint, one of another model, or one without its processor.
    """

    name = "sam2-video"

    def __init__(self, spec: ModelSpec) -> None:
        options(spec)
        self._place = place(spec)
        self._batches = Batches(spec.batch_size)
        checkpoint = resolve(spec)
        self.revision = checkpoint.revision
        self.sha256 = checkpoint.sha256
        kind = model_type(checkpoint)
        if kind != "sam2_video":
            raise RepriseError(f"{checkpoint.path} holds a {kind}, not {_WHAT}")
        self._processor = processor(AutoProcessor, checkpoint, _WHAT)
        if getattr(self._processor, "video_processor", None) is None:
            raise RepriseError(f"{checkpoint.path} has no video processor, which {_WHAT} needs")
        # Weights stay in float32, see Place.autocast.
        self._model = pretrained(Sam2VideoModel, checkpoint, _WHAT, torch.float32).to(self._place.device)

    def track(self, frames: Sequence[RGB], start: int, boxes: Sequence[list[float]]) -> list[Track]:
        """Follow what each box holds in frame `start` to both ends of the clip.

        Args:
            frames: in time order, of one size; the model's memory spans a few frames, so neighbours should
                overlap: a few per second of film at least.
            boxes: xyxy pixels of frame `start`.

        Returns:
            One track per box.
        """
        if not 0 <= start < len(frames):
            raise ValueError(f"frame {start} of {len(frames)}")
        video = np.stack(frames)
        return self._batches(list(boxes), lambda some: self._follow(video, start, some))

    def _follow(self, video: RGB, start: int, boxes: Sequence[list[float]]) -> list[Track]:
        device = self._place.device
        session = self._processor.init_video_session(
            video=video,
            inference_device=device,
            video_storage_device="cpu",  # one frame at a time is needed on the GPU
            dtype=torch.float32,
        )
        self._processor.add_inputs_to_inference_session(
            session, frame_idx=start, obj_ids=list(range(len(boxes))), input_boxes=[[*map(list, boxes)]]
        )
        seen: dict[int, list[_Seen]] = {}
        with self._place.autocast():
            for reverse in (False, True):
                for out in self._model.propagate_in_video_iterator(
                    session, start_frame_idx=start, reverse=reverse
                ):
                    # Going back begins at `start` again; what was seen there with the prompts stays.
                    seen.setdefault(int(out.frame_idx), list(self._read(out, video.shape[1:3])))
        ordered = [seen[index] for index in range(len(video))]
        return [_track([subjects[row] for subjects in ordered]) for row in range(len(boxes))]

    @staticmethod
    def _read(out: Any, size: tuple[int, int]) -> Iterator[_Seen]:
        """Box, mask and presence of every subject in one frame, in the order of the boxes."""
        logits: torch.Tensor = out.pred_masks.float()
        chances: torch.Tensor = out.object_score_logits.float().sigmoid().flatten()
        for low, chance in zip(logits.reshape(-1, 1, 1, *logits.shape[-2:]), chances, strict=True):
            full = functional.interpolate(low, size, mode="bilinear", align_corners=False)
            mask = clean_mask((full[0, 0] > 0).cpu().numpy())
            box = mask_box(mask)
            yield box, encode_mask(mask) if box is not None else None, float(chance)


def _track(seen: Sequence[_Seen]) -> Track:
    return Track(
        [box for box, _, _ in seen], [mask for _, mask, _ in seen], [chance for _, _, chance in seen]
    )
