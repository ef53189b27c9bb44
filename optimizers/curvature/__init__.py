"""Second-order methods."""

from .sophia_h import scale_by_sophia_h, sophia_h

__all__ = [
    "scale_by_sophia_h",
    "sophia_h",
]
