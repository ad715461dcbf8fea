"""The description of a table that Hugging Face `datasets` reads from a Parquet file's metadata."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

import pyarrow as pa

_DTYPES = {pa.float64(): "float64", pa.bool_(): "bool"}


def encode_features(fields: Iterable[pa.Field], images: Collection[pa.DataType]) -> bytes:
    """The `datasets` features of a table as JSON, so that the Hub and `load_dataset` show its pictures.

    Without it the library infers plain records of bytes from the Arrow types.

    Args:
        fields: the columns of the table.
        images: the Arrow types that hold an encoded picture.
    """

    def build_feature(kind: pa.DataType) -> Any:
        if kind in images:
            return {"_type": "Image"}
        if pa.types.is_struct(kind):
            return {field.name: build_feature(field.type) for field in kind}
        if pa.types.is_list(kind):
            return [
                build_feature(kind.value_type)
            ]  # the one spelling that every version of the library reads
        return {"dtype": _DTYPES.get(kind, str(kind)), "_type": "Value"}

    features = {field.name: build_feature(field.type) for field in fields}
    return json.dumps({"info": {"features": features}}).encode()
