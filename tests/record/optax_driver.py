"""Drives the transformations of Optax."""

import jax.numpy as jnp
import numpy as np
import optax
from cases import case


class Optax:
    """Drives an optax transformation."""

    def __init__(self, start, transformation):
        self.transformation = optax.with_extra_args_support(transformation)
        self.leaves = {k: jnp.asarray(v) for k, v in start.items()}
        self.state = self.transformation.init(self.leaves)

    def step(self, gradients, value, count):
        gradients = {k: jnp.asarray(v) for k, v in gradients.items()}
        updates, self.state = self.transformation.update(
            gradients, self.state, self.leaves, value=value
        )
        self.leaves = optax.apply_updates(self.leaves, updates)

    def params(self):
        return {k: np.asarray(v) for k, v in self.leaves.items()}


def by_optax(make):
    """A run with `make(**optax arguments)`."""

    def bind(**arguments):
        rate = arguments.get("learning_rate")
        if isinstance(rate, list):
            arguments["learning_rate"] = lambda count: jnp.asarray(rate)[count]
        return lambda start: Optax(start, make(**arguments))

    return bind


def same(method, name, make, package, *, ours=None, **arguments):
    """An optax run whose arguments are ours too, up to those in `ours`; None drops one."""
    kwargs = {k: v for k, v in {**arguments, **(ours or {})}.items() if v is not None}
    case(method, name, by_optax(make)(**arguments), kwargs, package)
