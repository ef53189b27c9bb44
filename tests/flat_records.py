"""Recorded runs of what goes for flat minima: optimizers around a base, and a loss term."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from gradchain.optimizers import ginzburg_landau_prox, trajectory_loss


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


def separable(constants: Any, group: str) -> Callable[[Any], Any]:
    """The recorded loss of a group: sums of a x^2/2 + b x^4/4 + c x."""
    a, b, c = (constants[f"{group}/{name}"] for name in "abc")

    def loss(params: Any) -> Any:
        terms = jax.tree.map(
            lambda x, a, b, c: jnp.sum(a * x**2 / 2 + b * x**4 / 4 + c * x), params, a, b, c
        )
        return sum(jax.tree.leaves(terms))

    return loss


def domains(record: Any, step: Any) -> dict[str, Any]:
    """The separable losses of the domains, in the order in which this step visits them."""

    def loss(params: Any, i: Any) -> Any:
        groups = {n: jax.tree.map(jnp.asarray, record.constants[f"problem/{n}"]) for n in "abc"}
        here = {
            f"problem/{n}": jax.tree.map(lambda x: x[step["order"][i]], group)
            for n, group in groups.items()
        }
        return separable(here, "problem")(params)

    return {"value_fns": loss, "value_fn": lambda params: loss(params, 0)}


def with_weights(record: Any, factory: Callable[..., Any]) -> Any:
    """A learned optimizer with the recorded weights."""
    named = {n.removeprefix("weights/"): x for n, x in record.constants.items() if "weights" in n}
    return factory(named, **record.kwargs)


def linear_model(record: Any, _: Any) -> dict[str, Any]:
    """Outputs x w, and a loss of theirs."""
    x, y = (jnp.asarray(record.constants[f"problem/{name}"]) for name in "xy")
    losses = {
        "squared": lambda f: jnp.mean((f - y) ** 2),
        "logistic": lambda f: jnp.mean(jax.nn.softplus(-y * f)),
    }
    loss = losses[record.kwargs["loss"]]
    outputs = lambda params: x @ params["w"]  # noqa: E731
    return {
        "outputs_fn": outputs,
        "outputs_loss_fn": loss,
        "value_fn": lambda params: loss(outputs(params)),
    }


def without_loss(record: Any, factory: Callable[..., Any]) -> Any:
    """A method whose record names the loss among its arguments."""
    return factory(**{name: value for name, value in record.kwargs.items() if name != "loss"})


def with_prox(record: Any, factory: Callable[..., Any]) -> Any:
    """The Ginzburg-Landau energy's implicit step."""
    arguments = dict(record.kwargs)
    eps, stabilizer = arguments.pop("eps_interface"), arguments.pop("stabilizer")
    laplacian = jnp.asarray(record.constants["problem/laplacian"])
    return factory(prox=ginzburg_landau_prox(laplacian, eps, stabilizer), **arguments)


BUILD = {
    "flooding": in_front_of_base,
    "fish": around_base,
    "gradient_regularization": around_base,
    "mu_lo": with_weights,
    "convex_concave_fista": with_prox,
    "sam": around_base,
    "sso": without_loss,
}

LOSS_TERM = ("value", "grad_logits")


def loss_term(record: Any, factory: Callable[..., Any] | None) -> dict[str, Any]:
    """Value and gradient of a term, as the record names them."""
    fn = factory or {"trajectory_loss": trajectory_loss}[record.api]
    logits, target = (jnp.asarray(record.constants[n]) for n in ("logits", "target_logits"))
    found = jax.value_and_grad(fn)(logits, target, **record.kwargs)
    return dict(zip(LOSS_TERM, found, strict=True))
