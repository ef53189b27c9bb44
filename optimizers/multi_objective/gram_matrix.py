"""What the quadratic programs of several aggregators are posed with."""

import jax
import jax.numpy as jnp

from ...transforms.notation.roots import root


def normalised(G: jax.Array, scale: jax.Array, norm_eps: float | jax.Array) -> jax.Array:
    """G over its trace; zero where the trace of the unscaled Gramian is below `norm_eps`.

    Args:
      G: Gramian of the gradients divided by `scale`.
      scale: what they were divided by.
      norm_eps: squared length of all gradients together below which they count as zero.
    """
    trace = jnp.trace(G)
    # Roots are compared: the square of a small scale underflows.
    counts = (jnp.sqrt(trace) * scale >= jnp.sqrt(norm_eps)) & (trace > 0)
    return jnp.where(counts, G / jnp.where(counts, trace, 1), 0)


def regularised(
    G: jax.Array, scale: jax.Array, norm_eps: float | jax.Array, reg_eps: float | jax.Array
) -> jax.Array:
    """`normalised`, plus reg_eps on the diagonal."""
    return normalised(G, scale, norm_eps) + reg_eps * jnp.eye(len(G), dtype=G.dtype)


def cosines(G: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The cosines between the gradients, and one over their lengths; 0 for a gradient of 0."""
    lengths = root(jnp.diagonal(G))
    inverse = jnp.where(lengths > 0, 1 / jnp.where(lengths > 0, lengths, 1), 0)
    return G * inverse[:, None] * inverse[None, :], inverse
