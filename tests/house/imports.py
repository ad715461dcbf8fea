"""The rules of imports between the rooms: `python -m tests.house.imports` prints what breaks them.

Data goes one way: `pipelines -> {curation, training, evaluation} -> reprise`. `LAYERS` lists for each room
which rooms it may import. Imports inside functions count like imports at the top. Imports under
`TYPE_CHECKING` count for the layers, but not for circles of files, because they do not run.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.house.names import REPOSITORY, ROOMS, list_python_files

# Room or file -> the rooms and files that it may import besides its own. The longest key that fits a module
# holds for it. `tests` may import everything and is not listed.
LAYERS: dict[str, set[str]] = {
    "reprise": set(),
    # What is curated.
    "curation.rows": {"reprise"},
    "curation.imaging": {"reprise", "curation.rows"},
    "curation.taxonomy": {"reprise", "curation.rows"},
    "curation.model_spec": {"reprise"},
    "curation.config": {"reprise", "curation.rows", "curation.taxonomy", "curation.model_spec"},
    "curation.filters": {
        "reprise",
        "curation.rows",
        "curation.imaging",
        "curation.taxonomy",
        "curation.config",
    },
    "curation.models": {
        "reprise",
        "curation.rows",
        "curation.imaging",
        "curation.taxonomy",
        "curation.config",
        "curation.model_spec",
    },
    "curation.doctor": {"reprise", "curation.models", "curation.taxonomy"},
    "curation.video": {"reprise", "curation.rows", "curation.imaging", "curation.config"},
    "curation.sources": {"reprise", "curation.rows", "curation.config"},
    "curation.dataset": {"reprise", "curation.rows", "curation.config"},
    "curation.stages": {
        "reprise",
        "curation.rows",
        "curation.imaging",
        "curation.taxonomy",
        "curation.config",
        "curation.filters",
        "curation.models",
        "curation.video",
    },
    "curation.report": {
        "reprise",
        "curation.rows",
        "curation.imaging",
        "curation.taxonomy",
        "curation.config",
        "curation.dataset",
    },
    "curation.runner": {
        "reprise",
        "curation.rows",
        "curation.imaging",
        "curation.taxonomy",
        "curation.config",
        "curation.models",
        "curation.video",
        "curation.sources",
        "curation.dataset",
        "curation.stages",
        "curation.report",
        "curation.export",
    },
    "curation.audit": {
        "reprise",
        "curation.rows",
        "curation.imaging",
        "curation.taxonomy",
        "curation.config",
        "curation.dataset",
        "curation.report",
    },
    "curation.export": {
        "reprise",
        "curation.rows",
        "curation.imaging",
        "curation.config",
        "curation.video",
        "curation.dataset",
    },
    "curation.demo": {"reprise", "curation.rows", "curation.imaging"},
    "curation.playground": {
        "reprise",
        "curation.rows",
        "curation.imaging",
        "curation.taxonomy",
        "curation.config",
        "curation.models",
        "curation.demo",
        "curation.model_spec",
    },
    # What is trained.
    "training.config": {"reprise"},
    "training.precision": set(),
    "training.schedules": {"reprise", "training.config"},
    "training.objectives": {"reprise", "training.config", "training.schedules"},
    "training.positions": {"reprise", "training.config"},
    "training.convert": {"reprise", "training.config"},
    "training.data.samples": {"reprise"},
    "training.data.random_streams": {"reprise"},
    "training.models": {
        "reprise",
        "training.config",
        "training.schedules",
        "training.objectives",
        "training.positions",
        "training.data.random_streams",
    },
    "training.latents": {
        "reprise",
        "training.config",
        "training.precision",
        "training.data.samples",
        "training.data.random_streams",
        "training.models",
    },
    "training.tasks": {
        "reprise",
        "training.config",
        "training.objectives",
        "training.positions",
        "training.data.samples",
        "training.data.random_streams",
        "training.models",
        "training.latents",
    },
    "training.data": {
        "reprise",
        "training.config",
        "training.data.samples",
        "training.data.random_streams",
        "training.models.packing",
        "training.latents",
        "training.tasks",
    },
    "training.lora": {"reprise", "training.config", "training.precision", "training.models"},
    # The loop knows no task and no model, only what all of them have in common; `setup` builds them.
    "training.loop": {
        "reprise",
        "training.config",
        "training.data",
        "training.latents",
        "training.models.components",
        "training.models.family",
        "training.models.packing",
        "training.models.sequence_attention",
        "training.tasks.task",
    },
    "training.setup": {
        "reprise",
        "training.config",
        "training.precision",
        "training.data",
        "training.latents",
        "training.lora",
        "training.loop",
        "training.models",
        "training.tasks",
    },
    "training.export": {
        "reprise",
        "training.config",
        "training.precision",
        "training.lora",
        "training.loop",
        "training.models",
    },
    "training.worker": {
        "reprise",
        "training.config",
        "training.export",
        "training.loop",
        "training.setup",
    },
    "training.cost": {
        "reprise",
        "training.config",
        "training.precision",
        "training.data",
        "training.latents",
        "training.lora",
        "training.loop",
        "training.models",
        "training.tasks",
    },
    "training.generate": {
        "reprise",
        "training.config",
        "training.precision",
        "training.schedules",
        "training.objectives",
        "training.positions",
        "training.models",
        "training.latents",
        "training.lora",
    },
    "training.gradient_conflict": {
        "reprise",
        "training.config",
        "training.data",
        "training.models",
        "training.loop",
    },
    "training.callbacks": {
        "reprise",
        "training.config",
        "training.schedules",
        "training.objectives",
        "training.data",
        "training.models",
        "training.loop",
        "training.cost",
        "training.generate",
        "training.gradient_conflict",
    },
    "training.playground": {
        "reprise",
        "training.config",
        "training.precision",
        "training.data",
        "training.latents",
        "training.models",
    },
    "training.trainer": {
        "reprise",
        "training.config",
        "training.data",
        "training.loop",
        "training.callbacks",
        "training.worker",
    },
    # Evaluation of results; commands; measurements.
    "evaluation": {"reprise", "curation.models", "curation.playground"},
    "pipelines": {"reprise", "curation", "training", "evaluation"},
    "benchmarks": {"reprise", "curation", "training", "evaluation"},
}

# Only these know Ray; `reprise.ray_*` is what they share.
RAY_ROOMS = ("reprise.ray_", "curation.runner", "training.trainer", "training.latents.on_ray")

# What still breaks the rules: file -> room or file that it should not import. This list only gets shorter:
# the test also fails when a break listed here is gone.
ALLOWED_BREAKS: frozenset[tuple[str, str]] = frozenset()
# Groups of files that import each other, directly or through others, each in alphabetical order.
ALLOWED_CIRCLES: frozenset[tuple[str, ...]] = frozenset({})


@dataclass(frozen=True)
class Import:
    """One module imports another; `runs` is False under `TYPE_CHECKING`."""

    source: str
    target: str
    line: int
    runs: bool


def get_module_name(path: Path, root: Path) -> str:
    """Return the dotted name of a file: `curation/rows/__init__.py` -> `curation.rows`."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def read_modules(root: Path = REPOSITORY, rooms: tuple[str, ...] = ROOMS) -> dict[str, ast.Module]:
    """Parse the files of the rooms: dotted name -> syntax tree."""
    return {
        get_module_name(path, root): ast.parse(path.read_text(encoding="utf-8"))
        for path in list_python_files(root, rooms)
    }


def list_imports(modules: Mapping[str, ast.Module]) -> list[Import]:
    """Return the imports of the rooms and of Ray, each as the module that it names.

    `from training.latents import store` is an import of `training.latents.store` where that is a file.
    """
    imports: list[Import] = []

    def visit(node: ast.AST, source: str, runs: bool) -> None:
        for field, value in ast.iter_fields(node):
            skips = isinstance(node, ast.If) and field == "body" and is_type_checking(node.test)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.Import | ast.ImportFrom):
                    targets = sorted(resolve_import(child, modules))
                    imports.extend(Import(source, t, child.lineno, runs and not skips) for t in targets)
                elif isinstance(child, ast.AST):
                    visit(child, source, runs and not skips)

    for source, tree in modules.items():
        visit(tree, source, True)
    known = (*ROOMS, "ray", "tests")
    return [i for i in imports if i.target.split(".")[0] in known and i.source != i.target]


def is_type_checking(test: ast.expr) -> bool:
    """Tell whether a condition is `TYPE_CHECKING`."""
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def resolve_import(node: ast.Import | ast.ImportFrom, modules: Mapping[str, ast.Module]) -> set[str]:
    """Return the modules that a statement imports.

    Raises:
        ValueError: the import is relative; this tree imports by full names.
    """
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if node.level or node.module is None:
        raise ValueError(f"line {node.lineno}: relative import: write the full name")
    names = {f"{node.module}.{alias.name}" for alias in node.names}
    return {name if name in modules else node.module for name in names}


def find_room(module: str, layers: Mapping[str, set[str]] = LAYERS) -> str | None:
    """Return the key of `layers` that applies to a module; None if it is in no folder of LAYERS."""
    return max((room for room in layers if is_inside(module, room)), key=len, default=None)


def is_inside(module: str, room: str) -> bool:
    """Return True if a module is a package of that name or is inside it."""
    return module == room or module.startswith(room + ".")


def find_breaks(imports: Iterable[Import]) -> dict[tuple[str, str], list[int]]:
    """Return (file, room) -> lines for the imports that the layers or the rule about Ray forbid."""
    breaks: dict[tuple[str, str], list[int]] = {}
    for item in imports:
        if is_inside(item.target, "ray"):
            if not item.source.startswith(RAY_ROOMS):
                breaks.setdefault((item.source, "ray"), []).append(item.line)
            continue
        room, target_room = find_room(item.source), find_room(item.target)
        if room is None or room == target_room:
            continue
        if not any(is_inside(item.target, allowed) for allowed in LAYERS[room]):
            breaks.setdefault((item.source, target_room or item.target), []).append(item.line)
    return breaks


def find_circles(imports: Iterable[Import]) -> set[tuple[str, ...]]:
    """Return the groups of files that import each other when they run, each sorted by name."""
    graph: dict[str, set[str]] = {}
    for item in imports:
        if item.runs:
            graph.setdefault(item.source, set()).add(item.target)
    return find_loops(graph)


def find_loops(graph: Mapping[str, set[str]]) -> set[tuple[str, ...]]:
    """Return the strongly connected parts of a graph that have more than one node, each sorted."""
    reachable = {node: list_reachable(graph, node) for node in graph}
    loops = set()
    for node, reached in reachable.items():
        if node in reached:
            loops.add(tuple(sorted(other for other in reached if node in reachable.get(other, ()))))
    return loops


def list_reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return the nodes that can be reached from `start` in one step or more."""
    reached: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting.extend(graph.get(node, ()))
    return reached


def main() -> int:
    """Print every import that breaks a rule, with its lines, and every circle."""
    imports = list_imports(read_modules())
    breaks, circles = find_breaks(imports), find_circles(imports)
    for key, lines in sorted(breaks.items()):
        state = "allowed for now" if key in ALLOWED_BREAKS else "NEW"
        print(f"{key[0]} -> {key[1]}  (line {', '.join(map(str, lines))}; {state})")
    for circle in sorted(circles):
        state = "allowed for now" if circle in ALLOWED_CIRCLES else "NEW"
        print(f"circle: {' <-> '.join(circle)}  ({state})")
    print(f"{len(breaks)} breaks of layers, {len(circles)} circles")
    return 0 if breaks.keys() <= ALLOWED_BREAKS and circles <= ALLOWED_CIRCLES else 1


if __name__ == "__main__":
    sys.exit(main())
