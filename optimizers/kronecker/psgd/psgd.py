"""What the PSGD methods share: momentum, the preconditioner's rhythm and clipping."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from ....transforms import (
    Decay,
    Flow,
    Key,
    Mask,
    Positive,
    Probability,
    Sampler,
    Signal,
    ema,
    flow,
    global_norm,
    is_neutral,
    merge,
    minimum,
    named,
    split,
    step_count,
    tap,
    when,
    zeros_like,
)
from ....transforms.kronecker import finite_or_zero
from ....transforms.notation import draws
from ....transforms.trees import draw_scalar
from .fitting import FitMode, failed_updates, fit_preconditioner, preconditioned
from .lie_groups import LieGroup

Normalizer = Literal["2nd", "1st"]
SMALLEST = float(np.finfo(np.float32).tiny)


def default_precond_lr(precond_lr: Positive | None, step_normalizer: Normalizer) -> Positive:
    """The step size within the group: 0.1 for "2nd", 0.01 for "1st"."""
    if precond_lr is not None:
        return precond_lr
    return 0.1 if step_normalizer == "2nd" else 0.01


def scale_by_psgd(
    label: str,
    group: LieGroup,
    of: Callable[[Signal], Signal],
    back: Callable[[Signal, Signal], Signal],
    precond_lr: Positive,
    mode: FitMode,
    precond_init_scale: Positive | None,
    momentum: Decay,
    precond_update_probability: Probability,
    grad_clip_norm: Positive | None,
    key: Key,
    trainable: Mask | None,
    sampler: Sampler | None,
) -> Flow:
    """Momentum, preconditioned by an element of a Lie group that is fitted on the way.

    Args:
      label: name of the method.
      group: the group.
      of: brings a tree into the form that the group works on.
      back: brings it back, given the original tree.
      precond_lr, mode, precond_init_scale, momentum, precond_update_probability, grad_clip_norm,
        key, trainable, sampler: see the methods.
    """

    def chosen(tree: Signal) -> Signal:
        return of(tree if trainable is None else split(tree, trainable)[0])

    def where_trainable(tree: Signal, made: Callable[[Signal], Signal]) -> Signal:
        if trainable is None:
            return made(tree)
        inside, outside = split(tree, trainable)
        return merge(made(inside), zeros_like(outside))

    def moving(tree: Signal) -> Signal:
        return where_trainable(tree, lambda inside: inside)

    fit = fit_preconditioner(
        group, precond_lr, mode, precond_init_scale, key, chosen, sampler, moving
    )
    fit = named("preconditioner", fit)

    def step(g: Signal) -> Signal:
        g, dropped = finite_or_zero(g)
        tap("nonfinite_gradients", dropped)
        if is_neutral(precond_update_probability, 1.0):
            q = g >> fit
        else:
            coin = draw_scalar(key, draws.uniform)
            q = g >> when((step_count() == 1) | (coin < precond_update_probability), fit)
        tap("failed_updates", failed_updates(q))
        m = g if is_neutral(momentum) else g >> named("mu", ema(momentum))
        u = preconditioned(q, chosen(m), group)
        u = where_trainable(m, lambda inside: back(u, inside))
        u, _ = finite_or_zero(u)
        if grad_clip_norm is None:
            return u
        return u * minimum(1.0, grad_clip_norm / (global_norm(u) + SMALLEST))

    return flow(step, name=label)
