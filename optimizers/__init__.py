"""The methods of the literature, one file each, in family folders."""

from . import (
    adaptive,
    averaging,
    curvature,
    gradient,
    kronecker,
    low_rank,
    momentum,
    sign,
    step_size,
    variance_reduction,
    wrappers,
)
from .adaptive import *  # noqa: F403
from .averaging import *  # noqa: F403
from .curvature import *  # noqa: F403
from .gradient import *  # noqa: F403
from .kronecker import *  # noqa: F403
from .low_rank import *  # noqa: F403
from .momentum import *  # noqa: F403
from .sign import *  # noqa: F403
from .step_size import *  # noqa: F403
from .variance_reduction import *  # noqa: F403
from .wrappers import *  # noqa: F403

__all__: list[str] = []
__all__ += adaptive.__all__
__all__ += averaging.__all__
__all__ += curvature.__all__
__all__ += gradient.__all__
__all__ += kronecker.__all__
__all__ += low_rank.__all__
__all__ += momentum.__all__
__all__ += sign.__all__
__all__ += step_size.__all__
__all__ += variance_reduction.__all__
__all__ += wrappers.__all__
