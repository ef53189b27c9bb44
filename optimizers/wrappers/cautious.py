"""Cautious updates."""

from typing import Literal

import optax

from ...registry import method
from ...transforms import Flow, Positive, Signal, flow, leaf_mean, leaf_sum, maximum, transformation
from ...transforms.notation import leaf_size, signs_agree

CautiousScale = Literal["mean", "count"]


@method(
    "Liang et al. 2024, Cautious Optimizers",
    arxiv="2411.16085",
    tags=("cautious",),
)
@transformation()
def cautious(
    inner: optax.GradientTransformation,
    scale: CautiousScale | None = "mean",
    min_mean: Positive = 1e-3,
    descends: bool = True,
) -> Flow:
    """Leaves out the entries of an update that point against the present gradient.

        k = 1 where the update u_t = inner(g_t) descends along g_t, else 0
        update = k u_t / max(mean(k), min_mean)        scale="mean"
        update = k u_t n / (sum(k) + 1)                scale="count"
        update = k u_t                                 scale=None

    leaf by leaf; n is the number of entries of the leaf. Entries with a zero gradient are left out.
    The inner state is not masked. Decay of weights belongs outside: `chain(cautious(...), decay)`.
    A leaf that stacks several layers is scaled as one; use `vmap` to have them scaled apart.

    Args:
      inner: any transformation.
      scale: how the rest makes up for what is left out.
      min_mean: the least mean of k that is divided by.
      descends: True for a finished optimizer, whose update goes against the gradient; False for a
        direction (`scale_by_...`), which goes with it.

    Returns:
      The wrapped transformation, with the inner state.

    Raises:
      ValueError: for an unknown `scale` or a `min_mean` that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import cautious, sgd
      >>> opt = cautious(sgd(1.0, momentum=0.5))
      >>> state = opt.init(jnp.zeros(2))
      >>> _, state = opt.update(jnp.array([8.0, 8.0]), state)
      >>> opt.update(jnp.array([-1.0, 1.0]), state)[0].tolist()
      [0.0, -10.0]

    References:
      Liang et al. 2024, Cautious Optimizers: Improving Training with One Line of Code (arXiv
      2411.16085). The paper scales by "count"; the authors' code by "mean" for AdamW and "count"
      for Lion.
    """

    def step(g: Signal) -> Signal:
        u = g >> inner
        keep = signs_agree(-u if descends else u, g)
        if scale == "mean":
            return u * keep / maximum(leaf_mean(keep), min_mean)
        if scale == "count":
            return u * keep * (leaf_size(u) / (leaf_sum(keep) + 1))
        return u * keep

    return flow(step)
