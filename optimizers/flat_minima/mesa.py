"""MESA: outputs are kept near those of the averaged weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

import optax

from ...registry import method
from ...transforms import (
    Decay,
    Flow,
    NonNegativeConstant,
    PositiveConstant,
    Signal,
    checked,
    delay,
    flow,
    scheduled,
    transformation,
)
from .trajectory import trajectory_loss

PAPER = "Du et al. 2022, Sharpness-Aware Training for Free"
ARXIV = "2205.14083"


@method(PAPER, arxiv=ARXIV, tags=("flat-minima",), kind="loss")
@checked()
def mesa(
    coefficient: NonNegativeConstant = 0.8, temperature: PositiveConstant = 5.0
) -> Callable[[Any, Any], Any]:
    """Memory-efficient sharpness-aware training: the term of its loss.

        loss = CE(z, y) + mesa()(z, q)            where `saf_active(epoch)`, else CE(z, y)

    with z the logits of this batch at the params and q those at the averaged weights v, which
    `params_ema` keeps and `eval_params` shows: a forward pass more, where `saf` keeps a table. The
    rule is that of `trajectory_loss`; no gradient flows through q.

    Args:
      coefficient: weight of the term.
      temperature: by which logits are divided.

    Returns:
      A function (logits, target_logits) -> scalar.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from gradchain import eval_params
      >>> from gradchain.optimizers import mesa, params_ema, sgd
      >>> x, opt, term = jnp.eye(2), params_ema(sgd(1.0), decay=0.5), mesa()
      >>> params = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> state = opt.init(params)
      >>> def loss(w, q):
      ...     return jnp.sum((x @ w) ** 2) / 2 + term(x @ w, q)
      >>> for _ in range(2):
      ...     q = x @ eval_params(state, params)
      ...     value, g = jax.value_and_grad(loss)(params, q)
      ...     u, state = opt.update(g, state, params)
      ...     params = optax.apply_updates(params, u)
      >>> round(float(value), 5)
      0.06223

    References:
      Du et al. 2022, Sharpness-Aware Training for Free (arXiv 2205.14083): coefficient 0.8,
      temperature 5 and start 5 are the paper's, where the authors' script has 0.3.
    """
    return partial(trajectory_loss, coefficient=coefficient, temperature=temperature)


@method(
    PAPER,
    arxiv=ARXIV,
    tags=("flat-minima", "evaluation-weights"),
    small_model={"decay": 0.9},
)
@transformation()
def params_ema(inner: optax.GradientTransformation, decay: Decay = 0.9995) -> Flow:
    """Keeps an exponential average of the weights beside any optimizer, for `mesa`.

        v_0 = x_0,    v_t = decay v_{t-1} + (1 - decay) x_t

    with x_t the params after the t-th step. There is no bias correction: the average starts at the
    params. `eval_params(state, params)` gives it.

    Args:
      inner: any optimizer; this wrapper is the outermost transformation.
      decay: in [0, 1).

    Returns:
      The wrapped optimizer; it needs `params`, and its state is one copy of them more.

    Raises:
      ValueError: for a decay out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain import eval_params
      >>> from gradchain.optimizers import params_ema, sgd
      >>> opt, x = params_ema(sgd(1.0), decay=0.75), jnp.array([4.0])
      >>> u, state = opt.update(x, opt.init(x), x)
      >>> eval_params(state, x + u).tolist()
      [3.0]

    References:
      Du et al. 2022, Sharpness-Aware Training for Free (arXiv 2205.14083); the decay is the
      paper's, where the authors' script has 0.9998.
    """

    def step(g: Signal, params: Signal) -> Signal:
        u = g >> inner
        average = delay(params, name="average", evaluation=(1.0, 0.0))
        average << average + (1 - scheduled(decay)) * (params + u - average)
        return u

    return flow(step)
