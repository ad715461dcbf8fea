"""Whether every sample can be batched, and shared by the workers of a sequence group: said before the first
step, not later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reprise.errors import RepriseError
from training.data.sampler import Bucket
from training.latents.store import Records
from training.models.packing import Size


def check_lengths(
    task: str, buckets: Sequence[Bucket], records: Records, patch: Size, workers: int, *, fewest: int
) -> None:
    """Video and references must have a number of tokens that `workers` divides, in every bucket.

    fewest: references that a step of the task may have (none to the bucket's capacity, or at least one).

    Raises:
        RepriseError: names the bucket and the number.
    """
    for bucket in buckets:
        pictures = _count_reference_tokens(records, bucket, patch) if bucket.capacity else set()
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


def check_shapes(
    option: str, buckets: Sequence[Bucket], records: Records, variants: Sequence[str], micro_batch: int
) -> None:
    """Samples of one forward pass must have references of one size.

    option: of the micro-batch in the config.
    variants: of the references that the task may choose.

    Raises:
        RepriseError: they have sizes of their own.
    """
    for bucket in buckets if micro_batch > 1 else ():
        references = _get_references(records, bucket)
        chosen = pc.is_in(pc.struct_field(references, "variant"), value_set=pa.array(variants, pa.string()))
        height, width = (np.asarray(pc.struct_field(references, side)) for side in ("height", "width"))
        sizes = np.unique(np.stack([height, width], axis=1)[np.asarray(chosen)], axis=0)
        if bucket.capacity and len(sizes) > 1:
            named = " and ".join(f"{high}x{wide}" for high, wide in sizes[[0, -1]].tolist())
            raise RepriseError(
                f"{option}: {micro_batch} samples cannot be computed together where references have sizes of "
                f"their own (bucket {bucket}: {named} latent pixels): set it to 1, or encode with "
                "references.size=video"
            )


def _get_references(records: Records, bucket: Bucket) -> pa.Array:
    """References of a bucket's samples."""
    subjects = pc.list_flatten(records.table["subjects"].take(pa.array(bucket.rows)))
    return pc.list_flatten(pc.struct_field(subjects, "references"))


def _count_reference_tokens(records: Records, bucket: Bucket, patch: Size) -> set[int]:
    """Numbers of tokens that references of a bucket's samples have."""
    references = _get_references(records, bucket)
    pixels = pc.multiply(pc.struct_field(references, "height"), pc.struct_field(references, "width"))
    return {count // (patch[1] * patch[2]) for count in pc.unique(pixels).to_pylist()}
