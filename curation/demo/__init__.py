"""Demo videos with known truth, made from the photographs that ship with scikit-image; see ``render``."""

from curation.demo.render import render_demo

__all__ = ["render_demo"]
