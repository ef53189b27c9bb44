"""Training algorithms with nothing to tune but the length of the run."""

from collections.abc import Callable
from typing import Any, Literal

import optax

from ...registry import METHODS, get_method, method
from ...transforms import FlowError, Share, Size, chain, checked
from ...transforms.notation.arguments import argument_of

Factory = Callable[[], optax.GradientTransformation]

PAPER = "Kasimbeg et al. 2025, How far away are truly hyperparameter-free learning algorithms?"
ARXIV = "2505.24005"
WARMUP = 0.05
BASELINES = {"adamw": 1e-3, "nadamw": 1e-3}
"""Baseline -> the one peak rate for all workloads."""
METHODS_WITHOUT_RATE = (
    "cocob",
    "dadapt_adamw",
    "dog",
    "dowg",
    "l_dog",
    "mechanize",
    "momo",
    "momo_adam",
    "prodigy",
    "schedule_free_adamw",
)
AVERAGED = ("dog", "l_dog", "dowg")
"""To be evaluated at an average of the iterates."""
UNSCALED = ("mechanize", "schedule_free_adamw")
"""Their updates lead to points of their own, which a factor would miss."""


def learning_rate_free_methods() -> tuple[str, ...]:
    """Names of the methods that find their learning rate, as `calibrated` takes them.

    Example:
      >>> from gradchain.optimizers import learning_rate_free_methods
      >>> "prodigy" in learning_rate_free_methods()
      True
    """
    return METHODS_WITHOUT_RATE


@checked()
def workload_agnostic(
    factory: Factory,
    horizon: Size,
    warmup_fraction: Share = WARMUP,
    decay: Literal["cosine", "none"] = "cosine",
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose updates rise and fall with the run, whatever finds their size.

        u_t = s(t) * (update of the method),    s: 0 -> 1 linearly, then 1 -> 0 by a cosine

    The factor is on the update: that on a gradient would be normalised away by most of these
    methods. The first update has the factor 1 / (warm-up steps), not 0.

    Args:
      factory: makes the optimizer, without arguments.
      horizon: steps of the run.
      warmup_fraction: share of the steps in which s rises.
      decay: "cosine", or "none" for a factor that stays at 1.

    Returns:
      The optimizer.

    Raises:
      ValueError: for an argument out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import sgd, workload_agnostic
      >>> opt = workload_agnostic(lambda: sgd(1.0), horizon=4, warmup_fraction=0.5)
      >>> x, state, factors = jnp.ones(()), None, []
      >>> state = opt.init(x)
      >>> for _ in range(4):
      ...     u, state = opt.update(x, state, x)
      ...     factors.append(round(-float(u), 2))
      >>> factors
      [0.5, 1.0, 1.0, 0.5]

    References:
      Kasimbeg et al. 2025 (arXiv 2505.24005).
    """
    return chain(factory(), optax.scale_by_schedule(_relative(horizon, warmup_fraction, decay)))


def _relative(horizon: int, warmup_fraction: float, decay: str) -> optax.Schedule:
    warmup = round(warmup_fraction * horizon)
    start = 1 / max(warmup, 1)
    rising = optax.linear_schedule(start, 1.0, max(warmup - 1, 1))
    rest = max(horizon - warmup, 1)
    after = optax.cosine_decay_schedule(1.0, rest) if decay == "cosine" else (lambda count: 1.0)
    return optax.join_schedules([rising, after], [warmup])


@method(
    PAPER,
    arxiv=ARXIV,
    kind="measurement",
    tags=("comparison", "own-rate"),
    required={"name": "prodigy"},
    name="hyperparameter_free",
)
@checked()
def calibrated(
    name: str,
    warmup_fraction: Share = WARMUP,
    decay: Literal["cosine", "none"] = "cosine",
    horizon_fraction: Share = 1.0,
    **arguments: Any,
) -> Callable[[int], optax.GradientTransformationExtraArgs]:
    """A method with all hyper-parameters frozen, which takes the length of a run alone.

        u_t = s(t) * (update of the method),    s: up in the warm-up, then down by a cosine

    The protocol: one configuration per method for all workloads, its values either the literature's
    (the defaults here) or found by one search over `warmup_fraction`, `decay`, `horizon_fraction`
    and the method's momentum factors and weight decay, by the number of targets reached and then
    the time (see `algoperf_score`), with as many trials for the baselines as for the methods.

    All go through `workload_agnostic`, except `mechanize`, which is put around AdamW with the
    relative schedule, and `schedule_free_adamw`, which has the same warm-up and no decay. DoG's
    relatives are evaluated at a polynomial average: use `eval_params`.

    Args:
      name: one of `learning_rate_free_methods()`, or of the baselines "adamw" and "nadamw", whose
        one peak rate is 1e-3.
      warmup_fraction, decay: see `workload_agnostic`.
      horizon_fraction: share of the run after which the schedule has ended.
      **arguments: further arguments of the method, in place of its defaults: a calibration.

    Returns:
      A function `horizon -> optimizer`.

    Raises:
      ValueError: for another method, or an argument out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import calibrated
      >>> opt = calibrated("dog", warmup_fraction=0.0, init_step=("distance", 0.5))(horizon=100)
      >>> x = jnp.array([3.0, -4.0])
      >>> print(opt.update(x, opt.init(x), x)[0].round(3))
      [-0.3  0.4]

    References:
      Kasimbeg et al. 2025 (arXiv 2505.24005). The values of the paper's own calibration, on the
      workloads of AlgoPerf, are not repeated here: those of the literature are the defaults. A
      warm-up over a twentieth of the run, a cosine to 0 at its end and the baselines' rate of 1e-3
      are choices of ours.
    """
    allowed = (*METHODS_WITHOUT_RATE, *BASELINES)
    if name not in allowed:
        raise FlowError(f"calibrated: name={name!r} is not one of {', '.join(map(repr, allowed))}")

    def make(horizon: int) -> optax.GradientTransformationExtraArgs:
        argument_of("horizon", Size).check("calibrated", horizon)
        length = max(round(horizon_fraction * horizon), 1)
        if name in UNSCALED:
            return _unscaled(name, length, warmup_fraction, decay, arguments)
        rate = {"learning_rate": BASELINES[name]} if name in BASELINES else {}
        factory = METHODS[name].factory
        opt = workload_agnostic(
            lambda: factory(**rate, **arguments), length, warmup_fraction, decay
        )
        return METHODS["polynomial_averaging"].factory(opt) if name in AVERAGED else opt

    return make


def _unscaled(
    name: str,
    horizon: int,
    warmup_fraction: float,
    decay: str,
    arguments: dict[str, Any],
) -> optax.GradientTransformationExtraArgs:
    factory = get_method(name).factory
    if name == "schedule_free_adamw":
        return factory(**{"warmup_steps": round(warmup_fraction * horizon), **arguments})
    schedule = _relative(horizon, warmup_fraction, decay)
    return factory(METHODS["adamw"].factory(schedule, weight_decay=0.0), **arguments)
