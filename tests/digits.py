"""A small real problem: a two-layer network on scikit-learn's digits, with every extra input."""

import functools
import itertools
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits


@functools.cache
def data() -> tuple[Any, Any]:
    """Images scaled to [0, 1] and their labels, as numpy arrays."""
    digits = load_digits()
    return (digits.data / 16.0).astype("float32"), digits.target.astype("int32")


@functools.cache
def start(hidden: int, dtype: Any = jnp.float32) -> Any:
    """Parameters of 64 -> hidden -> 10, kernels (in, out)."""
    sizes = (64, hidden, 10)
    keys = jax.random.split(jax.random.key(1), len(sizes))
    return {
        f"l{i}": {
            "kernel": jax.random.normal(keys[i], (m, n), dtype) * (2.0 / m) ** 0.5,
            "bias": jnp.zeros((n,), dtype),
        }
        for i, (m, n) in enumerate(itertools.pairwise(sizes))
    }


def layers(params: Any, x: Any, shifts: Any = None) -> tuple[Any, dict[str, Any]]:
    """Logits, and the input of each layer; `shifts` are added to the layers' outputs."""
    inputs = {}
    for name in sorted(params):
        inputs[name] = x
        x = x @ params[name]["kernel"] + params[name]["bias"]
        if shifts is not None:
            x = x + shifts[name]
        if name != max(params):
            x = jax.nn.relu(x)
    return x, inputs


def loss(logits: Any, labels: Any) -> Any:
    """Mean cross entropy."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def extras(opt: Any, params: Any, x: Any, y: Any) -> dict[str, Any]:
    """The extra inputs that `opt` needs, on one batch."""
    value_fn = lambda p: loss(layers(p, x)[0], y)  # noqa: E731
    zeros = {name: jnp.zeros((len(x), len(params[name]["bias"]))) for name in params}
    statistics = lambda: jax.grad(lambda s: loss(layers(params, x, s)[0], y))(zeros)  # noqa: E731
    makers = {
        "value": lambda: value_fn(params),
        "value_fn": lambda: value_fn,
        "proxy_fn": lambda: lambda p: loss(layers(p, x[::4])[0], y[::4]),
        "operator_fn": lambda: jax.grad(value_fn),
        "value_fns": lambda: lambda p, i: loss(layers(p, half(x, i))[0], half(y, i)),
        "logits_fn": lambda: lambda p: layers(p, x)[0],
        "outputs_fn": lambda: lambda p: layers(p, x)[0],
        "outputs_loss_fn": lambda: lambda out: loss(out, y),
        "guess": lambda: jax.grad(lambda p: loss(layers(p, x[::2])[0], y[::2]))(params),
        "previous_grads": lambda: jax.grad(value_fn)(params),
        "shard": lambda: jnp.asarray(0),
        "cluster": lambda: jnp.asarray(0),
        "global_update": lambda: jax.tree.map(jnp.zeros_like, params),
        "layer_inputs": lambda: layers(params, x)[1],
        "layer_cotangents": statistics,
    }
    return {name: makers[name]() for name in gradchain.needs(opt) if name != "params"}


def half(rows: Any, i: Any) -> Any:
    """One half of a batch."""
    return jax.lax.dynamic_slice_in_dim(rows, i * (len(rows) // 2), len(rows) // 2)


@functools.cache
def batches(steps: int, batch: int) -> tuple[Any, Any]:
    """Images and labels of each step, stacked."""
    images, labels = data()
    rows = np.random.default_rng(2).integers(0, len(labels), (steps, batch))
    return images[rows], labels[rows]


def train(opt: Any, steps: int, batch: int = 128) -> tuple[Any, Any]:
    """Losses of each step, and the evaluation weights' loss on all the data at the end."""

    def body(carry: Any, drawn: Any) -> Any:
        (params, state), (x, y) = carry, drawn
        value, grads = jax.value_and_grad(lambda p: loss(layers(p, x)[0], y))(params)
        updates, state = opt.update(grads, state, params, **extras(opt, params, x, y))
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def run(params: Any, drawn: Any, images: Any, labels: Any) -> Any:
        (params, state), values = jax.lax.scan(body, (params, opt.init(params)), drawn)
        at = gradchain.eval_params(state, params)
        return values, loss(layers(at, images)[0], labels)

    return run(start(_width(opt)), batches(steps, batch), *data())


def _width(opt: Any) -> int:
    """Units of the hidden layer: few for methods that keep a matrix of all params squared."""
    params = jax.eval_shape(lambda params: params, start(16))  # start keeps what it made
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return 16 if gradchain.describe(opt, params).state_bytes < size**2 else 5
