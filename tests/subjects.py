"""What the catalogue-wide tests run a method on: trees, gradients and every extra input."""

import contextlib
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from gradchain.catalogue import METHODS

NAMES = sorted(name for name, entry in METHODS.items() if entry.kind == "transformation")
"""The methods that are transformations of one gradient."""


def small_tree(dtype: Any = jnp.float32) -> dict[str, Any]:
    """Matrices, a vector and a scalar."""
    key = jax.random.key(0)

    def draw(i: int, *shape: int) -> Any:
        return jax.random.normal(jax.random.fold_in(key, i), shape).astype(dtype)

    return {"w": draw(0, 4, 3), "u": draw(1, 3, 4), "b": draw(2, 3), "s": draw(3)}


def odd_tree(dtype: Any = jnp.float32) -> dict[str, Any]:
    """Scalars, empty leaves, nesting, tuples, None, masked nodes, more than two dimensions."""
    small = small_tree(dtype)
    return {
        "b": small["b"],
        "s": small["s"],
        "empty": jnp.zeros((0,), dtype),
        "empty_matrix": jnp.zeros((2, 0), dtype),
        "one": jnp.ones((1,), dtype),
        "nested": {"conv": jnp.ones((2, 1, 3, 2), dtype), "none": None},
        "pair": (jnp.ones((2, 2), dtype), optax.MaskedNode()),
    }


def wide(leaf: Any) -> Any:
    """What a model with 8-bit weights does before it computes."""
    return leaf.astype(jnp.float32) if jnp.dtype(leaf.dtype).itemsize == 1 else leaf


def loss_of(params: Any) -> Any:
    """A smooth loss with a diagonal, positive Hessian and no symmetric starting point."""
    total = jnp.zeros((), jnp.result_type(float))
    for i, leaf in enumerate(map(wide, jax.tree.leaves(params))):
        real = jnp.real(leaf).astype(jnp.result_type(float))
        size = 1.0 + 0.5 * i
        total = total + jnp.sum(size * jnp.abs(leaf - 0.3) ** 2 / 2 + 0.1 * real)
    return total


def logits_of(params: Any) -> Any:
    """Logits of four examples and three classes that every leaf takes part in."""
    leaves = map(wide, jax.tree.leaves(params))
    total = sum(jnp.sum(jnp.real(leaf) * (i + 1)) for i, leaf in enumerate(leaves))
    return jnp.outer(jnp.arange(1.0, 5.0), jnp.array([0.1, -0.2, 0.3])) * total


def outputs_of(params: Any) -> Any:
    """Model outputs for the Gauss-Newton methods."""
    return logits_of(params)


def outputs_loss_of(outputs: Any) -> Any:
    """Mean squared distance of the outputs to 1."""
    return jnp.mean(jnp.sum((outputs - 1.0) ** 2, axis=-1))


def matrix_inputs(params: Any, cotangents: bool) -> Any:
    """Per-example layer inputs or cotangents for every matrix (in, out), None elsewhere."""

    def of(leaf: Any) -> Any:
        if leaf.ndim != 2:
            return None
        size = leaf.shape[1 if cotangents else 0]
        dtype = jnp.promote_types(jnp.finfo(wide(leaf).dtype).dtype, jnp.float32)
        return jnp.sin(jnp.arange(5.0 * size).reshape(5, size) + float(cotangents)).astype(dtype)

    return jax.tree.map(of, params)


EXTRAS: dict[str, Callable[[Any], Any]] = {
    "value": loss_of,
    "value_fn": lambda params: loss_of,
    "proxy_fn": lambda params: lambda p: 0.9 * loss_of(p),
    "value_fns": lambda params: lambda p, i: (1 - 0.1 * jnp.asarray(i, float)) * loss_of(p),
    "logits_fn": lambda params: logits_of,
    "outputs_fn": lambda params: outputs_of,
    "outputs_loss_fn": lambda params: outputs_loss_of,
    "guess": lambda params: jax.tree.map(lambda g, p: g + 0.5 * p, gradients(params), params),
    "previous_grads": lambda params: gradients(params),
    "operator_fn": lambda params: lambda point: jax.tree.map(jnp.conj, jax.grad(loss_of)(point)),
    "hessian_diag": lambda params: jax.tree.map(jnp.ones_like, params),
    "shard": lambda params: jnp.asarray(1),
    "cluster": lambda params: jnp.asarray(1),
    "global_update": lambda params: jax.tree.map(lambda p: 0.01 * p, params),
    "layer_inputs": lambda params: matrix_inputs(params, cotangents=False),
    "layer_cotangents": lambda params: matrix_inputs(params, cotangents=True),
}
"""Extra input -> how it is made from the params."""


@jax.jit  # traced once for all programs that take it
def gradients(params: Any) -> Any:
    """The gradient of the loss, in the dtype of the params."""
    grads = jax.grad(loss_of)(params)
    return jax.tree.map(lambda g, p: jnp.conj(g).astype(p.dtype), grads, params)


def extras_for(opt: Any, params: Any) -> dict[str, Any]:
    """Every extra input that the transformation needs."""
    wanted = [name for name in gradchain.needs(opt) if name != "params"]
    return {name: EXTRAS[name](params) for name in wanted}


LINEAR = ("guess", "previous_grads", "hessian_diag", "layer_cotangents")
"""Extra inputs that a factor in front of the loss multiplies."""


def scaled_extras_for(opt: Any, params: Any, scale: Any) -> dict[str, Any]:
    """Every extra input, of the loss times a number."""

    def scaled(name: str, extra: Any) -> Any:
        if name == "value":
            return scale * extra
        if name in ("value_fn", "outputs_loss_fn"):
            return lambda at: scale * extra(at)
        if name in LINEAR:
            return jax.tree.map(lambda x: (scale * x).astype(x.dtype), extra)
        return extra

    return {name: scaled(name, extra) for name, extra in extras_for(opt, params).items()}


def scaled_step_of(opt: Any) -> Callable[..., tuple[Any, Any]]:
    """`(params, state, gradient, scale) -> (params, state)`: a step at a loss times the scale."""

    def step(params: Any, state: Any, gradient: Any, scale: Any) -> tuple[Any, Any]:
        extras = scaled_extras_for(opt, params, scale)
        grads = jax.tree.map(lambda g: (scale * g).astype(g.dtype), gradient)
        updates, state = opt.update(grads, state, params, **extras)
        return optax.apply_updates(params, updates), state

    return step


def step_of(opt: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    """`(params, state) -> (params, state)`: one training step with whatever the method needs."""

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = opt.update(gradients(params), state, params, **extras_for(opt, params))
        return optax.apply_updates(params, updates), state

    return step


def seed_of(name: str) -> int:
    """A number that is the same in every run."""
    return zlib.crc32(name.encode())


def signature_of(tree: Any) -> Any:
    """Structure, shapes and dtypes."""
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)


@contextlib.contextmanager
def strict() -> Iterator[None]:
    """No dtype and no rank is promoted silently."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def equations(jaxpr: Any, but: Collection[str] = ()) -> Iterator[Any]:
    """The operations of a program and of those within, but not of what lies within these."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inside in () if eqn.primitive.name in but else jax.tree.leaves([*eqn.params.values()]):
            program = getattr(inside, "jaxpr", inside)
            if hasattr(program, "eqns"):
                yield from equations(program, but)


def rounded_in(traced: Any) -> list[str]:
    """The operations of a program in float64 that leave less."""
    low = (jnp.float32, jnp.bfloat16, jnp.float16)
    given = [
        (eqn, getattr(x.aval, "dtype", None)) for eqn in equations(traced) for x in eqn.outvars
    ]
    return [f"{eqn.primitive} leaves {dtype}" for eqn, dtype in given if dtype in low]


def same(a: Any, b: Any) -> bool:
    """Equal to the bit."""
    leaves_a, leaves_b = map(on_the_host, (a, b))
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y, equal_nan=True) for x, y in zip(leaves_a, leaves_b, strict=True)
    )


def on_the_host(tree: Any) -> list[Any]:
    """The leaves as NumPy's arrays, on which nothing need be compiled."""
    return [np.asarray(leaf) for leaf in jax.device_get(jax.tree.leaves(tree))]


def finite(tree: Any) -> bool:
    """No NaN and no infinity anywhere in its inexact leaves."""
    leaves = [leaf for leaf in on_the_host(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return all(bool(np.all(np.isfinite(leaf))) for leaf in leaves)
