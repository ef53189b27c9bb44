"""Zeroth-order steps of a text Transformer: compiled memory, and loss per forward pass.

    python benchmarks/zeroth_order.py
    python benchmarks/zeroth_order.py --passes 2000

The first table reads the compiler's own memory analysis of a jitted, donated step at growing width
and depth: peak bytes beyond the params, in units of the params, for inference (one loss), MeZO and
AdamW. A perturbed leaf lives as long as its layer is evaluated, and its random bits take a few
times its size: of a deep model that is little, of two layers twice the model. The second table
gives every method the same number of forward passes.

On a CPU, XLA orders a program for its threads by default, whatever memory that takes; here it is
told to order it for memory, as it does for accelerators.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_enable_concurrency_optimized_scheduler=false")

import gradchain
import jax
import jax.numpy as jnp
import optax
from gradchain import optimizers

LAYERS, LENGTH, BATCH, VOCABULARY = 2, 32, 4, 96


def transformer(width: int, layers: int = LAYERS) -> dict[str, Any]:
    """Params of a decoder without biases."""
    key = iter(jax.random.split(jax.random.key(0), 4 * layers + 2))

    def matrix(rows: int, columns: int) -> jax.Array:
        return jax.random.normal(next(key), (rows, columns)) * rows**-0.5

    blocks = [
        {
            "qkv": matrix(width, 3 * width),
            "mix": matrix(width, width),
            "up": matrix(width, 4 * width),
            "down": matrix(4 * width, width),
        }
        for _ in range(layers)
    ]
    return {"blocks": blocks, "embed": matrix(VOCABULARY, width), "head": matrix(width, VOCABULARY)}


def loss_of(params: dict[str, Any], codes: jax.Array) -> jax.Array:
    """Mean cross entropy of the next character."""
    x = params["embed"][codes[:, :-1]]
    for block in params["blocks"]:
        query, key, value = jnp.split(normalised(x) @ block["qkv"], 3, axis=-1)
        heads = [part[:, :, None, :] for part in (query, key, value)]
        x = x + jax.nn.dot_product_attention(*heads, is_causal=True)[:, :, 0] @ block["mix"]
        x = x + jax.nn.gelu(normalised(x) @ block["up"]) @ block["down"]
    logits = normalised(x) @ params["head"]
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, codes[:, 1:]).mean()


def normalised(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def zeroth_order_step(opt: Any) -> Callable[..., Any]:
    def step(params: Any, state: Any, codes: jax.Array) -> Any:
        updates, state = opt.update(None, state, params, value_fn=lambda p: loss_of(p, codes))
        return optax.apply_updates(params, updates), state

    return step


def first_order_step(opt: Any) -> Callable[..., Any]:
    def step(params: Any, state: Any, codes: jax.Array) -> Any:
        grads = jax.grad(loss_of)(params, codes)
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def size_of(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def peak(step: Callable[..., Any], params: Any, *others: Any, donated: bool = True) -> int:
    """Bytes that the compiled step holds beyond the params: state, workspace, outputs."""
    donate = (0, 1) if donated else ()
    analysis = jax.jit(step, donate_argnums=donate).lower(params, *others).compile()
    found = analysis.memory_analysis()
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return held + found.temp_size_in_bytes - size_of(params)


def memory(widths: list[int], depths: list[int]) -> None:
    """Prints the first table."""
    codes = jax.ShapeDtypeStruct((BATCH, LENGTH + 1), jnp.int32)
    print(
        f"{'width':>6} {'layers':>6} {'params MB':>10} {'inference':>10} {'mezo':>10} {'adamw':>10}"
        "  (of params)"
    )
    sizes = [(width, LAYERS) for width in widths] + [(max(widths), depth) for depth in depths]
    for width, depth in sizes:
        params = jax.eval_shape(lambda width=width, depth=depth: transformer(width, depth))
        unit = size_of(params)
        row = [peak(loss_of, params, codes, donated=False)]
        for opt, make in (
            (optimizers.mezo(1e-6), zeroth_order_step),
            (optax.adamw(1e-3), first_order_step),
        ):
            state = jax.eval_shape(opt.init, params)
            row.append(peak(make(opt), params, state, codes))
        shares = " ".join(f"{bytes_ / unit:>10.2f}" for bytes_ in row)
        print(f"{width:>6} {depth:>6} {unit / 1e6:>10.1f} {shares}")


# Method, its rate, and its forward passes per step.
CONTENDERS: dict[str, tuple[Any, int]] = {
    "mezo": (optimizers.mezo(1e-4), 2),
    "mezo, 4 samples": (optimizers.mezo(3e-4, n_samples=4), 8),
    "mezo, one-sided": (optimizers.mezo(1e-4, one_sided=True), 2),
    "zo_sgd_momentum": (optimizers.zo_sgd_momentum(2e-5), 2),
    "zo_sign_sgd": (optimizers.zo_sign_sgd(3e-4), 2),
    "zo_sgd_conservative": (optimizers.zo_sgd_conservative(1e-4), 5),
    "zo_adam": (optimizers.zo_adam(3e-4), 2),
    "zo_adamu": (optimizers.zo_adamu(1e-4), 2),
    "zo_sparse": (optimizers.zo_sparse(1e-3), 2),
    "zo_block_coordinate": (optimizers.zo_block_coordinate(1e-4), 6),
    "zeroflow": (optimizers.zeroflow(1e-4, history=0.5), 2),
    "forward_gradient": (optimizers.forward_gradient(1e-4), 2),
}


def learning(passes: int) -> None:
    """Prints the second table."""
    start = transformer(32)
    text = jnp.asarray([ord(c) % VOCABULARY for c in (gradchain.__doc__ or "") * 200])[: 33 * 200]
    windows = text[: len(text) // 33 * 33].reshape(-1, 33)
    print(f"\n{'method':>20} {'steps':>6} {'loss':>7}   after {passes} forward passes")
    print(f"{'(start)':>20} {0:>6} {float(loss_of(start, windows)):>7.3f}")
    for name, (opt, cost) in CONTENDERS.items():
        steps = passes // cost
        step = zeroth_order_step(opt)

        def body(carry: Any, t: jax.Array, step: Any = step) -> tuple[Any, None]:
            rows = jax.random.randint(
                jax.random.fold_in(jax.random.key(1), t), (8,), 0, len(windows)
            )
            return step(*carry, windows[rows]), None

        run = jax.jit(lambda p, s, body=body, n=steps: jax.lax.scan(body, (p, s), jnp.arange(n))[0])
        params, _ = run(start, opt.init(start))
        print(f"{name:>20} {steps:>6} {float(loss_of(params, windows)):>7.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--depths", type=int, nargs="*", default=[8, 16], help="at the last width")
    parser.add_argument("--passes", type=int, default=600, help="0 leaves the second table out")
    options = parser.parse_args()
    memory(options.widths, options.depths)
    if options.passes:
        learning(options.passes)


if __name__ == "__main__":
    main()
