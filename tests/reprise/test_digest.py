from __future__ import annotations

from reprise.digest import compute_digest


def test_a_digest_depends_on_content_and_not_on_the_order_of_keys() -> None:
    assert compute_digest({"a": 1, "b": [2.5, None]}) == compute_digest({"b": [2.5, None], "a": 1})
    assert compute_digest("a", "b") != compute_digest("ab") != compute_digest(["a", "b"])
    assert len(compute_digest("a", length=40)) == 40
