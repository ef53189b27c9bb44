"""Sharpness-aware training for free: outputs are kept near those of some epochs ago."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ...registry import method
from ...transforms import Constant, FlowError, NonNegativeConstant, PositiveConstant, Size, checked
from .trajectory import trajectory_loss

PAPER = "Du et al. 2022, Sharpness-Aware Training for Free"
ARXIV = "2205.14083"


@method(PAPER, arxiv=ARXIV, tags=("flat-minima",), kind="loss")
@checked()
def saf(
    coefficient: NonNegativeConstant = 0.3, temperature: PositiveConstant = 5.0
) -> Callable[[Any, Any], Any]:
    """Sharpness-aware training for free: the term of its loss.

        loss = CE(z, y) + saf()(z, q)            where `saf_active(epoch)`, else CE(z, y)

    with z the logits of this batch and q those that the same examples had `lag` epochs ago, which a
    `logit_history` keeps. A flat neighbourhood of the path that training took is one in which the
    outputs change slowly; the term keeps them from changing fast, and costs no gradient more. The
    rule is that of `trajectory_loss`. Any optimizer follows.

    Args:
      coefficient: weight of the term.
      temperature: by which logits are divided.

    Returns:
      A function (logits, target_logits) -> scalar.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import logit_history, saf, saf_active
      >>> history, term = logit_history(num_examples=4, num_classes=2, lag=1), saf()
      >>> state, rows = history.init(), jnp.array([0, 2])
      >>> for epoch in range(8):
      ...     z = jnp.array([[0.1, 0.2], [0.3, 0.0]]) * epoch
      ...     state = history.record(state, rows, epoch, z)
      ...     q = history.lookup(state, rows, epoch)
      ...     loss = jnp.where(saf_active(epoch, end=8), term(z, q), 0.0)
      >>> round(float(loss), 6)
      0.001815

    References:
      Du et al. 2022, Sharpness-Aware Training for Free (arXiv 2205.14083): coefficient 0.3,
      temperature 5, lag 3 and start 5 are the paper's, where the authors' script has 0.16.
    """
    return partial(trajectory_loss, coefficient=coefficient, temperature=temperature)


class LogitHistory(NamedTuple):
    """What `logit_history` makes: three pure functions.

    Attributes:
      init: `(dtype=None) -> state`, zeros in the default float type or the given one.
      record: `(state, indices, epoch, logits) -> state`, before the term is computed.
      lookup: `(state, indices, epoch) -> logits` of those examples `lag` epochs before.
    """

    init: Callable[..., Any]
    record: Callable[[Any, Any, Any, Any], Any]
    lookup: Callable[[Any, Any, Any], Any]


@checked()
def logit_history(num_examples: Size, num_classes: Size, lag: Size = 3) -> LogitHistory:
    """The logits of every training example in the last epochs, as a table that is a pytree.

    Its memory is (lag + 1) * num_examples * num_classes numbers, outside of the optimizer's state;
    in a large problem it lives on the host.

    Args:
      num_examples: of the training set.
      num_classes: logits per example.
      lag: how many epochs ago the logits that are looked up were recorded.

    Returns:
      `init`, `record` and `lookup`; epochs are counted from 0 and may be traced. The logits are to
      be those of the training forward pass; no gradient flows through them.

    Raises:
      ValueError: for a size that is not positive, or logits of another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import logit_history
      >>> history = logit_history(3, 2, lag=1)
      >>> state = history.record(history.init(), jnp.array([1]), 0, jnp.array([[5.0, 6.0]]))
      >>> history.lookup(state, jnp.array([1]), 1).tolist()
      [[5.0, 6.0]]

    References:
      Du et al. 2022, Sharpness-Aware Training for Free (arXiv 2205.14083).
    """
    slots = lag + 1

    def init(dtype: DTypeLike | None = None) -> jax.Array:
        return jnp.zeros((slots, num_examples, num_classes), dtype)

    def record(
        state: jax.Array, indices: jax.Array, epoch: int | jax.Array, logits: jax.Array
    ) -> jax.Array:
        expected = (*jnp.shape(indices), num_classes)
        if jnp.shape(logits) != expected:
            raise FlowError(
                f"logit_history: logits of shape {jnp.shape(logits)} must have the shape {expected}"
            )
        kept = jax.lax.stop_gradient(jnp.asarray(logits, state.dtype))
        return state.at[epoch % slots, indices].set(kept)

    def lookup(state: jax.Array, indices: jax.Array, epoch: int | jax.Array) -> jax.Array:
        return state[(epoch - lag) % slots, indices]

    return LogitHistory(init, record, lookup)


@checked()
def saf_active(
    epoch: int | jax.Array, start: Constant = 5, end: Constant = float("inf")
) -> bool | jax.Array:
    """Whether the term takes part in an epoch: start < epoch < end, both strictly.

    Args:
      epoch: counted from 0; may be traced.
      start: the last epoch without it; at least the lag of the history.
      end: the first epoch without it again; default none.

    Returns:
      A boolean.

    Example:
      >>> from gradchain.optimizers import saf_active
      >>> [bool(saf_active(epoch, end=8)) for epoch in (5, 6, 7, 8)]
      [False, True, True, False]
    """
    return (start < epoch) & (epoch < end)
