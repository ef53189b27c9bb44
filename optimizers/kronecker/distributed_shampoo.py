"""Distributed Shampoo."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Fraction,
    Mask,
    NonNegative,
    Period,
    Scalar,
    Signal,
    Size,
    chain,
    debias,
    decay_weights,
    delay,
    divide,
    divide_or_zero,
    ema,
    flow,
    handed_on,
    is_neutral,
    lift,
    maximum,
    named,
    scale_by_learning_rate,
    scheduled,
    sqrt,
    square,
    step_count,
    tap,
    trace,
    transformation,
    when,
    where,
)
from ...transforms.kronecker import (
    Blocks,
    Exponent,
    RootSolver,
    Solver,
    bounded_or_zero,
    failed_roots,
    graft,
    inverse_roots,
    kronecker_statistics,
    precondition,
    stack_same_shapes,
    unstack,
)

Grafting = Literal["sgd", "adagrad", "rmsprop", "adam"]
DecayType = Literal["decoupled", "l2", "corrected", "independent"]


@transformation()
def scale_by_distributed_shampoo(
    b1: Decay = 0.9,
    b2: Fraction = 1.0,
    b3: Decay | None = None,
    eps: NonNegative = 1e-12,
    block_size: Size = 1024,
    target_ndim: Size = 1,
    update_interval: Period = 1,
    start_preconditioning_step: Size | None = None,
    bias_correction: bool = True,
    grafting: Grafting | None = None,
    grafting_b2: Decay = 0.999,
    grafting_eps: NonNegative = 1e-10,
    inverse_exponent: Exponent | None = None,
    axis_name: str | None = None,
    root_solver: RootSolver | Solver = "eigh_shift",
    *,
    mu_dtype: DType | None = None,
) -> Flow:
    """Shampoo on blocks of the leaves, with delayed roots and the norms of another method.

    Dimensions of size 1 are dropped, neighbouring ones merged from the last to the first while
    their product stays within `block_size`, and the rest is cut into blocks. For a block of order
    o, with c = 1 - b2^t (1 for b2 = 1, or without bias correction):

        L_i <- b2 L_i + w G_(i) G_(i)^T,             w = 1 - b2, or 1 for b2 = 1
        P_i  = (L_i / c + eps I)^(-1/(2o))           at t = S, and at t > S each K-th step
        F    = b3 M + (1 - b3) G,   M <- b1 M + (1 - b1) G,   F <- F / (1 - b3 b1^(t-1))
        U    = F x_1 P_1 ... x_o P_o                 with the norm of A under grafting
        A    = F                                     sgd
             = F / (sqrt(V) + geps)                  V the sum (adagrad) or average (rmsprop) of G^2
             = F / (sqrt(V / (1 - gb2^t)) + geps)    adam

    Before step S the direction is A, without grafting F. Blocks of one shape are factorised
    together, under an explicit mesh on all of its devices.

    A block whose mean square is not finite counts as zero (observable as
    `nonfinite_gradients`), a root that fails keeps the one before it (`failed_roots`).

    Args:
      b1: decay of the gradient's average; 0 leaves the gradient unfiltered.
      b2: decay of the statistics, in [0, 1]; 1 sums them.
      b3: weight of the average before this gradient in the direction; default b1.
      eps: added to the spectrum of the statistics.
      block_size: longest side of a block.
      target_ndim: number of dimensions below which nothing is merged.
      update_interval: K, steps between two computations of the roots.
      start_preconditioning_step: S; default K.
      bias_correction: correct the zero start of the averages.
      grafting: None, or "sgd", "adagrad", "rmsprop" or "adam", whose norms the blocks get.
      grafting_b2: gb2.
      grafting_eps: geps.
      inverse_exponent: of all roots, in place of -1/(2o).
      axis_name: mesh axis of the surrounding `jax.shard_map` over which the roots are spread; the
        gradients must be the same on all its devices.
      root_solver: a name in `transforms.kronecker.ROOT_SOLVERS`, or a function of that kind.
      mu_dtype: storage of the first moments; default at least float32.

    References:
      Shi et al. 2023, A Distributed Data-Parallel PyTorch Implementation of the Distributed
      Shampoo Optimizer (arXiv 2309.06497), and the authors' code. The eigenvalue-corrected and
      spectral variants that the code has added since are left out. The paper's own runs use
      K = S = 50 to 100.
    """
    start = update_interval if start_preconditioning_step is None else start_preconditioning_step
    blocks_of = Blocks(block_size, target_ndim)
    correction = b2 if bias_correction else None
    solve = inverse_roots(eps, inverse_exponent, root_solver, correction, axis_name)
    kept_roots = named("roots", solve)

    def step(g: Signal) -> Signal:
        blocks, dropped = bounded_or_zero(stack_same_shapes(g, blocks_of))
        tap("nonfinite_gradients", dropped)
        statistics = blocks >> named("mean_statistics", kronecker_statistics(b2))
        t = step_count()
        roots = statistics >> when(_due(t, update_interval, start), kept_roots)
        tap("failed_roots", failed_roots(roots))
        f = _filtered(blocks, b1, b1 if b3 is None else b3, bias_correction)
        a = _grafting_direction(f, blocks, grafting, grafting_b2, grafting_eps)
        u = precondition(f, roots)
        if grafting is not None:
            u = graft(a, u, stacked=True)
            u = u if is_neutral(start, 1) else where(t < start, a, u)
        return unstack(u, g, blocks_of)

    return flow(step)


@lift
def _due(t: jax.Array, interval: int | jax.Array, start: int | jax.Array) -> jax.Array:
    return (t == start) | ((t > start) & (t % interval == 0))


def _filtered(g: Signal, b1: Decay, b3: Decay, bias_correction: bool) -> Signal:
    if is_neutral(b1):
        return g
    m = delay(g, name="mu")
    f = b3 * m + (1 - scheduled(b3)) * g
    m << b1 * m + (1 - scheduled(b1)) * g
    if not bias_correction:
        return f
    return f / (1 - b3 * b1 ** (step_count() - 1))


def _grafting_direction(
    f: Signal, g: Signal, kind: Grafting | None, b2: Decay, eps: NonNegative
) -> Signal:
    if kind is None or kind == "sgd":
        return f
    if kind == "adagrad":
        past = delay(g, name="nu")
        v = past << past + square(g)
    else:
        v = square(g) >> named("nu", ema(b2))
    if kind == "adam":
        v = v >> debias(b2)
    return divide(f, sqrt(v) + eps, eps)


def _decay(
    weight_decay: NonNegative,
    kind: DecayType,
    learning_rate: optax.ScalarOrSchedule,
    peak: optax.ScalarOrSchedule | None,
    mask: Mask | None,
) -> Flow:
    if kind in ("decoupled", "l2") or is_neutral(weight_decay):
        return decay_weights(weight_decay, mask=mask)

    def step(u: Signal) -> Signal:
        rate = scheduled(learning_rate)
        highest = _peak(learning_rate) if peak is None else scheduled(peak)
        part = divide_or_zero(rate if kind == "corrected" else 1.0, _array(highest))
        return u >> decay_weights(scheduled(weight_decay) * part, mask=mask)

    return flow(step, name="weight_decay")


def _peak(learning_rate: optax.ScalarOrSchedule) -> Scalar:
    """The highest rate so far: of a schedule, or of an array, which may be another every step."""
    if isinstance(learning_rate, int | float):
        return learning_rate
    past = delay(0.0, name="peak_learning_rate")
    return past << maximum(past, learning_rate)


def _array(value: Any) -> Any:
    return jnp.asarray(value, float) if isinstance(value, int | float) else value


@method(
    "Shi et al. 2023, A Distributed Data-Parallel PyTorch Implementation of the Distributed "
    "Shampoo Optimizer for Training Neural Networks At-Scale",
    arxiv="2309.06497",
    tags=("kronecker", "matrix", "decoupled-decay"),
    learning_rate=3e-3,
    small_model={
        "grafting": "adam",
        "block_size": 64,
        "target_ndim": 2,
        "eps": 1e-08,
        "momentum": 0.5,
        "update_interval": 2,
    },
)
@transformation()
def distributed_shampoo(
    learning_rate: optax.ScalarOrSchedule = 1e-2,
    b1: Decay = 0.9,
    b2: Fraction = 1.0,
    b3: Decay | None = None,
    eps: NonNegative = 1e-12,
    weight_decay: NonNegative = 0.0,
    weight_decay_type: DecayType = "decoupled",
    block_size: Size = 1024,
    target_ndim: Size = 1,
    update_interval: Period = 1,
    start_preconditioning_step: Size | None = None,
    bias_correction: bool = True,
    grafting: Grafting | None = None,
    grafting_b2: Decay = 0.999,
    grafting_eps: NonNegative = 1e-10,
    momentum: Decay = 0.0,
    dampening: Fraction = 0.0,
    nesterov: bool = False,
    inverse_exponent: Exponent | None = None,
    axis_name: str | None = None,
    mask: Mask | None = None,
    peak_learning_rate: optax.ScalarOrSchedule | None = None,
    root_solver: RootSolver | Solver = "eigh_shift",
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Distributed Shampoo; the rule of the direction is that of `scale_by_distributed_shampoo`.

    With U that direction, W the params, r the learning rate and r* its peak:

        decoupled    U <- U + weight_decay W
        corrected    U <- U + weight_decay (r / r*) W
        independent  U <- U + (weight_decay / r*) W
        l2           G <- G + weight_decay W, before everything else
        B <- momentum B + (1 - dampening) U
        U <- (1 - dampening) U + momentum B  if nesterov else  B

    Args:
      learning_rate: number or schedule.
      b1, b2, b3, eps, block_size, target_ndim, update_interval, start_preconditioning_step,
        bias_correction, grafting, grafting_b2, grafting_eps, inverse_exponent, axis_name,
        root_solver: see `scale_by_distributed_shampoo`.
      weight_decay: the decay, which passes through the momentum.
      weight_decay_type: one of the above.
      momentum: of the finished directions; 0 for none.
      dampening: how much of a direction is left out of the buffer, of the first one too.
      nesterov: look ahead along the new buffer.
      mask: leaves that decay; default all.
      peak_learning_rate: r*; default the number, or the highest value of the schedule so far,
        which during a warm-up is r itself: give the peak there.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import distributed_shampoo
      >>> opt = distributed_shampoo(0.1, b1=0.0, eps=1e-3, grafting="sgd")
      >>> params = jnp.array([3.0, 4.0])
      >>> update, _ = opt.update(params, opt.init(params), params)
      >>> [round(float(entry), 3) for entry in update]
      [-0.3, -0.4]
    """
    decay = _decay(weight_decay, weight_decay_type, learning_rate, peak_learning_rate, mask)
    direction = handed_on(scale_by_distributed_shampoo)
    return chain(
        *([decay, direction] if weight_decay_type == "l2" else [direction, decay]),
        *_momentum(momentum, dampening, nesterov),
        scale_by_learning_rate(learning_rate),
    )


def _momentum(momentum: Decay, dampening: Fraction, nesterov: bool) -> list[Flow]:
    if is_neutral(momentum):
        return []
    # `trace` never dampens the first gradient; this method does.
    damped = flow(lambda u: (1 - scheduled(dampening)) * u, name="dampening")
    return [damped, trace(momentum, nesterov)]
