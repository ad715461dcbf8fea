"""As SECURITY.md states, no code in the packages unpickles foreign files or runs their code."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.names import REPOSITORY, get_last_word, list_python_files

# The state of a run's own processes, which is never in a file from another person.
OWN_STATE = {("training/trainer.py", "cloudpickle.loads")}


def list_unsafe_calls() -> Iterator[tuple[str, str]]:
    """Yield (file, call) for the calls that could run the content of a file."""
    for path in list_python_files(REPOSITORY):
        name = path.relative_to(REPOSITORY).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        safe_loaders = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and [get_last_word(base) for base in node.bases] == ["SafeLoader"]
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                values = {word.arg: ast.unparse(word.value) for word in node.keywords}
                unsafe = (
                    (call == "torch.load" and values.get("weights_only") != "True")
                    or (get_last_word(node.func) in ("loads", "load", "Unpickler") and "pickle" in call)
                    or call in ("yaml.unsafe_load", "yaml.full_load")
                    or (call == "yaml.load" and not is_safe_loader(values.get("Loader", ""), safe_loaders))
                    or values.get("allow_pickle") == "True"
                    or values.get("trust_remote_code") == "True"
                    or call in ("eval", "exec", "marshal.loads")
                )
                if unsafe:
                    yield name, call.split("(")[0]


def is_safe_loader(name: str, own: set[str]) -> bool:
    """Tell whether a loader of YAML is the safe one, or derived from it in the same file."""
    return name.endswith("SafeLoader") or name in own


def test_no_file_is_unpickled_and_no_code_of_a_checkpoint_is_run() -> None:
    assert set(list_unsafe_calls()) == OWN_STATE
