"""Perpendicular gradients."""

from ...registry import method
from ...transforms import (
    Flow,
    NonNegative,
    Signal,
    divide_or_zero,
    flow,
    leaf_norm,
    leaf_where,
    merge,
    project_out_params,
    split,
    transformation,
    where,
)


@method(
    "Prieto et al. 2025, Grokking at the Edge of Numerical Stability",
    arxiv="2501.04697",
    tags=("orthogonal",),
    in_front=True,
)
@transformation()
def perpgrad(rescale: bool = True, eps: NonNegative = 1e-30) -> Flow:
    r"""Takes out of each gradient its component along the weights; stands in front of an optimizer.

    .. math::
        h = g - \frac{\langle w, g \rangle}{\langle w, w \rangle + \epsilon} w, \qquad
        h \leftarrow \frac{\|g\|}{\|h\| + \epsilon} h \text{ if } \mathrm{rescale}

    leaf by leaf. Leaves of one entry, which have no perpendicular direction, are left alone.

    Args:
      rescale: restore the norm of the gradient.
      eps: guards both divisions.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import perpgrad
      >>> opt = optax.chain(perpgrad(rescale=False), optax.sgd(1.0))
      >>> params = jnp.array([2.0, 0.0])
      >>> opt.update(jnp.array([1.0, -1.0]), opt.init(params), params)[0].tolist()
      [-0.0, 1.0]

    References:
      Prieto et al. 2025, Grokking at the Edge of Numerical Stability (arXiv 2501.04697). The paper
      only projects; the official code also restores the norm, which is the default. Its other half,
      a softmax that does not saturate, is `stablemax_cross_entropy`.
    """

    def step(g: Signal, params: Signal) -> Signal:
        vectors, scalars = split(g, leaf_where(lambda leaf: leaf.size > 1))
        h = project_out_params(vectors, params, eps)
        if rescale:
            size = leaf_norm(h)  # of nothing left, nothing is made: else 1 / eps is its derivative
            h = h * divide_or_zero(leaf_norm(vectors), where(size > 0, size + eps, 0.0))
        return merge(h, scalars)

    return flow(step)
