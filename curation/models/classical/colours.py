"""Measure how well colour terms name the pixels of a picture.

The terms are the eleven basic colour terms of English (Berlin and Kay, 1969). Each is a soft region of CIE
LCh. The regions overlap, because for example the limit between brown and dark orange is not sharp.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

# Synonyms of each basic term, and materials that name a colour.
_TERM_WORDS: Final[dict[str, str]] = {
    "black": "black dark",
    "blue": "blue navy azure teal turquoise cyan",
    "brown": "brown tan chestnut beige bronze",
    "grey": "grey gray silver",
    "green": "green olive lime",
    "orange": "orange amber ginger",
    "pink": "pink magenta rose",
    "purple": "purple violet lilac",
    "red": "red crimson scarlet maroon",
    "white": "white ivory cream",
    "yellow": "yellow gold golden blond blonde",
}
_WORD_TERMS: Final = {word: term for term, words in _TERM_WORDS.items() for word in words.split()}


def find_colour_terms(text: str) -> list[str]:
    """Find the basic colour terms in a phrase, in order, each once. "brown and white dog" has two."""
    terms = [_WORD_TERMS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in _WORD_TERMS]
    return list(dict.fromkeys(terms))


def compute_memberships(lab: F32, terms: list[str]) -> dict[str, F32]:
    """Compute for each term how well it names each pixel.

    Args:
        lab: CIE Lab picture, (h, w, 3).
        terms: basic colour terms.

    Returns:
        Term -> (h, w), 0..1.
    """
    lightness = lab[..., 0]
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1])) % 360
    return {term: _TERM_REGIONS[term](lightness, chroma, hue).astype(np.float32) for term in terms}


def _ramp_above(values: F32, edge: float, width: float) -> F32:
    """Return 0 below `edge` - `width`, 1 above `edge` + `width`, and a linear ramp between."""
    return np.asarray(np.clip((values - edge) / (2 * width) + 0.5, 0, 1), np.float32)


def _ramp_below(values: F32, edge: float, width: float) -> F32:
    return 1 - _ramp_above(values, edge, width)


def _match_hue(hue: F32, centre: float, half: float, soft: float = 10.0) -> F32:
    """Return 1 within `half` degrees of `centre`, 0 beyond `half` + `soft`, and a linear ramp between."""
    away = np.abs((hue - centre + 180) % 360 - 180)
    return np.asarray(np.clip((half + soft - away) / soft, 0, 1), np.float32)


# Bounds in CIE LCh (lightness 0..100, chroma 0..130, hue in degrees: 40 is sRGB red, 103 yellow, 136 green,
# 306 blue), set so that the sRGB colours of the CSS names of each term fall inside.
_TERM_REGIONS: Final[dict[str, Callable[[F32, F32, F32], F32]]] = {
    "black": lambda li, c, h: _ramp_below(li, 26, 6) * _ramp_below(c, 18, 6),
    "grey": lambda li, c, h: _ramp_above(li, 22, 6) * _ramp_below(li, 80, 8) * _ramp_below(c, 13, 4),
    "white": lambda li, c, h: _ramp_above(li, 68, 8) * _ramp_below(c, 16, 5),
    "red": lambda li, c, h: _match_hue(h, 27, 20) * _ramp_above(c, 36, 8) * _ramp_below(li, 68, 6),
    "orange": lambda li, c, h: _match_hue(h, 63, 17) * _ramp_above(c, 40, 8) * _ramp_above(li, 45, 6),
    "brown": lambda li, c, h: (
        _match_hue(h, 62, 28) * _ramp_above(c, 12, 4) * _ramp_below(c, 58, 8) * _ramp_below(li, 62, 6)
    ),
    "yellow": lambda li, c, h: _match_hue(h, 93, 17) * _ramp_above(c, 32, 8) * _ramp_above(li, 55, 6),
    "green": lambda li, c, h: _match_hue(h, 143, 38) * _ramp_above(c, 16, 5),
    "blue": lambda li, c, h: _match_hue(h, 265, 50) * _ramp_above(c, 12, 4),
    "purple": lambda li, c, h: _match_hue(h, 318, 22) * _ramp_above(c, 18, 5) * _ramp_below(li, 70, 8),
    "pink": lambda li, c, h: _match_hue(h, 0, 38) * _ramp_above(c, 14, 4) * _ramp_above(li, 55, 6),
}
