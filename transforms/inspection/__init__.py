"""What only looks at transformations: tables, diagrams, signals read from outside."""

from .describe import describe
from .draw import draw
from .observe import observe, observed

__all__ = ["describe", "draw", "observe", "observed"]
