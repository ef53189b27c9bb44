"""Zeroth order for some leaves, first order for the others."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import Flow, FlowError, Signal, flow, merge, split, transformation
from ...transforms.control.masked import Labels
from .mezo import mezo

LABELS = ("zo", "fo")


def _matrices_first(params: Any) -> Any:
    return jax.tree.map(lambda leaf: "fo" if jnp.ndim(leaf) == 2 else "zo", params)


def _small_parts() -> dict[str, Any]:
    """What the catalogue builds it of."""
    return {"zeroth_order": mezo(0.003), "first_order": optax.sgd(0.1), "labels": _matrices_first}


@method(
    "Zhang et al. 2024, Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: "
    "A Benchmark",
    arxiv="2402.11592",
    learning_rate=None,
    tags=("partitioned", "closure", "noise"),
    required=_small_parts(),
)
@transformation()
def zo_hybrid(
    zeroth_order: optax.GradientTransformation,
    first_order: optax.GradientTransformation,
    labels: Labels,
) -> Flow:
    """Backward passes for some leaves alone: the others take zeroth-order steps.

        u = zeroth_order along directions that are 0 outside its leaves
        u = first_order(gradient) at the other leaves

    both at the same params. With the first order near the output, back-propagation stops there:
    take gradients with respect to those leaves only. Those of the others are never read, zeros do.

    Args:
      zeroth_order: an optimizer of this family, such as `mezo(1e-6)`.
      first_order: any optimizer.
      labels: a tree of "zo" and "fo", or a prefix of it, or a function of the params.

    Returns:
      The optimizer; its state is that of both, each for its leaves. `update` needs what they need;
      `value_fn` is given all the params.

    Raises:
      ValueError: for another label.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gradchain.optimizers import mezo, zo_hybrid
      >>> opt = zo_hybrid(mezo(0.1), optax.sgd(0.1), {"deep": "fo", "shallow": "zo"})
      >>> params = {"deep": jnp.ones(2), "shallow": jnp.ones(2)}
      >>> loss = lambda p: jnp.sum(p["deep"] * p["shallow"])
      >>> grads = {"deep": params["shallow"], "shallow": jnp.zeros(2)}
      >>> u, _ = opt.update(grads, opt.init(params), params, value_fn=loss)
      >>> u["deep"].tolist(), bool(jnp.all(u["shallow"] != 0))
      ([-0.10000000149011612, -0.10000000149011612], True)

    References:
      Zhang et al. 2024 (arXiv 2402.11592), section 5; no official code for this part.
    """
    zeroth = with_label(labels, "zo")

    def step(g: Signal) -> Signal:
        estimated, given = split(g, zeroth)
        return merge(estimated >> zeroth_order, given >> first_order)

    return flow(step)


def with_label(labels: Labels, wanted: str) -> Callable[[Any], Any]:
    """Selects the leaves of a label, of "zo" and "fo"."""

    def select(params: optax.Params) -> optax.Params:
        tree = labels(params) if callable(labels) else labels
        _check_labels(tree)
        return jax.tree.map(lambda label: label == wanted, tree)

    if not callable(labels):
        _check_labels(labels)
    return select


def _check_labels(tree: Labels) -> None:
    for label in [None] if tree is None else jax.tree.leaves(tree):
        if not (isinstance(label, str) and label in LABELS):
            raise FlowError(f'labels={tree!r} must be "zo" or "fo" for each leaf, not {label!r}')
