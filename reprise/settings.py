"""Read a pydantic model from YAML and `key=value` overrides, and explain a mistake in one line.

The configs of curation, encoding and training are all read here.
"""

from __future__ import annotations

import copy
import difflib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Tag, ValidationError
from pydantic.fields import FieldInfo

from reprise.errors import ConfigError

M = TypeVar("M", bound=BaseModel)
_MAX_DEPTH, _MAX_VALUES = 32, 100_000  # of a config
# An error of pydantic, the section it is in, and its field.
_Mistake = tuple[Any, type[BaseModel] | None, FieldInfo | None]


class SettingsSection(BaseModel):
    """A section of a config: unknown keys are errors, values are checked and do not change."""

    # Defaults are validated so that 1 and 1.0, and with them a hash, are the same in a file and without.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


def load_settings(model: type[M], path: str | Path | None = None, overrides: Iterable[str] = ()) -> M:
    """Read a YAML file, apply `key.sub=value` overrides (values in YAML), and check everything.

    `tasks.0.batch=32` changes an entry of a list. The number after the last one appends an entry.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (with the nearest known one), or a bad value. The
            message names the file, or the command line where an override is wrong.
    """
    return _apply_overrides(model, _read_yaml(path) if path else {}, overrides, str(path) if path else None)


def with_overrides(config: M, overrides: Iterable[str]) -> M:
    """`config` with `key.sub=value` overrides applied and checked."""
    return _apply_overrides(type(config), config.model_dump(mode="json"), overrides, None)


def validate_settings(model: type[M], data: Any, where: str) -> M:
    """A config from plain data.

    Args:
        model: the class of the config.
        data: nested mappings, lists and values.
        where: names the origin of the data in the message of an error.

    Raises:
        ConfigError: an unknown key or a bad value.
    """
    try:
        return model.model_validate(_remove_empty_sections(model, data))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain_validation_error(model, error)[1]}") from error


def flatten_keys(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings and lists to dotted keys, as `key=value` overrides write them.

    Returns:
        For example {"tasks.0.batch": 32, "seed": 1}. An empty mapping or list gives no key.
    """
    items: list[tuple[str, Any]]
    if isinstance(value, Mapping):
        items = [(str(key), each) for key, each in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(number), each) for number, each in enumerate(value)]
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, each in items:
        found |= flatten_keys(each, f"{prefix}.{key}" if prefix else key)
    return found


def list_keys(model: type[BaseModel], prefix: str = "", *, with_entries: bool = False) -> Iterator[str]:
    """Every dotted key that a config can hold; `with_entries` also those of a list's first entry."""
    for name, field in model.model_fields.items():
        yield prefix + name
        section = get_section(field.annotation)
        if section is not None:
            yield from list_keys(section, f"{prefix}{name}.", with_entries=with_entries)
        for kind in list_entry_sections(field.annotation) if with_entries else ():
            yield from list_keys(kind, f"{prefix}{name}.0.", with_entries=with_entries)


def get_section(annotation: Any) -> type[BaseModel] | None:
    """The class of the section that a field holds, or None where it holds a value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def list_entry_sections(annotation: Any) -> list[type[BaseModel]]:
    """The classes of section that a list can hold; none where it holds values, or is no list."""
    if get_origin(annotation) not in (tuple, list):
        return []
    members = [_unwrap_annotation(each) for each in _list_union_members(get_args(annotation)[0])]
    return [section for each in members if (section := get_section(each)) is not None]


# ---- overrides -------------------------------------------------------------------------------------------


def _apply_overrides(model: type[M], data: dict[str, Any], overrides: Iterable[str], file: str | None) -> M:
    """The config of a file's data with overrides. A mistake is blamed on the overrides or on the file.

    Raises:
        ConfigError: a bad key or value.
    """
    parsed = [_parse_override(model, override) for override in overrides]
    changed = copy.deepcopy(data)
    for key, value in parsed:
        _set_key(changed, key, value)
    try:
        return model.model_validate(_remove_empty_sections(model, changed))
    except ValidationError as error:
        wrong, message = _explain_validation_error(model, error)
        in_file = file is not None and not any(_is_related(key, wrong) for key, _ in parsed)
        if in_file and parsed:
            in_file = not _is_valid(model, data)  # a mistake of the whole config names no key
        raise ConfigError(f"{file if in_file else 'the command line'}: {message}") from error


def _is_related(override: str, wrong: str) -> bool:
    """Whether an override sets the wrong key, something in it, or something that it is in."""
    return f"{override}.".startswith(f"{wrong}.") or f"{wrong}.".startswith(f"{override}.")


def _is_valid(model: type[BaseModel], data: dict[str, Any]) -> bool:
    try:
        model.model_validate(_remove_empty_sections(model, data))
    except ValidationError:
        return False
    return True


def _read_yaml(path: str | Path) -> dict[str, Any]:
    try:
        data = _parse_yaml(Path(path).read_text(encoding="utf-8-sig")) or {}
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the config {path} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {_to_line(error)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold `key: value` lines at the top")
    return data


def _parse_yaml(text: str) -> Any:
    """Parse YAML of plain values.

    Raises:
        yaml.YAMLError: it is no YAML, or a value cannot be held: too deep, a date that does not exist.
    """
    try:
        data = yaml.safe_load(text)
        # Aliases may refer to what they are in, or multiply it beyond all memory.
        for count, _ in enumerate(_iterate_values(data, 0)):
            if count > _MAX_VALUES:
                raise yaml.YAMLError("it holds too many values")
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, TypeError) as error:
        raise yaml.YAMLError(str(error)) from error
    return data


def _iterate_values(data: Any, depth: int) -> Iterator[Any]:
    if depth > _MAX_DEPTH:
        raise RecursionError
    yield data
    for each in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from _iterate_values(each, depth + 1)
    if isinstance(data, dict) and not all(isinstance(key, str) for key in data):
        raise yaml.YAMLError("a key is no text")


def _to_line(error: Exception | str) -> str:
    """What an error says, in one line that can be printed."""
    text = " ".join(str(error).split())[:500]
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _parse_override(model: type[BaseModel], override: str) -> tuple[str, Any]:
    """The key and the value of `key=value`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is no override: write key=value, for example {_make_example(model)}")
    try:
        return key, _parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of {key} is not YAML: {text[:200]!r}") from error


def _set_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key and make the sections above it. A number in the key is the index of a list's entry."""
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
                raise ConfigError(f"{key}: {name} is a list; write {name}.NUMBER.KEY ({has})")
            index = int(part)
            if index == len(container):
                container.append(None)
        elif not isinstance(container, dict):
            raise ConfigError(f"{key}: {parts[depth - 1]} holds a value, not a section")
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
    """Drop sections that are null: in YAML, all keys of such a section are commented out."""
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


# ---- explanations ---------------------------------------------------------------------------------------


def _explain_validation_error(model: type[BaseModel], error: ValidationError) -> tuple[str, str]:
    """The dotted key of the first mistake, and a line about it."""
    # Where a value may be of several kinds, pydantic reports one error for each kind. It is one mistake.
    mistakes: dict[str, list[_Mistake]] = {}
    for each in error.errors():
        parts, section, field = _locate_mistake(model, each["loc"])
        mistakes.setdefault(".".join(map(str, parts)), []).append((each, section, field))
    key, same = next(iter(mistakes.items()))
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return key, _to_line(_explain_mistake(model, key, same)) + more


def _explain_mistake(model: type[BaseModel], key: str, same: Sequence[_Mistake]) -> str:
    """A line about one mistake; `same`: what pydantic says of it."""
    first, section, field = same[0]
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        near = _find_nearest_key(model, section, key)
        return f"unknown key {key}" + (f"; did you mean {near}?" if near else "")
    if kind in ("model_type", "model_attributes_type"):
        return f"{key} is a section: write {key}.KEY=VALUE, or a mapping in YAML"
    if kind in ("tuple_type", "list_type") and field and list_entry_sections(field.annotation):
        return f"{key} is a list: write {key}.0.KEY=VALUE, or `- KEY: VALUE` lines in YAML"
    if kind == "missing":
        description = f": {field.description}" if field and field.description else ""
        return f"{key} is missing{description}"
    if kind == "union_tag_not_found":
        name = str(context["discriminator"]).strip("'")
        return f"{key}.{name} is missing: {_join_alternatives(field)}"
    if kind == "union_tag_invalid":
        name = str(context["discriminator"]).strip("'")
        near = next(iter(difflib.get_close_matches(str(context["tag"]), _list_kinds(field), n=1)), None)
        hint = f"; did you mean {near}?" if near else ""
        return f"{key}.{name}: must be {_join_alternatives(field)}, not {context['tag']!r}{hint}"
    message = ", or ".join(each["msg"].removeprefix("Value error, ") for each, _, _ in same)
    message = message.replace(", or Input should be", ", or")
    is_our_message = kind == "value_error"
    given = "" if is_our_message or isinstance(first["input"], dict) else f", not {first['input']!r}"
    return f"{key}: {message}{given}" if key else f"{message}{given}"


def _locate_mistake(
    model: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[list[int | str], type[BaseModel] | None, FieldInfo | None]:
    """The dotted key of a mistake, the section it is in, and its field.

    Pydantic's location also names the kind that it took a value for. That part is skipped here.
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
    """The annotation without metadata, and without None where one kind is left."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    members = _list_union_members(annotation)
    return (
        _unwrap_annotation(members[0]) if len(members) == 1 and members[0] is not annotation else annotation
    )


def _list_union_members(annotation: Any) -> list[Any]:
    """The kinds that a value may have, without None; the annotation itself where it is one kind."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, types.UnionType):
        return [annotation]
    return [each for each in get_args(annotation) if each is not type(None)]


def _list_kind_names(annotation: Any) -> set[str]:
    """The names that pydantic may give to one of several kinds: tag, value of a discriminator, class."""
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
    """The known key that is most like a wrong one: in the same section, else in another, else anywhere."""
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
