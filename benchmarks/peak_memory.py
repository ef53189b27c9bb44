"""Peak memory of a jitted, donated step of every method, as the compiler's own analysis has it.

    python benchmarks/peak_memory.py
    python benchmarks/peak_memory.py adamw galore muon

The least that a step can do with is what must be there at once: params, gradients and state; params
and state are donated, so that new values take the place of old ones. What the compiled step holds
beyond that is temporary: as JAX compiles by default, and under what `gradchain.compiler_options`
advises.
Everything in bytes per parameter; nothing is allocated or run.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gradchain
import jax
import jax.numpy as jnp
import optax
from gradchain.catalogue import METHODS, Method, get_method

EXAMPLES = 8
ADVISED = gradchain.compiler_options(update_only=True)


def shapes() -> dict[str, Any]:
    """Matrices of four shapes, and vectors."""
    matrices = {"up": (256, 1024), "down": (1024, 256), "mix": (256, 256), "head": (256, 512)}
    vectors = {"up_bias": (1024,), "scale": (256,)}
    return {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in {**matrices, **vectors}.items()}


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
    "guess": lambda params: params,
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
      temporary: what the step holds beyond these at most.
    """

    state: int
    least: int
    temporary: int


def size_of(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def compiled(opt: Any, options: Mapping[str, Any], params: Any) -> tuple[Any, Any]:
    """One step, with params and state donated, and the shapes of the state."""
    state = jax.eval_shape(opt.init, params)
    names = [name for name in gradchain.needs(opt) if name != "params"]

    def step(params: Any, state: Any, grads: Any) -> Any:
        extra = {name: INPUTS[name](params) for name in names}
        updates, state = opt.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(step, donate_argnums=(0, 1), compiler_options=dict(options))
    return jitted.lower(params, state, params).compile(), state


def measured(opt: Any, options: Mapping[str, Any], params: Any = None) -> Peak:
    """The compiler's analysis of one step."""
    params = shapes() if params is None else params
    program, state = compiled(opt, options, params)
    found = program.memory_analysis()
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    least = 2 * size_of(params) + size_of(state)
    return Peak(size_of(state), least, held + found.temp_size_in_bytes - least)


def every_transformation() -> list[Method]:
    """The catalogue's transformations by name."""
    return [METHODS[name] for name in sorted(METHODS) if METHODS[name].kind == "transformation"]


def asked_for(arguments: list[str] | None, doc: str | None) -> list[Method]:
    """The methods that a command line names; by default every transformation."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("methods", nargs="*", help="names of the catalogue; default all")
    given = parser.parse_args(arguments)
    try:
        return [get_method(name) for name in given.methods] or every_transformation()
    except ValueError as error:
        parser.error(str(error))


def main(arguments: list[str] | None = None) -> None:
    methods = asked_for(arguments, __doc__)
    made: dict[str, Callable[[], Any]] = {"optax.adamw": lambda: optax.adamw(1e-3)}
    made |= {method.name: method.build for method in methods}
    count = sum(math.prod(leaf.shape) for leaf in shapes().values())
    print("| method | state | least | temporary by default | temporary as advised |")
    print("|---|---|---|---|---|")
    for name, build in made.items():
        try:
            default, advised = (measured(build(), options) for options in ({}, ADVISED))
        except Exception as error:  # as the other rows stand whatever one method needs
            print(f"| `{name}` | {str(error).partition(chr(10))[0][:100]} | | | |", flush=True)
            continue
        row = (default.state, default.least, default.temporary, advised.temporary)
        cells = " | ".join(f"{value / count:.2f}" for value in row)
        print(f"| `{name}` | {cells} |", flush=True)


if __name__ == "__main__":
    main()
