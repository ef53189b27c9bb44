"""Second-order methods: a diagonal, curvature of single layers, or that of all parameters."""

from . import diagonal, full, layers
from .diagonal import *  # noqa: F403
from .full import *  # noqa: F403
from .layers import *  # noqa: F403

__all__: list[str] = []
__all__ += diagonal.__all__
__all__ += full.__all__
__all__ += layers.__all__
