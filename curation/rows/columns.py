"""A column is declared once, as a field of a `TypedDict`; Arrow types, blank records and documents follow.

    class Shot(TypedDict):
        start_s: Annotated[float, Column("first frame, s")]
        label: Annotated[str | None, Column("null: not measured", since=2)]

A field's type is `str`, `bytes`, `bool`, `int`, `Int32`, `float`, another such record, or a list of one of
them, each with `| None` where null has a meaning.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

import pyarrow as pa

Int32 = Annotated[int, pa.int32()]

_PLAIN_TYPES = {
    str: pa.string(),
    bytes: pa.binary(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
}
_REQUIRED = object()

Record = TypeVar("Record")


@dataclass(frozen=True)
class Column:
    """What the type of a field does not say.

    Attributes:
        meaning: what the value means, with its unit and range, and what null means.
        since: version of the schema that added the column; an older file reads as null there.
        blank: value in a blank record, where neither null nor an empty list or record is meant.
    """

    meaning: str
    since: int = 1
    blank: Any = _REQUIRED


@dataclass(frozen=True)
class ColumnDescription:
    """A column of a table or of a record nested in it: dotted name, type as text, and meaning."""

    name: str
    type: str
    meaning: str


def derive_fields(record: type) -> list[pa.Field]:
    """The Arrow fields of a record, in the order in which they are declared."""
    return [pa.field(name, _derive_type(hint)) for name, hint in _get_hints(record).items()]


def make_blank_record(record: type[Record], **given: Any) -> Record:
    """A record in which nothing is known but `given`.

    A column that may be null is null, a list or a record of optional fields is empty.

    Raises:
        TypeError: `given` lacks a column that has no blank value, or names an unknown one.
    """
    hints = _get_hints(record)
    unknown = given.keys() - hints.keys()
    if unknown:
        raise TypeError(f"{record.__name__} has no column {', '.join(sorted(unknown))}")
    values = {
        name: given[name] if name in given else _make_blank_value(record, name, hint)
        for name, hint in hints.items()
    }
    return cast(Record, values)


def list_later_columns(record: type, version: int) -> frozenset[str]:
    """Dotted names of the columns that were added after a version of the schema."""
    return frozenset(_iterate_later_columns(record, version, ""))


def describe_columns(record: type, opaque: Iterable[type] = (), prefix: str = "") -> list[ColumnDescription]:
    """Every column of a record, and below each nested record its own, for documents.

    Args:
        record: the record.
        opaque: records whose own columns are left out.
        prefix: text before each name.
    """
    found = []
    for name, hint in _get_hints(record).items():
        inner, is_list = _unwrap_list(hint)
        shown = "record" if is_typeddict(inner) else str(_derive_type(inner))
        suffix = "[]" if is_list else ""
        found.append(ColumnDescription(prefix + name, shown + suffix, _get_column(hint).meaning))
        if is_typeddict(inner) and inner not in opaque:
            found += describe_columns(inner, opaque, f"{prefix}{name}{suffix}.")
    return found


def _get_hints(record: type) -> dict[str, Any]:
    return get_type_hints(record, include_extras=True)


def _get_column(hint: Any) -> Column:
    for note in getattr(hint, "__metadata__", ()):
        if isinstance(note, Column):
            return note
    raise TypeError(f"a column of type {hint} is declared without a Column")


def _derive_type(hint: Any) -> pa.DataType:
    if get_origin(hint) is Annotated:
        stated = next((note for note in hint.__metadata__ if isinstance(note, pa.DataType)), None)
        return stated if stated is not None else _derive_type(hint.__origin__)
    if get_origin(hint) in (types.UnionType, Union):
        return _derive_type(_strip_optional(hint))
    if get_origin(hint) is list:
        return pa.list_(_derive_type(get_args(hint)[0]))
    if is_typeddict(hint):
        return pa.struct(derive_fields(hint))
    return _PLAIN_TYPES[hint]


def _make_blank_value(record: type, name: str, hint: Any) -> Any:
    column = _get_column(hint)
    if column.blank is not _REQUIRED:
        return column.blank
    plain = hint.__origin__
    if _is_optional(plain):
        return None
    if get_origin(plain) is list:
        return []
    if is_typeddict(plain) and not plain.__required_keys__:
        return {}
    raise TypeError(f"{record.__name__}.{name} has no blank value: give one")


def _iterate_later_columns(record: type, version: int, prefix: str) -> Iterable[str]:
    for name, hint in _get_hints(record).items():
        inner, _ = _unwrap_list(hint)
        if _get_column(hint).since > version:
            yield prefix + name
        elif is_typeddict(inner):
            yield from _iterate_later_columns(inner, version, f"{prefix}{name}.")


def _unwrap_list(hint: Any) -> tuple[Any, bool]:
    """(type of a list's items, True), or (the type, False); annotations and null removed."""
    plain = _strip_annotation(_strip_optional(_strip_annotation(hint)))
    if get_origin(plain) is list:
        return get_args(plain)[0], True
    return plain if is_typeddict(plain) else hint, False


def _strip_annotation(hint: Any) -> Any:
    return hint.__origin__ if get_origin(hint) is Annotated else hint


def _strip_optional(hint: Any) -> Any:
    if not _is_optional(hint):
        return hint
    (inner,) = [each for each in get_args(hint) if each is not types.NoneType]
    return inner


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (types.UnionType, Union) and types.NoneType in get_args(hint)
