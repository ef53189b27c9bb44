"""Mechanic."""

import jax.numpy as jnp
import numpy as np
import optax

from ...registry import method
from ...transforms import (
    DType,
    Flow,
    NonNegative,
    Positive,
    PositiveConstant,
    Signal,
    Size,
    clip,
    delay,
    flow,
    global_dot,
    global_norm,
    hypot,
    initial_params,
    lift,
    maximum,
    tap,
    transformation,
)


@method(
    "Cutkosky, Defazio & Mehta 2023, Mechanic: A Learning Rate Tuner",
    arxiv="2306.00144",
    tags=("own-rate",),
    learning_rate=1.0,
    small_model={"s_init": 1e-3},
)
@transformation()
def mechanize(
    base_optimizer: optax.GradientTransformation,
    weight_decay: NonNegative = 1e-2,
    eps: Positive = 1e-8,
    s_init: PositiveConstant = 1e-6,
    num_betas: Size = 6,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Flow:
    """Learns the learning rate of any optimizer by betting on its updates.

    With u_t the update of the base optimizer, D_t = sum of -u up to t, S_t = sum over i of s_i,
    and for every beta_i = 1 - 10^-i, i = 1 .. num_betas:

        h_t = <g_t + weight_decay S_{t-1} |g_t| / (|x_t| + eps) x_t, D_{t-1}>
        r_i <- beta_i r_i + clip(h_t, -m_i, m_i) s_i
        m_i <- max(beta_i m_i, |h_t| + eps)
        v_i <- beta_i^2 v_i + h_t^2
        s_i <- (s_init m_i / num_betas + max(r_i, 0)) / (sqrt(v_i) + eps)
        x_{t+1} = x_0 - S_t D_t

    with products and norms over all leaves, and x_0 the params that `init` was given; D_{t-1} is
    found as (x_0 - x_t) / (S_{t-1} + eps). The tap "scale" is S_t.

    Args:
      base_optimizer: any optimizer with a learning rate of 1, or a schedule with the peak 1; not
        one that normalises by the params, as LARS and LAMB do.
      weight_decay: of the gradients that the tuner sees; the base optimizer's are not changed.
      eps: keeps divisors from zero.
      s_init: the scale at the start, far below any good rate.
      num_betas: how many decays are mixed.
      mu_dtype, nu_dtype: storage of the first and second moments; default at least float32.

    Returns:
      The tuned optimizer; it needs `params`, and adds one copy of them to the state. It is the
      outermost transformation: decay or scaling after it would break its bookkeeping.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mechanize, sgd
      >>> opt = mechanize(sgd(1.0), s_init=0.5)
      >>> x = jnp.array([3.0, -4.0])
      >>> [f"{u:.3f}" for u in opt.update(x, opt.init(x), x)[0]]
      ['-1.500', '2.000']

    References:
      Cutkosky, Defazio & Mehta 2023, Mechanic: A Learning Rate Tuner (arXiv 2306.00144), as
      `optax.contrib.mechanize`, whose clipping of h came after the paper.
    """
    decays = 1 - 0.1 ** np.arange(1, num_betas + 1)

    def step(g: Signal, params: Signal) -> Signal:
        u = g >> base_optimizer
        m, v, r = (delay(0 * decays, name=name) for name in ("m", "v", "r"))
        s = delay(0 * decays + s_init, name="s")
        scale = total(s)
        x0 = initial_params()
        past = (x0 - params) / (scale + eps)
        shrink = weight_decay * scale * global_norm(g) / (global_norm(params) + eps)
        h = global_dot(g + shrink * params, past)
        new_r = r << decays * r + clip(h, -m, m) * s
        new_m = m << maximum(decays * m, abs(h) + eps)
        new_v = v << hypot(decays * v, h)  # the root of the sum: squares may overflow
        wealth = s_init / num_betas * new_m + maximum(new_r, 0.0)
        new_s = s << wealth / (new_v + eps)
        return x0 - tap("scale", total(new_s)) * (past - u) - params

    return flow(step)


total = lift(jnp.sum, "sum")
