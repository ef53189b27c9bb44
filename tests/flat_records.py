"""Recorded runs of what goes for flat minima: optimizers around a base, and a loss term."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from gradchain.optimizers import trajectory_loss


def base_of(arguments: dict[str, Any]) -> optax.GradientTransformation:
    """The recorded base, SGD, of Optax; its arguments are taken out."""
    names = ("base", "inner", "learning_rate", "momentum", "weight_decay")
    found = {name: arguments.pop(name) for name in names if name in arguments}
    if {found.get("base"), found.get("inner")} != {"sgd", None}:
        raise ValueError(f"only SGD is a base here, not {found}")
    sgd = optax.sgd(found["learning_rate"], found.get("momentum") or None)
    return optax.chain(optax.add_decayed_weights(found.get("weight_decay", 0.0)), sgd)


def around_base(record: Any, factory: Callable[..., Any]) -> Any:
    """A wrapper, whose first argument is the base."""
    arguments = dict(record.kwargs)
    return factory(base_of(arguments), **arguments)


def in_front_of_base(record: Any, factory: Callable[..., Any]) -> Any:
    """What stands in front of the base."""
    arguments = dict(record.kwargs)
    base = base_of(arguments)
    return optax.chain(factory(**arguments), base)


BUILD = {
    "flooding": in_front_of_base,
    "gradient_regularization": around_base,
    "sam": around_base,
}

LOSS_TERM = ("value", "grad_logits")


def loss_term(record: Any, factory: Callable[..., Any] | None) -> dict[str, Any]:
    """Value and gradient of a term, as the record names them."""
    fn = factory or {"trajectory_loss": trajectory_loss}[record.api]
    logits, target = (jnp.asarray(record.constants[n]) for n in ("logits", "target_logits"))
    found = jax.value_and_grad(fn)(logits, target, **record.kwargs)
    return dict(zip(LOSS_TERM, found, strict=True))
