"""Whether the workers of a sequence group can share every sample: said before the first step, not later."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from training.errors import RepriseError
from training.latents.store import Records
from training.packing import Size
from training.sampler import Bucket


def check_lengths(
    task: str, buckets: Sequence[Bucket], records: Records, patch: Size, workers: int, *, fewest: int
) -> None:
    """Video and references must have a number of tokens that `workers` divides, in every bucket.

    fewest: references that a step of the task may have (none to the bucket's capacity, or at least one).

    Raises:
        RepriseError: names the bucket and the number.
    """
    for bucket in buckets:
        pictures = _reference_tokens(records, bucket, patch) if bucket.capacity else set()
        lengths = {math.prod(bucket.size) // math.prod(patch)}
        for count in range(bucket.capacity + 1):
            bad = [length for length in lengths if length % workers]
            if bad and count >= min(fewest, bucket.capacity):
                raise RepriseError(
                    f"parallel.sequence: task {task} has samples of {min(bad)} tokens (bucket {bucket}; "
                    f"{count} references), which {workers} workers cannot share evenly: use a number that "
                    "divides them, or 1"
                )
            # Only what is left over matters: so the set stays small.
            sums = {length + picture for length in lengths for picture in pictures}
            lengths = set({length % workers: length for length in sums}.values())


def _reference_tokens(records: Records, bucket: Bucket, patch: Size) -> set[int]:
    """Numbers of tokens that references of a bucket's samples have."""
    subjects = pc.list_flatten(records.table["subjects"].take(pa.array(bucket.rows)))
    references = pc.list_flatten(pc.struct_field(subjects, "references"))
    pixels = pc.multiply(pc.struct_field(references, "height"), pc.struct_field(references, "width"))
    return {count // (patch[1] * patch[2]) for count in pc.unique(pixels).to_pylist()}
