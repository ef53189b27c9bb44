"""Online subspace descent: its bases and its inner rules, beside a transcription."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import online_subspace_descent
from trajectories import assert_close, average, falling, gradients, rate_at, run, transcribed, tree

SHAPES = {"b": (3,), "e": (4, 4), "u": (3, 6), "w": (5, 4)}
B1, B2, EPS = 0.7, 0.9, 1e-3
RANK, INTERVAL, SCALE, DECAY, PENALTY = 2, 4, 0.5, 0.2, 0.3


def descent(rows, x):
    """The gradient of J by the chain rule in autodiff, not by the closed form of the library."""

    def loss(p):
        n = x / np.linalg.norm(x)
        overlap = p @ p.T - jnp.eye(len(rows))
        return jnp.sum((n @ p.T @ p - n) ** 2) + PENALTY * jnp.sum(overlap**2)

    with jax.enable_x64(True):
        return np.asarray(jax.grad(loss)(jnp.asarray(rows)))


def moved(rows, slope, t, e, optimizer, memory):
    if optimizer == "sgd":
        return rows - e * slope
    if optimizer == "lion":
        c = 0.9 * memory.get("pm", 0) + 0.1 * slope
        average(memory, "pm", 0.99, slope)
        return rows - e * np.sign(c)
    m, v = average(memory, "pm", 0.9, slope), average(memory, "pv", 0.999, slope**2)
    hat = m / (1 - 0.9 ** (t - 1)) / (np.sqrt(v / (1 - 0.999 ** (t - 1))) + 1e-8)
    return rows * (1 - (0.01 if optimizer == "adamw" else 0) * e) - e * hat


@pytest.mark.parametrize(
    ("base", "optimizer", "rate", "reference"),
    [
        ("adam", "adamw", falling, None),
        ("lion", "sgd", 0.1, None),
        ("sgd", "lion", falling, 0.2),
        ("adam", optax.scale_by_adam(), 0.1, None),
    ],
)
def test_online_subspace_descent(base, optimizer, rate, reference):
    def inner(t, g, memory):
        if base == "sgd":
            return g
        if base == "lion":
            c = B1 * memory.get("m", 0) + (1 - B1) * g
            average(memory, "m", B2, g)
            return c
        m, v = average(memory, "m", B1, g), average(memory, "v", B2, g * g)
        return m / (np.sqrt(v) + EPS) * np.sqrt(1 - B2**t) / (1 - B1**t)

    def rule(t, g, x, memory):
        lr = rate_at(rate, t)
        tall = g.ndim == 2 and g.shape[0] >= g.shape[1]
        if g.ndim != 2:
            u = inner(t, g, memory)
        else:
            wide = g if tall else g.T
            if t == 1:
                memory["rows"] = np.linalg.svd(wide, full_matrices=False)[2][:RANK]
            rows = memory["rows"]
            low = inner(t, wide @ rows.T if tall else rows @ g, memory)
            u = SCALE * (low @ rows if tall else rows.T @ low)
            if t > 1:
                e = lr / (reference or rate_at(rate, 1)) / INTERVAL
                memory["rows"] = moved(rows, descent(rows, wide), t, e, optimizer, memory)
        u = np.sign(u) if base == "lion" else u
        return (x - lr * u) * (1 - lr * DECAY)

    params, grads = tree(0, **SHAPES), gradients(6, **SHAPES)
    opt = online_subspace_descent(
        rate,
        RANK,
        INTERVAL,
        SCALE,
        base,
        B1,
        B2,
        EPS,
        DECAY,
        optimizer,
        reference,
        PENALTY,
    )
    assert_close(run(opt, params, grads), transcribed(rule, params, grads), rtol=1e-7)


def test_a_gradient_of_zeros_moves_no_basis():
    opt = online_subspace_descent(0.1, rank=1, projection_optimizer="sgd")
    zeros = {"w": np.zeros((3, 2))}
    first = {"w": np.diag([2.0, 1.0, 0.0])[:, :2]}
    rows = run(opt, zeros, [first, zeros, zeros], look=lambda state, _: state)
    basis = [next(x for x in jax.tree.leaves(s) if x.shape == (1, 2)) for s in rows]
    assert np.array_equal(basis[0], basis[2])
    assert np.all(np.isfinite(basis[2]))


def test_a_rate_that_starts_at_zero_needs_a_reference():
    warmup = optax.linear_schedule(0.0, 0.1, 5)
    x = {"w": jnp.ones((4, 3))}
    with pytest.raises(ValueError, match="starts at 0"):
        online_subspace_descent(warmup, rank=1)
    assert online_subspace_descent(warmup, rank=1, reference_lr=0.1).init(x) is not None
