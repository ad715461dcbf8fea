"""Measure how functions are named: `python -m tests.house.names` prints the shares and what to rename.

A function is named verb + object. Two numbers show how far the tree is from that: the share of names that
are one word, and the share of names that are a participle. Names that are not free are left out:
dunders, properties, methods that a Protocol of this tree declares, and methods that a library's base class
declares.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("reprise", "pipelines", "curation", "training", "evaluation", "benchmarks")
ONE_WORD_LIMIT = 0.25
PARTICIPLE_LIMIT = 0.01

# Data of the playground's checkpoints, in the format of a released model.
SKIPPED_FOLDERS = {"weights", "__pycache__"}

PROPERTIES = {
    "property",
    "cached_property",
    "setter",
    "deleter",
    "overload",
    "field_validator",
    "model_validator",
    "field_serializer",
    "computed_field",
}

# Methods whose names a library fixes: base class (as it is written) -> methods.
FIXED_BY_LIBRARIES = {
    "Module": {"forward", "train", "eval"},
    "Function": {"forward", "backward"},
    "Optimizer": {"step"},
    "Thread": {"run"},
    "HTMLParser": {"feed", "close"},
}

# Forms of verbs that are not the base form and do not end in -ed or -ing. Words that are also base forms or
# nouns (`run`, `shot`, `left`) are not among them.
IRREGULAR = """
begun been bent bound born borne bought bred broken brought built caught chosen clung dealt done
drawn driven dug eaten fallen fed felt flown forgotten fought found frozen given gone grown heard
held hidden hung kept known laid lain learnt lent lost made meant met mown paid proven ridden risen
said seen sent sewn shaken shone shown slept slid slung sold sought spent spilt spoken sprung spun
stolen stood struck stuck sung sunk sworn swept swum taken taught thought thrown told torn
understood woken won worn woven written
"""
IRREGULAR_PARTICIPLES = frozenset(IRREGULAR.split())

# Words that end like a participle and are none.
ENDINGS_ONLY = """
bed embed exceed feed need proceed red seed shed shred speed succeed thread
bring cling king ping ring sing sling spring sting string swing thing wing
"""
NOT_PARTICIPLES = frozenset(ENDINGS_ONLY.split())


@dataclass(frozen=True)
class Name:
    """A function's name and where it is defined."""

    name: str
    path: str
    line: int

    @property
    def words(self) -> list[str]:
        return [word for word in self.name.lower().split("_") if word]

    @property
    def is_one_word(self) -> bool:
        return len(self.words) == 1

    @property
    def is_participle(self) -> bool:
        return is_participle(self.words[0])


def is_participle(word: str) -> bool:
    """Return True if a word is a participle by its form: `told`, `widened`, `running`, but not `embed`."""
    if word in NOT_PARTICIPLES:
        return False
    return word in IRREGULAR_PARTICIPLES or (len(word) > 4 and word.endswith(("ed", "ing")))


def list_python_files(root: Path, rooms: tuple[str, ...] = ROOMS) -> Iterator[Path]:
    """List the Python files of the rooms, in order, without the data of checkpoints."""
    for room in rooms:
        for path in sorted((root / room).rglob("*.py")):
            if not SKIPPED_FOLDERS & set(path.relative_to(root).parts):
                yield path


def get_last_word(node: ast.expr) -> str:
    """Return the last part of a dotted name: `functools.cached_property` -> `cached_property`."""
    if isinstance(node, ast.Call):
        return get_last_word(node.func)
    if isinstance(node, ast.Subscript):
        return get_last_word(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def list_protocol_methods(trees: dict[str, ast.Module]) -> set[str]:
    """Return the names of the methods that the Protocol classes of the tree declare."""
    return {
        item.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(get_last_word(base) == "Protocol" for base in node.bases)
        for item in node.body
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def list_names(root: Path = REPOSITORY, rooms: tuple[str, ...] = ROOMS) -> list[Name]:
    """Return the names of all functions and methods that this tree is free to choose."""
    trees = {
        str(path.relative_to(root)): ast.parse(path.read_text(encoding="utf-8"))
        for path in list_python_files(root, rooms)
    }
    fixed = list_protocol_methods(trees)
    names: list[Name] = []

    def visit(node: ast.AST, path: str, owner: ast.ClassDef | None) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, path, child)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if not is_fixed(child, owner, fixed):
                    names.append(Name(child.name, path, child.lineno))
                visit(child, path, None)
            else:
                visit(child, path, owner)

    for path, tree in trees.items():
        visit(tree, path, None)
    return names


def list_shared_names(root: Path = REPOSITORY, rooms: tuple[str, ...] = ROOMS[:-1]) -> dict[str, list[str]]:
    """Return the public classes and functions that several modules define: name -> places.

    `main` is left out: each command has one. Benchmarks are commands of their own and are not counted.
    """
    places: dict[str, list[str]] = {}
    for path in list_python_files(root, rooms):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(f"{path.relative_to(root)}:{node.lineno}")
    return {name: found for name, found in places.items() if len(found) > 1 and name != "main"}


def is_fixed(
    function: ast.FunctionDef | ast.AsyncFunctionDef, owner: ast.ClassDef | None, protocol_methods: set[str]
) -> bool:
    """Tell whether a function's name is not this tree's to choose, or is a noun by right (a property)."""
    name = function.name
    if not name.strip("_") or (name.startswith("__") and name.endswith("__")):
        return True
    if any(get_last_word(decorator) in PROPERTIES for decorator in function.decorator_list):
        return True
    if owner is None:
        return False
    if name in protocol_methods:
        return True
    return any(name in FIXED_BY_LIBRARIES.get(get_last_word(base), ()) for base in owner.bases)


@dataclass(frozen=True)
class Shares:
    """How the functions of some rooms are named; shares are of `total`, 0..1."""

    total: int
    one_word: list[Name]
    participles: list[Name]

    @property
    def one_word_share(self) -> float:
        return len(self.one_word) / max(self.total, 1)

    @property
    def participle_share(self) -> float:
        return len(self.participles) / max(self.total, 1)


def measure_names(names: list[Name]) -> Shares:
    """Count the one-word names and the participles."""
    return Shares(len(names), [n for n in names if n.is_one_word], [n for n in names if n.is_participle])


def main() -> int:
    """Print the shares of each room and of the tree, all participles and the one-word names."""
    names = list_names()
    print(f"{'room':<12}{'functions':>10}{'one word':>10}{'participle':>12}")
    for room in (*ROOMS, "all"):
        shares = measure_names([n for n in names if room in ("all", n.path.split("/")[0])])
        print(f"{room:<12}{shares.total:>10}{shares.one_word_share:>10.1%}{shares.participle_share:>12.1%}")
    print(f"limits {ONE_WORD_LIMIT:>25.0%}{PARTICIPLE_LIMIT:>12.0%}")
    print("\nparticiples:")
    for name in shares.participles:
        print(f"  {name.path}:{name.line}: {name.name}")
    print("\none-word names, files with the most first:")
    by_file = Counter(name.path for name in shares.one_word)
    for path, count in by_file.most_common(40 if "--all" not in sys.argv else None):
        print(f"  {count:>3}  {path}: {', '.join(n.name for n in shares.one_word if n.path == path)}")
    failed = shares.one_word_share > ONE_WORD_LIMIT or shares.participle_share > PARTICIPLE_LIMIT
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
