from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.names import (
    ONE_WORD_LIMIT,
    PARTICIPLE_LIMIT,
    Name,
    is_participle,
    list_names,
    list_shared_names,
    measure_names,
)


@pytest.fixture(scope="module")
def names() -> list[Name]:
    return list_names()


def test_few_functions_have_names_of_one_word(names: list[Name]) -> None:
    share = measure_names(names).one_word_share
    assert share <= ONE_WORD_LIMIT, f"{share:.1%} are one word: python -m tests.house.names lists them"


def test_almost_no_function_is_named_by_a_participle(names: list[Name]) -> None:
    share = measure_names(names).participle_share
    assert share <= PARTICIPLE_LIMIT, f"{share:.1%} are participles: python -m tests.house.names lists them"


def test_one_name_has_one_meaning() -> None:
    """No public class or function has the name of another one."""
    assert list_shared_names() == {}


def test_a_name_that_two_modules_define_is_found(tmp_path: Path) -> None:
    for room in ("one", "two"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "x.py").write_text("class Box: ...\ndef main(): ...\ndef _help(): ...\n")
    assert list_shared_names(tmp_path, ("one", "two")) == {"Box": ["one/x.py:1", "two/x.py:1"]}


@pytest.mark.parametrize("word", ["told", "heard", "settled", "running", "seen", "kept", "sliced"])
def test_participles_are_found_by_their_form(word: str) -> None:
    assert is_participle(word)


@pytest.mark.parametrize("word", ["embed", "load", "seed", "string", "read", "put", "cut", "feed", "run"])
def test_verbs_and_nouns_are_no_participles(word: str) -> None:
    assert not is_participle(word)


def list_written_names(root: Path, text: str) -> list[str]:
    path = root / "reprise" / "x.py"
    path.parent.mkdir()
    path.write_text(text)
    return [name.name for name in list_names(root, ("reprise",))]


def test_names_that_are_not_free_are_left_out(tmp_path: Path) -> None:
    text = """
class Role(Protocol):
    def detect(self): ...
class Backend:
    def __init__(self): ...
    def detect(self): ...
    def told(self):
        def heard(): ...
    @property
    def size(self): ...
class Net(nn.Module):
    def forward(self): ...
    def settle(self): ...
def detect(): ...
"""
    assert list_written_names(tmp_path, text) == ["told", "heard", "settle", "detect"]


def test_underscores_do_not_make_two_words() -> None:
    assert Name("_settle", "x.py", 1).is_one_word
    assert not Name("_load_model", "x.py", 1).is_one_word
    assert Name("_kept_rows", "x.py", 1).is_participle
    assert not Name("is_kept", "x.py", 1).is_participle
