"""The methods of the literature, one file each, in families by what a reader looks for."""

from . import adam as adam_family
from . import (
    adaptive,
    averaging,
    bayesian,
    clipping,
    continual,
    controllers,
    curvature,
    distributed,
    evaluation,
    federated,
    flat_minima,
    games,
    kronecker,
    learned,
    manifolds,
    measure,
    memory,
    momentum,
    multi_objective,
    private,
    pruning,
    robust,
    step_size,
    surrogates,
    variance_reduction,
    wrappers,
    zeroth_order,
)
from . import bilevel as bilevel_family
from .adam import *  # noqa: F403
from .adaptive import *  # noqa: F403
from .averaging import *  # noqa: F403
from .bayesian import *  # noqa: F403
from .bilevel import *  # noqa: F403
from .clipping import *  # noqa: F403
from .continual import *  # noqa: F403
from .controllers import *  # noqa: F403
from .curvature import *  # noqa: F403
from .distributed import *  # noqa: F403
from .evaluation import *  # noqa: F403
from .federated import *  # noqa: F403
from .flat_minima import *  # noqa: F403
from .games import *  # noqa: F403
from .kronecker import *  # noqa: F403
from .learned import *  # noqa: F403
from .manifolds import *  # noqa: F403
from .measure import *  # noqa: F403
from .memory import *  # noqa: F403
from .momentum import *  # noqa: F403
from .multi_objective import *  # noqa: F403
from .private import *  # noqa: F403
from .pruning import *  # noqa: F403
from .robust import *  # noqa: F403
from .step_size import *  # noqa: F403
from .surrogates import *  # noqa: F403
from .variance_reduction import *  # noqa: F403
from .wrappers import *  # noqa: F403
from .zeroth_order import *  # noqa: F403

__all__: list[str] = []
__all__ += adam_family.__all__
__all__ += adaptive.__all__
__all__ += averaging.__all__
__all__ += bayesian.__all__
__all__ += bilevel_family.__all__
__all__ += clipping.__all__
__all__ += continual.__all__
__all__ += controllers.__all__
__all__ += curvature.__all__
__all__ += distributed.__all__
__all__ += evaluation.__all__
__all__ += federated.__all__
__all__ += flat_minima.__all__
__all__ += games.__all__
__all__ += kronecker.__all__
__all__ += learned.__all__
__all__ += manifolds.__all__
__all__ += measure.__all__
__all__ += memory.__all__
__all__ += momentum.__all__
__all__ += multi_objective.__all__
__all__ += private.__all__
__all__ += pruning.__all__
__all__ += robust.__all__
__all__ += step_size.__all__
__all__ += surrogates.__all__
__all__ += variance_reduction.__all__
__all__ += wrappers.__all__
__all__ += zeroth_order.__all__
