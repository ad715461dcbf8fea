"""Settings of any kind: a pydantic model from YAML and `key=value` overrides; what is wrong, in one line.

The curation config and the training config are both read here, by the doors.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo

from reprise.errors import RepriseError

M = TypeVar("M", bound=BaseModel)


def load_settings(model: type[M], path: str | Path | None = None, overrides: Iterable[str] = ()) -> M:
    """Read a YAML file, apply `key.sub=value` overrides (values in YAML), check everything.

    `tasks.0.batch=32` changes an entry of a list; the number after the last one appends an entry.

    Raises:
        RepriseError: no such file, not YAML, an unknown key (with the nearest known one), or a bad value.
    """
    data: Any = {}
    if path is not None:
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise RepriseError(f"cannot read the config {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RepriseError(f"the config {path} is not UTF-8 text") from error
        except yaml.YAMLError as error:
            raise RepriseError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(data, dict):
            raise RepriseError(f"{path} must hold `key: value` lines at the top")
    _apply_overrides(model, data, overrides)
    return validate_settings(model, data, str(path) if path else "the command line")


def with_overrides(config: M, overrides: Iterable[str]) -> M:
    """`config` with `key.sub=value` overrides applied and checked."""
    data = config.model_dump(mode="json")
    _apply_overrides(type(config), data, overrides)
    return validate_settings(type(config), data, "the command line")


def validate_settings(model: type[M], data: Any, where: str) -> M:
    """A config from plain data.

    Raises:
        RepriseError: an unknown key or a bad value, `where` saying whose.
    """
    try:
        return model.model_validate(_remove_empty_sections(model, data))
    except ValidationError as error:
        raise RepriseError(f"{where}: {_explain_validation_error(model, error)}") from error


def list_keys(model: type[BaseModel], prefix: str = "", *, with_entries: bool = False) -> Iterator[str]:
    """Every dotted key that a config can hold; with `entries` also those of a list's first entry."""
    for name, field in model.model_fields.items():
        yield prefix + name
        section = get_section(field.annotation)
        if section is not None:
            yield from list_keys(section, f"{prefix}{name}.", with_entries=with_entries)
        for kind in list_entry_sections(field.annotation) if with_entries else ():
            yield from list_keys(kind, f"{prefix}{name}.0.", with_entries=with_entries)


def get_section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, or None where it holds a value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def list_entry_sections(annotation: Any) -> list[type[BaseModel]]:
    """The kinds of section that a list can hold; none where it holds values, or is no list."""
    if get_origin(annotation) not in (tuple, list):
        return []
    members = [_unwrap_annotation(each) for each in _list_union_members(get_args(annotation)[0])]
    return [section for each in members if (section := get_section(each)) is not None]


# ---- overrides -------------------------------------------------------------------------------------------


def _apply_overrides(model: type[BaseModel], data: dict[str, Any], overrides: Iterable[str]) -> None:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise RepriseError(
                f"{override!r} is no override: write key=value, for example {_make_example(model)}"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RepriseError(f"the value of {key} is not YAML: {text!r}") from error
        _set_key(data, key, value)


def _set_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, making the sections above it; a number in it counts the entries of a list."""
    container: Any = data
    parts = key.split(".")
    for depth, part in enumerate(parts):
        index: Any = part
        if isinstance(container, list):
            name = ".".join(parts[:depth])
            if not part.isdecimal() or int(part) > len(container):
                has = (
                    f"0 to {len(container) - 1} are there, {len(container)} would be new"
                    if container
                    else "0 would be new"
                )
                raise RepriseError(f"{key}: {name} is a list; write {name}.NUMBER.KEY ({has})")
            index = int(part)
            if index == len(container):
                container.append(None)
        elif not isinstance(container, dict):
            raise RepriseError(f"{key}: {parts[depth - 1]} holds a value, not a section")
        if depth == len(parts) - 1:
            container[index] = value
            return
        below = container[index] if isinstance(container, list) else container.get(index)
        if below is None:
            container[index] = below = [] if parts[depth + 1].isdecimal() else {}
        container = below


def _make_example(model: type[BaseModel]) -> str:
    for name, field in model.model_fields.items():
        for key, inner in (
            section.model_fields if (section := get_section(field.annotation)) else {}
        ).items():
            if isinstance(inner.default, int | float) and not isinstance(inner.default, bool):
                return f"{name}.{key}={inner.default:g}"
    return "key=value"


def _remove_empty_sections(model: type[BaseModel], data: Any) -> Any:
    """A section whose keys are all commented out is null in YAML, and means its defaults."""
    if not isinstance(data, dict):
        return data
    kept = {}
    for name, value in data.items():
        field = model.model_fields.get(name)
        section = get_section(field.annotation) if field else None
        if section is None:
            kept[name] = value
        elif value is not None:
            kept[name] = _remove_empty_sections(section, value)
    return kept


# ---- what is wrong ---------------------------------------------------------------------------------------


def _explain_validation_error(model: type[BaseModel], error: ValidationError) -> str:
    # A value that may be of several kinds is one mistake, and pydantic's as many as there are kinds.
    mistakes: dict[str, list[tuple[Any, type[BaseModel] | None, FieldInfo | None]]] = {}
    for each in error.errors():
        parts, section, field = _locate_mistake(model, each["loc"])
        mistakes.setdefault(".".join(map(str, parts)), []).append((each, section, field))
    key, same = next(iter(mistakes.items()))
    first, section, field = same[0]
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        near = _find_nearest_key(model, section, key)
        return f"unknown key {key}" + (f"; did you mean {near}?" if near else "") + more
    if kind in ("model_type", "model_attributes_type"):
        return f"{key} is a section: write {key}.KEY=VALUE, or a mapping in YAML{more}"
    if kind in ("tuple_type", "list_type") and field and list_entry_sections(field.annotation):
        return f"{key} is a list: write {key}.0.KEY=VALUE, or `- KEY: VALUE` lines in YAML{more}"
    if kind == "missing":
        description = f": {field.description}" if field and field.description else ""
        return f"{key} is missing{description}{more}"
    if kind == "union_tag_not_found":
        name = str(context["discriminator"]).strip("'")
        return f"{key}.{name} is missing: {_join_alternatives(field)}{more}"
    if kind == "union_tag_invalid":
        name = str(context["discriminator"]).strip("'")
        near = next(iter(difflib.get_close_matches(str(context["tag"]), _list_kinds(field), n=1)), None)
        hint = f"; did you mean {near}?" if near else ""
        return f"{key}.{name}: must be {_join_alternatives(field)}, not {context['tag']!r}{hint}{more}"
    message = ", or ".join(each["msg"].removeprefix("Value error, ") for each, _, _ in same)
    message = message.replace(", or Input should be", ", or")
    is_our_message = kind == "value_error"
    given = "" if is_our_message or isinstance(first["input"], dict) else f", not {first['input']!r}"
    return f"{key}: {message}{given}{more}" if key else f"{message}{given}{more}"


def _locate_mistake(
    model: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[list[int | str], type[BaseModel] | None, FieldInfo | None]:
    """The dotted key of a mistake, the section it is in, and its field.

    Pydantic also names, in between, which of the kinds that a value may have it took it for: left out here.
    """
    parts: list[int | str] = []
    annotation: Any = model
    section: type[BaseModel] | None = model
    field: FieldInfo | None = None
    for part in loc:
        annotation = _unwrap_annotation(annotation)
        members = _list_union_members(annotation)
        if len(members) > 1:  # the part says which kind
            annotation = next((each for each in members if part in _list_kind_names(each)), None)
            continue
        parts.append(part)
        if inner := get_section(annotation):
            section, field = inner, inner.model_fields.get(str(part))
            annotation = field.annotation if field else None
        elif get_origin(annotation) in (list, tuple, dict):
            annotation = get_args(annotation)[-1 if get_origin(annotation) is dict else 0]
        else:
            annotation = None
    return parts, section, field


def _unwrap_annotation(annotation: Any) -> Any:
    """Without metadata, and without None where that leaves one kind."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    members = _list_union_members(annotation)
    return (
        _unwrap_annotation(members[0]) if len(members) == 1 and members[0] is not annotation else annotation
    )


def _list_union_members(annotation: Any) -> list[Any]:
    """The kinds that a value may have, None left out; the annotation itself where it is one kind."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, types.UnionType):
        return [annotation]
    return [each for each in get_args(annotation) if each is not type(None)]


def _list_kind_names(annotation: Any) -> set[str]:
    """What pydantic may call one of several kinds: its tag, a value of its discriminator, its class."""
    tags = {each.tag for each in getattr(annotation, "__metadata__", ()) if isinstance(each, Tag)}
    plain = _unwrap_annotation(annotation)
    section = get_section(plain)
    if section is None:
        return tags | {getattr(plain, "__name__", "")}
    literals = (field.annotation for field in section.model_fields.values())
    values = {str(value) for each in literals if get_origin(each) is Literal for value in get_args(each)}
    return tags | values | {section.__name__}


def _list_kinds(field: FieldInfo | None) -> list[str]:
    """The values of `kind` that the entries of a list can have."""
    kinds = [each.model_fields["kind"] for each in list_entry_sections(field.annotation)] if field else []
    return [str(value) for each in kinds for value in get_args(each.annotation)]


def _join_alternatives(field: FieldInfo | None) -> str:
    *others, last = _list_kinds(field) or ["?"]
    return f"{', '.join(others)} or {last}" if others else last


def _find_nearest_key(model: type[BaseModel], section: type[BaseModel] | None, key: str) -> str | None:
    """The known key that was meant: of the same section, else that name elsewhere, else any like it."""
    known = list(list_keys(model, with_entries=True))
    parent, _, last = key.rpartition(".")
    siblings = {
        name: f"{parent}.{name}" if parent else name for name in (section.model_fields if section else ())
    }
    tails = {name.rpartition(".")[2]: name for name in known}
    for names in (siblings, tails):
        near = difflib.get_close_matches(last, list(names), n=1)
        if near:
            return names[near[0]]
    return next(iter(difflib.get_close_matches(key, known, n=1)), None)
