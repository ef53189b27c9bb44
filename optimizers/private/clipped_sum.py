"""Sums of clipped gradients of single examples, chunk by chunk, and batches by Poisson sampling."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...transforms import FlowError, Key, PositiveConstant, Share, Size
from ...transforms.notation.checks import checked
from ...transforms.notation.known import repeat
from ...transforms.notation.values import working
from ...transforms.trees.random import typed_key
from .examples import factors, scaled_sum


@checked()
def clipped_gradient_sum(
    loss_fn: Callable[[Any, Any], jax.Array],
    params: optax.Params,
    batch: optax.Params,
    l2_norm_clip: PositiveConstant,
    chunk_size: Size,
    present: jax.Array | None = None,
) -> optax.Updates:
    """The sum over examples of their gradients, each clipped; never more than a chunk at once.

    What `differentially_private_aggregate` makes of all stacked gradients before its noise;
    `add_private_noise` goes on from here.

    Args:
      loss_fn: `(params, example) -> loss` of a single example.
      params: where the gradients are taken.
      batch: a tree of arrays with the examples on the leading axis.
      l2_norm_clip: C, the largest norm of one gradient over all leaves.
      chunk_size: how many gradients of single examples are held at once.
      present: booleans, one for each example: who counts; default all. A batch of a Poisson sample
        has so many examples as there can be, and says here how many there are.

    Returns:
      A tree like the params, in at least float32.

    Raises:
      ValueError: for a batch whose arrays have leading axes of different lengths.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import clipped_gradient_sum
      >>> loss = lambda w, x: w * x
      >>> float(clipped_gradient_sum(loss, jnp.array(1.0), jnp.array([0.5, 3.0, -0.25]), 1.0, 2))
      1.25
    """
    count = _length_of(batch)
    size = min(chunk_size, max(count, 1))
    chunks = -(-count // size)
    padding = chunks * size - count
    there = jnp.ones(count, bool) if present is None else jnp.asarray(present, bool)
    batch, there = jax.tree.map(lambda x: _padded(x, padding), (batch, there))
    rows = jax.tree.map(lambda x: x.reshape(chunks, size, *x.shape[1:]), (batch, there))

    def add_chunk(i: int | jax.Array, total: list[jax.Array]) -> list[jax.Array]:
        examples, counts = jax.tree.map(lambda x: x[i], rows)
        gradients = jax.vmap(jax.grad(loss_fn), (None, 0))(params, examples)
        leaves = [working(x) for x in jax.tree.leaves(gradients)]
        if not leaves:
            return total
        weights = jnp.where(counts, factors(leaves, l2_norm_clip), 0)
        return [t + scaled_sum(x, weights) for t, x in zip(total, leaves, strict=True)]

    start = [jnp.zeros_like(working(jnp.asarray(p))) for p in jax.tree.leaves(params)]
    total = repeat(chunks, add_chunk, start)
    return jax.tree.unflatten(jax.tree.structure(params), total)


@checked()
def poisson_sample(
    key: Key, num_examples: Size, rate: Share, max_examples: Size
) -> tuple[Any, Any]:
    """A batch to which each example belongs with the same probability, by itself.

    The amplification by sampling, that accountants count on, is that of this way of sampling. The
    shape of the batch is fixed: where more examples are drawn than it holds, which should hardly
    ever happen, those with the highest numbers are left out.

    Args:
      key: seed or key of the draw.
      num_examples: of how many.
      rate: the probability, in [0, 1]; the expected number of examples is that of the noise.
      max_examples: how many the batch holds.

    Returns:
      The numbers of the examples, int32[max_examples], and booleans: which of them are there.

    Example:
      >>> from gradchain.optimizers import poisson_sample
      >>> numbers, present = poisson_sample(0, 100, rate=0.05, max_examples=20)
      >>> numbers.shape, 0 < int(present.sum()) < 20
      ((20,), True)
    """
    drawn = jax.random.bernoulli(typed_key(key), rate, (num_examples,))
    numbers = jnp.nonzero(drawn, size=max_examples, fill_value=0)[0].astype(jnp.int32)
    return numbers, jnp.arange(max_examples) < jnp.sum(drawn)


def _length_of(batch: optax.Params) -> int:
    lengths = {jnp.shape(x)[0] if jnp.ndim(x) else -1 for x in jax.tree.leaves(batch)}
    if len(lengths) != 1 or -1 in lengths:
        shapes = ", ".join(str(jnp.shape(x)) for x in jax.tree.leaves(batch))
        raise FlowError(
            "clipped_gradient_sum: batch must have the examples on the leading axis of every "
            f"array; its arrays have shapes {shapes}"
        )
    return lengths.pop()


def _padded(x: jax.Array, count: int) -> jax.Array:
    return jnp.pad(jnp.asarray(x), [(0, count)] + [(0, 0)] * (jnp.ndim(x) - 1))
