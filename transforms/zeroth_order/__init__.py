"""Gradients without backward passes: from differences of losses, and in forward mode."""

from .blocks import BlockNames, BlockSteps, block_steps
from .choice import best_of_three
from .delayed import delayed_spsa_step, flush
from .directions import (
    Directions,
    draw_direction,
    draw_leaf,
    magnitude_sparsity,
    sparse_directions,
)
from .forward_mode import forward_mode_gradient
from .guess import Guess, Mode, Scope, Target, project_onto_guess
from .losses import check_deterministic, params_at
from .replay import replay
from .slope_along import slope_along
from .spsa import spsa_gradient
from .stages import Space, StagedLoss, staged_loss
from .ties import settled

__all__ = [
    "BlockNames",
    "BlockSteps",
    "Directions",
    "Guess",
    "Mode",
    "Scope",
    "Space",
    "StagedLoss",
    "Target",
    "best_of_three",
    "block_steps",
    "check_deterministic",
    "delayed_spsa_step",
    "draw_direction",
    "draw_leaf",
    "flush",
    "forward_mode_gradient",
    "magnitude_sparsity",
    "params_at",
    "project_onto_guess",
    "replay",
    "settled",
    "slope_along",
    "sparse_directions",
    "spsa_gradient",
    "staged_loss",
]
