"""Schedules: `step -> value`, each a pure function that works under jit and vmap.

Names of arguments follow optax. Steps are Python ints; where one thinks in fractions of the run,
`warmup_steps` and `decay_steps` also take a float in [0, 1]. Values may be traced.
"""

from .ademamix import ademamix_alpha_schedule, ademamix_b3_schedule, half_life_interpolation
from .baselines import cosine_decay, exponential_to, milestones, stage_decay, step_decay
from .combinators import cyclic, join, sampled, warmup
from .cosine_power_annealing import cosine_power_annealing
from .decay_shapes import DECAY_SHAPES, DecayShape, cooldown
from .last_iterate import last_iterate_schedule
from .laws import (
    StepLaw,
    batch_hessian_max_eigenvalue,
    batch_in_sequences,
    max_learning_rate,
    scale_learning_rate,
    step_law,
)
from .linear_decay import linear_decay
from .one_cycle import one_cycle, one_cycle_momentum
from .plateau import Plateau, PlateauState, reduce_on_plateau
from .ranger21 import ranger21_schedule, untuned_warmup_steps
from .refined_schedule import (
    RecordGradNormsState,
    as_schedule,
    record_grad_norms,
    refined_schedule,
)
from .rex import rex
from .spam_rewarmup import spam_rewarmup
from .sparsity import (
    SparsitySchedule,
    average_parameter_count,
    pruning_schedule,
    sparsity_schedule,
)
from .wsd import wsd

__all__ = [
    "DECAY_SHAPES",
    "DecayShape",
    "Plateau",
    "PlateauState",
    "RecordGradNormsState",
    "SparsitySchedule",
    "StepLaw",
    "ademamix_alpha_schedule",
    "ademamix_b3_schedule",
    "as_schedule",
    "average_parameter_count",
    "batch_hessian_max_eigenvalue",
    "batch_in_sequences",
    "cooldown",
    "cosine_decay",
    "cosine_power_annealing",
    "cyclic",
    "exponential_to",
    "half_life_interpolation",
    "join",
    "last_iterate_schedule",
    "linear_decay",
    "max_learning_rate",
    "milestones",
    "one_cycle",
    "one_cycle_momentum",
    "pruning_schedule",
    "ranger21_schedule",
    "record_grad_norms",
    "reduce_on_plateau",
    "refined_schedule",
    "rex",
    "sampled",
    "scale_learning_rate",
    "spam_rewarmup",
    "sparsity_schedule",
    "stage_decay",
    "step_decay",
    "step_law",
    "untuned_warmup_steps",
    "warmup",
    "wsd",
]
