"""The primitives, and the flow notation that joins them.

Everything public can be imported from here; the folders say what belongs together.
"""

from .accumulate import *  # noqa: F403
from .control import *  # noqa: F403
from .curvature import *  # noqa: F403
from .kronecker import *  # noqa: F403
from .notation import *  # noqa: F403
from .project import *  # noqa: F403
from .shape import *  # noqa: F403
from .step_size import *  # noqa: F403
from .trees import *  # noqa: F403
