"""Directions that methods of several families start from."""

from .adam import scale_by_adam
from .lion import scale_by_lion

__all__ = ["scale_by_adam", "scale_by_lion"]
