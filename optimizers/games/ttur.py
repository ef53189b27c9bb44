"""TTUR: two time scales for two players."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from ...registry import factory_of, method
from ...transforms import (
    Flow,
    FlowError,
    flow,
    partition,
    step_count,
    transformation,
    when,
)
from ...transforms.control.masked import Labels


@method(
    "Heusel, Ramsauer, Unterthiner, Nessler & Hochreiter 2017, GANs Trained by a Two Time-Scale "
    "Update Rule Converge to a Local Nash Equilibrium",
    arxiv="1706.08500",
    tags=("games", "partitioned"),
    learning_rate=None,
    required={
        "learning_rates": {"disc": 1e-2, "gen": 3e-3},
        "param_labels": lambda params: jax.tree.map(
            lambda x: "gen" if x.ndim == 2 else "disc", params
        ),
    },
)
@transformation()
def ttur(
    learning_rates: Mapping[str, optax.ScalarOrSchedule],
    param_labels: Labels,
    inner: str | Callable[..., optax.GradientTransformation] = "adam",
    inner_kwargs: Mapping[str, Any] | None = None,
    update_every: Mapping[str, int] | None = None,
) -> Flow:
    """An optimizer for each player of a game, with rates and periods of their own.

        x_p <- x_p + inner_p(g_p)      for each label p, at the steps t = 0 mod update_every[p]

    Gradients of all players come in one tree, each with respect to its own parameters. In between
    its steps a player rests altogether: its moments and its step count stay, and the gradients of
    those steps are dropped. In theory the discriminator's rate is the larger one, and the ratio of
    the rates goes to 0.

    Args:
      learning_rates: label -> rate or schedule; a schedule counts the steps of its player.
      param_labels: tree of labels, which may be a prefix of the params, or a function from the
        params to it.
      inner: name of an optimizer of the catalogue, or `(learning_rate, **inner_kwargs) ->
        transformation`.
      inner_kwargs: further arguments of `inner`.
      update_every: label -> period in steps; default 1.

    Raises:
      ValueError: for a period of a label without a rate, and in `init` for a leaf with such a
        label.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import ttur
      >>> opt = ttur({"d": 0.5, "g": 0.25}, {"d": "d", "g": "g"}, update_every={"g": 2})
      >>> params = {"d": jnp.ones(1), "g": jnp.ones(1)}
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> updates["d"].round(3).tolist(), updates["g"].tolist()
      ([-0.5], [0.0])

    References:
      Heusel et al. 2017 (arXiv 1706.08500), and bioinf-jku/TTUR: two ordinary optimizers. WGAN-GP
      has 3e-4 for the discriminator and 1e-4 for the generator, DCGAN on CelebA 1e-5 and 5e-4.
    """
    periods = dict(update_every or {})
    unknown = set(periods) - set(learning_rates)
    if unknown:
        raise FlowError(f"ttur: update_every has labels without a learning rate: {sorted(unknown)}")
    factory = factory_of("inner", inner)

    def player(label: str, rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        inside, period = factory(rate, **(inner_kwargs or {})), periods.get(label, 1)
        if period == 1:
            return inside
        return flow(lambda g: g >> when(step_count() % period == 0, inside, otherwise=0))

    players = {label: player(label, rate) for label, rate in learning_rates.items()}
    return partition(players, param_labels)
