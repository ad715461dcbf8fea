"""Check, before the first step, that samples can be batched and shared by the workers of a sequence group."""

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
from training.tasks.task import Task


def check_lengths(
    task: Task, buckets: Sequence[Bucket], records: Records, patch: Size, workers: int, *, adds_tokens: bool
) -> None:
    """Check that the workers of a sequence group can share the tokens of every sample evenly.

    Args:
        task: that is trained on the samples.
        buckets: of the task's samples.
        records: the index that the buckets' rows are of.
        patch: (t, h, w) of the model, in latents.
        workers: of a sequence group.
        adds_tokens: whether references are tokens of the sequence.

    Raises:
        RepriseError: `workers` does not divide the tokens; names the bucket and the number.
    """
    for bucket in buckets:
        pictures: set[int] = set()
        if adds_tokens and bucket.capacity:
            sizes = _count_reference_tokens(records, bucket, task.list_variants(), patch)
            pictures = {task.count_visible_tokens(tokens) for tokens in sizes}
        wanted = task.get_count_shares(bucket.capacity)
        lengths = {math.prod(bucket.size) // math.prod(patch)}
        for count in range(bucket.capacity + 1):
            bad = [length for length in lengths if length % workers]
            if bad and count in wanted:
                raise RepriseError(
                    f"parallel.sequence: task {task.name} has samples of {min(bad)} tokens (bucket {bucket}; "
                    f"{count} references), which {workers} workers cannot share evenly: use a number that "
                    "divides them, or 1"
                )
            # Only the remainder matters, so one length for each remainder is enough.
            sums = {length + picture for length in lengths for picture in pictures or {0}}
            lengths = set({length % workers: length for length in sums}.values())


def check_shapes(
    option: str, buckets: Sequence[Bucket], records: Records, variants: Sequence[str], micro_batch: int
) -> None:
    """Check that the samples of one forward pass have references of one size.

    Args:
        option: key of the micro-batch in the config, for the message.
        buckets: of the task's samples.
        records: the index that the buckets' rows are of.
        variants: of the references that the task may choose.
        micro_batch: samples of one forward pass.

    Raises:
        RepriseError: references of a bucket have different sizes.
    """
    for bucket in buckets if micro_batch > 1 else ():
        references = _get_references(records, bucket, variants)
        height, width = (np.asarray(pc.struct_field(references, side)) for side in ("height", "width"))
        sizes = np.unique(np.stack([height, width], axis=1), axis=0)
        if bucket.capacity and len(sizes) > 1:
            named = " and ".join(f"{high}x{wide}" for high, wide in sizes[[0, -1]].tolist())
            raise RepriseError(
                f"{option}: {micro_batch} samples cannot be computed together where references have sizes of "
                f"their own (bucket {bucket}: {named} latent pixels): set it to 1, or encode with "
                "references.size=video"
            )


def _get_references(records: Records, bucket: Bucket, variants: Sequence[str]) -> pa.Array:
    """References of the given variants of a bucket's samples."""
    subjects = pc.list_flatten(records.table["subjects"].take(pa.array(bucket.rows)))
    references = pc.list_flatten(pc.struct_field(subjects, "references"))
    names = pc.struct_field(references, "variant")
    return references.filter(pc.is_in(names, value_set=pa.array(variants, pa.string())))


def _count_reference_tokens(
    records: Records, bucket: Bucket, variants: Sequence[str], patch: Size
) -> set[int]:
    """Numbers of tokens of the references that samples of a bucket may show."""
    references = _get_references(records, bucket, variants)
    pixels = pc.multiply(pc.struct_field(references, "height"), pc.struct_field(references, "width"))
    return {count // (patch[1] * patch[2]) for count in pc.unique(pixels).to_pylist()}
