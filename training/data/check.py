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


def check_lengths(task: Task, buckets: Sequence[Bucket], patch: Size, workers: int) -> None:
    """Check that each worker of a sequence group gets tokens of every sample.

    Args:
        task: that is trained on the samples.
        buckets: of the task's samples.
        patch: (t, h, w) of the model, in latents.
        workers: of a sequence group.

    Raises:
        RepriseError: a video has fewer tokens than there are workers; names the bucket and the number.
    """
    for bucket in buckets:
        tokens = math.prod(bucket.size) // math.prod(patch)
        if tokens < workers:
            raise RepriseError(
                f"parallel.sequence: task {task.name} has videos of {tokens} tokens (bucket {bucket}), fewer "
                f"than the {workers} workers of a sequence group: use at most {tokens}"
            )


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
