"""What a Lie group of preconditioners Q^T Q is asked for.

A group says what its elements are, how one is started, moved towards

    min over Q of  h^T Q^T Q h + v^T (Q^T Q)^-1 v

and applied. All works on batches: leaves that are stacks, or one vector as a batch of one.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp


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
