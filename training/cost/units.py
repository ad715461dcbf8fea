"""Numbers as a person reads them: counts, bytes, times."""

from __future__ import annotations

GIB = 1 << 30
_PREFIXES = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def format_si(count: float, separator: str = " ") -> str:
    """Format a count with three digits and an SI prefix: 1.23 M."""
    for size, prefix in _PREFIXES:
        if count >= size:
            return f"{count / size:.3g}{separator}{prefix}"
    return f"{count:.3g}"


def format_bytes(count: float) -> str:
    """Format bytes in GiB or MiB: 12.3 GiB."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"


def format_gpu_hours(seconds: float) -> str:
    """Format seconds of one GPU as GPU hours."""
    hours = seconds / 3600
    return f"{hours:,.0f} GPU hours" if hours >= 10 else f"{hours:.2g} GPU hours"


def format_duration(seconds: float) -> str:
    """Format seconds in their two largest units: 2 d 3 h, 3 h 04 min, 4 min 05 s, 5 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
