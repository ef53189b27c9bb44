"""Peak memory of a jitted, donated step of every method, as the compiler's own analysis has it.

    python benchmarks/peak_memory.py
    python benchmarks/peak_memory.py adamw galore muon

The least that a step can do with is what must be there at once: params, gradients and state; params
and state are donated, so that new values take the place of old ones. What the compiled step holds
beyond that is temporary. Everything in bytes per parameter; nothing is allocated or run.

On a CPU, XLA orders a program for its threads by default, whatever memory that takes; here it is
told to order it for memory, as it does for accelerators.
"""

import argparse
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_enable_concurrency_optimized_scheduler=false")

import gradchain
import jax
import jax.numpy as jnp
import optax
from gradchain.catalogue import METHODS

EXAMPLES = 8


def shapes() -> dict[str, Any]:
    """Matrices of three sizes and vectors."""
    sizes = {"up": (256, 1024), "down": (1024, 256), "mix": (256, 256), "head": (256, 512)}
    vectors = {"up_bias": (1024,), "scale": (256,)}
    return {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in {**sizes, **vectors}.items()}


def loss_of(params: Any) -> Any:
    """Of every entry by itself: its evaluation takes no memory of its own."""
    return sum(jnp.sum((leaf - 0.3) ** 2) for leaf in jax.tree.leaves(params))


def outputs_of(params: Any) -> Any:
    """Of eight examples and three classes."""
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))
    return jnp.outer(jnp.arange(1.0, EXAMPLES + 1), jnp.array([0.1, -0.2, 0.3])) * total


def per_layer(axis: int) -> Callable[[Any], Any]:
    def of(params: Any) -> Any:
        return jax.tree.map(
            lambda x: jnp.ones((EXAMPLES, x.shape[axis])) if x.ndim == 2 else None, params
        )

    return of


INPUTS: dict[str, Callable[[Any], Any]] = {
    "value": loss_of,
    "value_fn": lambda params: loss_of,
    "grad_fn": lambda params: jax.grad(loss_of),
    "logits_fn": lambda params: outputs_of,
    "outputs_fn": lambda params: outputs_of,
    "outputs_loss_fn": lambda params: lambda outputs: jnp.mean(outputs**2),
    "hessian_diag": lambda params: jax.tree.map(jnp.ones_like, params),
    "previous_grads": lambda params: params,
    "layer_inputs": per_layer(0),
    "layer_cotangents": per_layer(1),
}
"""What a method may ask for beside the gradient."""


class Peak(NamedTuple):
    """Bytes of one compiled step.

    Attributes:
      state: of the optimizer's state.
      least: params, gradients and state.
      peak: what the step holds at most.
    """

    state: int
    least: int
    peak: int


def size_of(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def measured(opt: Any) -> Peak:
    """The compiler's analysis of one step, with params and state donated."""
    params = shapes()
    state = jax.eval_shape(opt.init, params)
    names = [name for name in gradchain.needs(opt) if name != "params"]

    def step(params: Any, state: Any, grads: Any) -> Any:
        extra = {name: INPUTS[name](params) for name in names}
        updates, state = opt.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    found = compiled.memory_analysis()
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    held_state = size_of(state)
    return Peak(held_state, 2 * size_of(params) + held_state, held + found.temp_size_in_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("methods", nargs="*", help="names of the catalogue; default all")
    options = parser.parse_args()
    every = sorted(name for name, entry in METHODS.items() if entry.kind == "transformation")
    made = {name: lambda name=name: METHODS[name].build() for name in options.methods or every}
    made = {"(optax.adamw)": lambda: optax.adamw(1e-3), **made}
    count = sum(math.prod(leaf.shape) for leaf in shapes().values())
    print("| method | state | least | peak | temporary |\n|---|---|---|---|---|")
    for name, build in made.items():
        try:
            found = measured(build())
        except Exception as error:  # as the other rows stand whatever one method needs
            print(f"| `{name}` | | | | {str(error).partition(chr(10))[0][:80]} |", flush=True)
            continue
        row = (found.state, found.least, found.peak, found.peak - found.least)
        cells = " | ".join(f"{value / count:.2f}" for value in row)
        print(f"| `{name}` | {cells} |", flush=True)


if __name__ == "__main__":
    main()
