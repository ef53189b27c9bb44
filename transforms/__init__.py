"""The primitives, and the flow notation that joins them.

Everything public can be imported from here; the folders say what belongs together.
"""

from . import (
    accumulate,
    control,
    curvature,
    directions,
    inspection,
    kronecker,
    notation,
    shape,
    step_size,
    subspaces,
    trees,
)
from .accumulate import *  # noqa: F403
from .control import *  # noqa: F403
from .curvature import *  # noqa: F403
from .directions import *  # noqa: F403
from .inspection import *  # noqa: F403
from .kronecker import *  # noqa: F403
from .notation import *  # noqa: F403
from .shape import *  # noqa: F403
from .step_size import *  # noqa: F403
from .subspaces import *  # noqa: F403
from .trees import *  # noqa: F403

__all__: list[str] = []
__all__ += accumulate.__all__
__all__ += control.__all__
__all__ += curvature.__all__
__all__ += directions.__all__
__all__ += inspection.__all__
__all__ += kronecker.__all__
__all__ += notation.__all__
__all__ += shape.__all__
__all__ += step_size.__all__
__all__ += subspaces.__all__
__all__ += trees.__all__
