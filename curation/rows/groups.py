"""The taxonomy groups that rules name; a taxonomy file may hold any others besides."""

from __future__ import annotations

HUMAN = "human"  # faces are searched for in these subjects alone
BACKGROUND = "background"  # places: no box holds them
