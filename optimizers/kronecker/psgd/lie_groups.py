"""What a Lie group of preconditioners Q^T Q is asked for.

A group says what its elements are, how one is started, moved towards

    min over Q of  h^T Q^T Q h + v^T (Q^T Q)^-1 v

and applied, where the terms are the squares of |a| and |b| with a = Q h and b = Q^-T v. All works
on batches: leaves that are stacks, or one vector as a batch of one.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from ....transforms.notation.roots import norm, root, smooth_quotient

UNLIKE = 1e4
"""How many times too large an element is that was fitted to something else."""


class LieGroup(Protocol):
    """What `fit_preconditioner` has to know of a group."""

    def empty(self, x: Any) -> Any:
        """Zeros in the shapes of an element for vectors like `x`."""

    def start(self, x: Any, scale: Any, key: Any) -> Any:
        """The element to start from, `scale` times the identity as nearly as the group has it."""

    def moved(self, q: Any, v: Any, h: Any, rate: Any, key: Any, t: Any) -> Any:
        """The element after one step on the pair (v, h)."""

    def applied(self, q: Any, x: Any) -> Any:
        """Q^T Q x."""

    batched: bool
    """Whether its vectors are stacks, with one element for each along the leading axis."""


def tiny_of(x: jax.Array) -> Any:
    return jnp.finfo(x.dtype).tiny


def shrinking(a: jax.Array, b: jax.Array, batched: bool) -> jax.Array:
    """By what elements are multiplied that make |a| more than `UNLIKE` times |b|; 1 for others.

    Both are then as long. An element that was fitted to a gradient next to none would otherwise
    throw the params by the ordinary ones that come, and shrink by a tenth in a step.

    Args:
      a, b: Q h and Q^-T v.
      batched: whether there is one element for each entry along the leading axis.
    """
    axes = tuple(range(1 if batched else 0, a.ndim))
    long, short = norm(a, axes), norm(b, axes)
    unlike = jnp.isfinite(long) & (long / UNLIKE > short) & (short > 0)
    one = jnp.ones_like(long)
    return jnp.where(
        unlike,
        root(smooth_quotient(jnp.where(unlike, short, one), jnp.where(unlike, long, one))),
        one,
    )


def times(x: jax.Array, numbers: jax.Array) -> jax.Array:
    """x multiplied by a number for each entry along its leading axis, or by one."""
    return x * numbers.reshape(numbers.shape + (1,) * (x.ndim - numbers.ndim))
