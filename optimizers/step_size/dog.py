"""DoG, for the whole model and layer by layer."""

import optax

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    Mask,
    NonNegative,
    NonNegativeConstant,
    Scalar,
    Signal,
    chain,
    decay_weights,
    divide_or_zero,
    flow,
    initial_params,
    running_norm,
    scale_by_learning_rate,
    scheduled,
    sqrt,
    step_count,
    tap,
    transformation,
    where,
)
from ...transforms.notation import global_squared_norm
from ...transforms.step_size import SquaredNorm, largest_distance, leaf_squared_norm

PAPER = (
    "Ivgi, Hinder & Carmon 2023, DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size "
    "Schedule"
)
ARXIV = "2302.12022"
FIRST_STEPS = ("heuristic", "distance", "learning_rate")

FirstStep = tuple[str, float]
"""How far, or how fast, the first step goes: its kind and a number."""


def check_first_step(label: str, init_step: FirstStep, kinds: tuple[str, ...]) -> None:
    """Raises FlowError for what is no pair of a kind and a number >= 0."""
    is_pair = isinstance(init_step, tuple | list) and len(init_step) == 2
    if not is_pair or init_step[0] not in kinds:
        raise FlowError(
            f"{label}: init_step={init_step!r} must be a pair (kind, number) with a kind of "
            + ", ".join(map(repr, kinds))
        )
    number = init_step[1]
    if isinstance(number, bool | str) or (isinstance(number, int | float) and not number >= 0):
        raise FlowError(f"{label}: init_step={init_step!r}: the number must be in [0, inf)")


@transformation()
def scale_by_dog(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    init_step: FirstStep = ("heuristic", 1e-6),
    eps: NonNegativeConstant = 1e-8,
) -> Flow:
    """Steps as long as the distance come so far, over the root of the sum of squared gradients.

        r_t = max(r_{t-1}, |x_t - x_0|)
        G_t = G_{t-1} + |g_t|^2,    G_0 = eps
        u_t = learning_rate r_t / sqrt(G_t) g_t

    with norms over all leaves, and x_0 the params that `init` was given. The tap "step_size" is the
    factor of g_t. In params of bfloat16 the first steps, of relative size 1e-6, are lost to
    rounding: keep a float32 copy of the params. The state holds the root of G, which is a number
    where squares are none.

    Args:
      learning_rate: a multiple of the step; 1 is meant.
      init_step: ("heuristic", rho): r_1 = rho (1 + |x_0|), with 1e-4 for networks with batch
        normalisation; ("distance", r): r_1 = r; ("learning_rate", e): the first step is e g_1,
        whatever `learning_rate`, and r_1 = 0.
      eps: G_0.

    References:
      Ivgi, Hinder & Carmon 2023, DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size
      Schedule (arXiv 2302.12022), and the authors' package dog-optimizer, from which eps comes.
    """
    check_first_step("scale_by_dog", init_step, FIRST_STEPS)
    return flow(
        lambda g, params: _scaled(g, params, global_squared_norm, learning_rate, init_step, eps),
        name="scale_by_dog",
    )


@transformation()
def scale_by_l_dog(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    init_step: FirstStep = ("heuristic", 1e-6),
    eps: NonNegativeConstant = 1e-8,
    stacked: Mask | None = None,
) -> Flow:
    """`scale_by_dog` of every leaf on its own: norms, sums and steps are those of the leaf.

    Args:
      learning_rate, init_step, eps: see `scale_by_dog`.
      stacked: leaves that stack layers on their leading axis, as those of a scanned model: a tree
        of booleans, or a function of the params. Each of their layers then goes on its own.

    References:
      Ivgi, Hinder & Carmon 2023, DoG is SGD's Best Friend (arXiv 2302.12022): L-DoG.
    """
    check_first_step("scale_by_l_dog", init_step, FIRST_STEPS)
    norm = leaf_squared_norm(stacked)
    return flow(
        lambda g, params: _scaled(g, params, norm, learning_rate, init_step, eps),
        name="scale_by_l_dog",
    )


def _scaled(
    g: Signal,
    params: Signal,
    squared_norm: SquaredNorm,
    learning_rate: optax.ScalarOrSchedule,
    init_step: FirstStep,
    eps: NonNegativeConstant,
) -> Signal:
    kind, number = init_step
    smallest: Scalar = 0.0 if kind == "learning_rate" else number
    if kind == "heuristic":
        smallest = number * (1 + sqrt(squared_norm(initial_params())))
    distance = largest_distance(params, smallest, squared_norm)
    total = running_norm(g, squared_norm, start_square=eps, name="norm_grads")
    size = scheduled(learning_rate) * divide_or_zero(distance, total)
    if kind == "learning_rate":
        size = where(step_count() == 1, number, size)
    return tap("step_size", size) * g


@method(
    PAPER,
    arxiv=ARXIV,
    learning_rate=1.0,
    tags=("own-rate",),
    small_model={"init_step": ("heuristic", 1e-2)},
)
@transformation()
def dog(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    init_step: FirstStep = ("heuristic", 1e-6),
    eps: NonNegativeConstant = 1e-8,
    weight_decay: NonNegative | None = 0.0,
    mask: Mask | None = None,
) -> Flow:
    """DoG; the rule is that of `scale_by_dog`.

    Evaluate at an average of the iterates: `polynomial_averaging(dog())`, which the authors call
    essential.

    Args:
      learning_rate, init_step, eps: see `scale_by_dog`.
      weight_decay: L2 regularisation, added to the gradient.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; it needs `params`, and its state is one copy of them.

    Raises:
      ValueError: for a hyper-parameter out of range, or another kind of `init_step`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import dog
      >>> opt = dog(init_step=("heuristic", 0.5), eps=0.0)
      >>> x = jnp.array([3.0, -4.0])
      >>> [f"{u:.3f}" for u in opt.update(x, opt.init(x), x)[0]]
      ['-1.800', '2.400']

    References:
      Ivgi, Hinder & Carmon 2023 (arXiv 2302.12022). `optax.contrib.dog` multiplies the first step
      of ("learning_rate", e) by `learning_rate`, too; the authors' code, which we follow, does not.
    """
    return chain(
        decay_weights(weight_decay, mask=mask),
        scale_by_dog(learning_rate=learning_rate, init_step=init_step, eps=eps),
        scale_by_learning_rate(1.0),
    )


@method(
    PAPER,
    arxiv=ARXIV,
    learning_rate=1.0,
    tags=("own-rate", "layerwise"),
    small_model={"init_step": ("heuristic", 1e-2)},
)
@transformation()
def l_dog(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    init_step: FirstStep = ("heuristic", 1e-6),
    eps: NonNegativeConstant = 1e-8,
    weight_decay: NonNegative | None = 0.0,
    mask: Mask | None = None,
    *,
    stacked: Mask | None = None,
) -> Flow:
    """L-DoG, which is DoG leaf by leaf; the rule is that of `scale_by_l_dog`.

    Args:
      learning_rate, init_step, eps, stacked: see `scale_by_l_dog`.
      weight_decay: L2 regularisation, added to the gradient.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; it needs `params`, and its state is one copy of them.

    Raises:
      ValueError: for a hyper-parameter out of range, or another kind of `init_step`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import l_dog
      >>> opt = l_dog(init_step=("distance", 0.5), eps=0.0)
      >>> x = {"w": jnp.array([3.0, -4.0]), "b": jnp.array(-7.0)}
      >>> updates, _ = opt.update(x, opt.init(x), x)
      >>> print(updates["w"].round(3), updates["b"].round(3))
      [-0.3  0.4] 0.5

    References:
      Ivgi, Hinder & Carmon 2023 (arXiv 2302.12022), and the authors' package dog-optimizer.
    """
    return chain(
        decay_weights(weight_decay, mask=mask),
        scale_by_l_dog(learning_rate=learning_rate, init_step=init_step, eps=eps, stacked=stacked),
        scale_by_learning_rate(1.0),
    )
