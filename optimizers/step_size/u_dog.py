"""U-DoG and UniXGrad: accelerated steps from two gradients each."""

from collections.abc import Callable

from ...registry import method
from ...transforms import (
    Flow,
    Positive,
    Signal,
    delay,
    divide_or_zero,
    flow,
    global_norm,
    hypot,
    initial_params,
    maximum,
    saturate,
    scheduled,
    step_count,
    transformation,
    where,
)
from .dog import FirstStep, check_first_step

Projection = Callable[[Signal], Signal] | None


def _queried(
    params: Signal, first: Signal, y: Signal, moved: Signal, weight: Signal, next_weight: Signal
) -> Signal:
    """Closes an iteration's half: y, the average of the x, and the way to the next query point.

    In the first half `moved` is x, which enters the average with its weight; in the second it is
    the next y, towards which the query is off the average.
    """
    average = delay(params, name="average", evaluation=(1.0, 0.0))
    total = delay(0.0, name="weight_sum")
    new_total = total << total + where(first, weight, 0.0)
    share = where(first, divide_or_zero(weight, new_total), 0.0)
    mean = average << average + share * saturate(moved - average)
    y << where(first, y, moved)
    ahead = divide_or_zero(next_weight, new_total + next_weight)
    return where(first, mean, mean + ahead * saturate(moved - mean)) - params


@method(
    "Kreisler, Ivgi, Hinder & Carmon 2024, Accelerated Parameter-Free Stochastic Optimization",
    arxiv="2404.00666",
    learning_rate=None,
    tags=("own-rate", "nesterov", "evaluation-weights"),
    small_model={"init_step": ("heuristic", 1e-2)},
)
@transformation()
def u_dog(init_step: FirstStep = ("heuristic", 1e-6)) -> Flow:
    """Accelerated DoG: every iteration takes two gradients, by one `update` each.

    The params are the point at which the next gradient is taken. Iteration t = 0, 1, ... starts at
    a_t and knows y_t, the average X_t of the x so far with its weight W_t, and

        r_t = the largest distance from x_0 of all x and y so far, at least r_0
        w_t = r_0 + ... + r_t,    alpha_t = w_t / r_t

    first half, with the gradient m_t at a_t:

        M <- max(M, alpha_t^2 |m_t|^2)
        x_{t+1} = y_t - w_t / sqrt(M + Q) m_t
        W_{t+1} = W_t + w_t,    X_{t+1} = X_t + w_t / W_{t+1} (x_{t+1} - X_t)
        the next gradient is taken at X_{t+1}

    second half, with the gradient g_t at X_{t+1}:

        Q <- Q + alpha_t^2 |g_t - m_t|^2
        y_{t+1} = y_t - w_t / sqrt(M + Q) g_t
        a_{t+1} = (W_{t+1} X_{t+1} + w_{t+1} y_{t+1}) / (W_{t+1} + w_{t+1})

    with norms over all leaves. `eval_params(state, params)` gives X, the method's result.

    Args:
      init_step: ("heuristic", rho): r_0 = rho (1 + |x_0|); ("distance", r): r_0 = r.

    Returns:
      The optimizer; it needs `params`, and its state is four times their size.

    Raises:
      ValueError: for another kind of `init_step`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import u_dog
      >>> opt = u_dog(init_step=("distance", 0.5))
      >>> x = jnp.array([3.0, -4.0])
      >>> [f"{u:.3f}" for u in opt.update(x, opt.init(x), x)[0]]
      ['-0.300', '0.400']

    References:
      Kreisler, Ivgi, Hinder & Carmon 2024, Accelerated Parameter-Free Stochastic Optimization
      (arXiv 2404.00666). No official code was available: which denominators the practical variant
      has, without the theory's logarithmic factors, is our reading.
    """
    check_first_step("u_dog", init_step, ("heuristic", "distance"))
    kind, number = init_step

    def step(g: Signal, params: Signal) -> Signal:
        t = step_count()
        first = t % 2 == 1
        x0 = initial_params()
        start = number * (1 + global_norm(x0)) if kind == "heuristic" else number
        past_r, past_w = delay(0.0, name="distance"), delay(0.0, name="distance_sum")
        r, w = where(t == 1, start, past_r), where(t == 1, start, past_w)
        alpha = divide_or_zero(w, r)

        other, largest, differences = (
            delay(g, name="first_gradient"),
            delay(0.0, name="largest_gradient"),
            delay(0.0, name="difference_sum"),
        )
        size = alpha * global_norm(g - where(first, 0.0, other))
        M = largest << where(first, maximum(largest, size), largest)
        Q = differences << where(first, differences, hypot(differences, size))
        other << where(first, g, other)

        y = delay(params, name="y")
        moved = y - divide_or_zero(w, hypot(M, Q)) * g
        reached = delay(0.0, name="reached")
        farthest = reached << maximum(reached, global_norm(moved - x0))
        new_r = past_r << where(first, r, maximum(r, farthest))
        new_w = past_w << where(first, w, w + new_r)
        return _queried(params, first, y, moved, w, new_w)

    return flow(step)


@method(
    "Kavis, Levy, Bach & Cevher 2019, UniXGrad: A Universal, Adaptive Algorithm with Optimal "
    "Guarantees for Constrained Optimization",
    arxiv="1910.13857",
    learning_rate=None,
    tags=("own-rate", "nesterov", "evaluation-weights"),
    required={"diameter": 1.0},
)
@transformation()
def unixgrad(diameter: Positive, projection: Projection = None) -> Flow:
    """Accelerated adaptive steps from two gradients each, for a domain of known diameter D.

    As in `u_dog`, with the weights w_k = alpha_k = k of iteration k = 1, 2, ..., the same step in
    both halves,

        2 D k / sqrt(1 + sum over i < k of i^2 |g_i - m_i|^2),

    and x and y projected onto the domain, if it is given. `eval_params(state, params)` gives the
    average.

    Args:
      diameter: D.
      projection: a function of a tree signal that gives its projection, such as
        `lambda x: clip(x, -1.0, 1.0)`; default the whole space.

    Returns:
      The optimizer; it needs `params`, and its state is three times their size.

    Raises:
      ValueError: for a diameter that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import unixgrad
      >>> opt = unixgrad(0.25)
      >>> x = jnp.array([3.0, -4.0])
      >>> [f"{u:.3f}" for u in opt.update(x, opt.init(x), x)[0]]
      ['-1.500', '2.000']

    References:
      Kavis, Levy, Bach & Cevher 2019, UniXGrad: A Universal, Adaptive Algorithm with Optimal
      Guarantees for Constrained Optimization (arXiv 1910.13857).
    """

    def step(g: Signal, params: Signal) -> Signal:
        t = step_count()
        first, k = t % 2 == 1, (t + 1) // 2
        other, differences = delay(g, name="first_gradient"), delay(0.0, name="difference_sum")
        y = delay(params, name="y")
        moved = y - 2 * scheduled(diameter) * k / hypot(1.0, differences) * g
        moved = moved if projection is None else projection(moved)
        size = k * global_norm(g - other)
        differences << where(first, differences, hypot(differences, size))
        other << where(first, g, other)
        return _queried(params, first, y, moved, 1.0 * k, 1.0 + k)

    return flow(step)
