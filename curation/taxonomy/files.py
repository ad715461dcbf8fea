"""Find and read the files of a taxonomy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from reprise.errors import RepriseError

SHIPPED_FILE = Path(__file__).with_name("taxonomy.yaml")
ADJECTIVES_FILE = Path(__file__).with_name("adjectives.yaml")

_PLAYGROUND_FOLDER = Path(__file__).parents[1] / "playground"
# Names that can be given instead of the path of a file.
NAMED_FILES = {
    "playground": _PLAYGROUND_FOLDER / "taxonomy.yaml",
    "plain": _PLAYGROUND_FOLDER / "plain.taxonomy.yaml",
}


class TaxonomyError(RepriseError):
    """A taxonomy file cannot be used. One line: the file, the place in it, the problem and what to do."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a repeated key is an error. Plain YAML would silently keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str):
                if key in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"'{key}' is given twice: merge the two", problem_mark=key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        TaxonomyError: the file is missing, no UTF-8, no YAML or no mapping, or a key is repeated.
    """
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise TaxonomyError(
            f"{file}: cannot be read ({error.strerror}): give the path of a YAML file"
        ) from None
    except UnicodeDecodeError:
        raise TaxonomyError(f"{file}: is not UTF-8 text: save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise TaxonomyError(f"{file}: {where}{error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise TaxonomyError(f"{file}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise TaxonomyError(f"{file}: is empty or no mapping: start it with 'groups:'")
    return data
