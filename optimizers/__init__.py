"""The methods of the literature, one file each, in family folders."""

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
