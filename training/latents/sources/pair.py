"""A pair of pictures of one subject: a reference, which the model sees, and a target, which it makes."""

from __future__ import annotations

from dataclasses import dataclass

from training.data.samples import PAIR_VARIANT
from training.latents.config import PairsConfig
from training.latents.sources.source import EncodeItem, SubjectPicture


@dataclass(frozen=True, slots=True)
class PicturePair:
    """A reference and a target that show one subject."""

    pair_id: str
    source_id: str  # pairs of one source are held out together
    subject: str  # name of the subject
    caption: str  # of the target
    reference: bytes  # an encoded picture
    target: bytes  # an encoded picture


def make_item(pair: PicturePair, config: PairsConfig) -> EncodeItem:
    """Convert a pair to an item to encode. Its target becomes a video of one frame."""
    caption = f"{config.words} {pair.caption}" if config.words else pair.caption
    picture = SubjectPicture(
        f"{pair.pair_id}-subject", pair.subject, f"{pair.pair_id}-reference", PAIR_VARIANT, pair.reference
    )
    return EncodeItem(pair.pair_id, pair.source_id, caption, pair.target, (picture,), still=True)
