"""Sophia-H."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import (
    sophia_h,
)
from trajectories import assert_close, average, gradients, run, transcribed, tree
from wrapped_rules import B1, B2


@pytest.mark.parametrize("refresh", ["before", "after"])
@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("interval", [1, 3])
def test_sophia_h(refresh, correct, interval):
    params, grads = tree(), gradients(8)
    diagonals = [{k: 30 * v for k, v in g.items()} for g in gradients(8, seed=9)]
    gamma, lr, decay, rho, eps = 0.5, 0.1, 0.3, 0.6, 2.0

    def rule(name):
        def of(t, g, x, memory):
            m = average(memory, "m", B1, g)
            h = memory.get("h", 0 * g)
            due = t % interval == (1 % interval if refresh == "before" else 0)
            new = B2 * h + (1 - B2) * diagonals[t - 1][name] if due else h
            memory["h"] = new
            mhat = m / (1 - B1**t) if correct else m
            d = mhat / np.maximum(gamma * (new if refresh == "before" else h), eps)
            return x - lr * (np.clip(d, -rho, rho) + decay * x)

        return of

    parts = [transcribed(rule(k), {k: params[k]}, grads) for k in params]
    wanted = [{k: v for part in at for k, v in part.items()} for at in zip(*parts, strict=True)]
    opt = sophia_h(
        lr,
        B1,
        B2,
        eps,
        gamma,
        rho,
        decay,
        interval,
        bias_correction=correct,
        refresh=refresh,
    )
    stacked = jax.tree.map(lambda *x: np.stack(x), *diagonals)
    assert_close(run(opt, params, grads, hessian_diag=stacked), wanted)


def test_sophia_h_draws_a_given_number_of_probes():
    matrix = jnp.array([[2.0, 1.0], [1.0, 3.0]])

    def loss(x):
        return x @ matrix @ x / 2

    x = jnp.array([1.0, -1.0])
    opt = sophia_h(1.0, num_samples=64, probe="gaussian", b2=0.0)
    step = jax.jit(lambda x: opt.update(jax.grad(loss)(x), opt.init(x), x, value_fn=loss))
    _, state = step(x)
    h = optax.tree.get(state, "hessian")
    assert jnp.all(jnp.abs(h - jnp.diag(matrix)) < 1.5)
    assert jnp.all(h != jnp.diag(matrix))
