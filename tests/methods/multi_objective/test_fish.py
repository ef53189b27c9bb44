"""Fish goes from domain to domain, and part of that way."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import fish, sam, sgd

X = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
CENTRES = (0.0, 3.0, -1.0)


def loss(params, i):
    at = jnp.asarray(CENTRES)[i]
    return sum(jnp.sum((x - at) ** 2) / 2 for x in jax.tree.leaves(params))


LOSSES = [lambda p, i=i: loss(p, i) for i in range(3)]
G = jax.tree.map(jnp.ones_like, X)


def run(opt, value_fns, steps=3):
    params, state = X, opt.init(X)
    for _ in range(steps):
        u, state = opt.update(G, state, params, value_fns=value_fns)
        params = optax.apply_updates(params, u)
    return params


@pytest.mark.parametrize("reload", [True, False])
def test_it_is_the_loop_of_the_paper_with_whatever_becomes_of_the_inner_state(reload):
    inner = optax.adam(0.1)
    x, state = X, inner.init(X)
    for _ in range(3):
        y, state = x, state if reload else inner.init(x)
        for value_fn in LOSSES:
            u, state = inner.update(jax.grad(value_fn)(y), state, y)
            y = optax.apply_updates(y, u)
        x = jax.tree.map(lambda a, b: a + 0.6 / 3 * (b - a), x, y)
    opt = fish(inner, 0.6, reload_inner_state=reload)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), run(opt, LOSSES), x)


def test_a_sequence_and_a_function_of_the_domain_are_the_same():
    a = run(fish(sgd(0.1), 1.0), LOSSES)
    b = run(fish(sgd(0.1), 1.0, meta_steps=3), loss)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), a, b)


def test_one_domain_and_the_whole_way_are_the_inner_optimizer_and_sam_moves_the_domains_too():
    u, _ = sam(fish(sgd(0.1), 1.0, meta_steps=1), rho=0.5).update(
        G, sam(fish(sgd(0.1))).init(X), X, value_fns=LOSSES, value_fn=LOSSES[0]
    )
    at = jax.tree.map(lambda x: x + 0.5 / jnp.sqrt(3.0), X)
    expected = jax.tree.map(lambda g: -0.1 * g, jax.grad(LOSSES[0])(at))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), u, expected)


def test_refuses_too_few_domains():
    opt = fish(sgd(0.1), meta_steps=4)
    with pytest.raises(ValueError, match="value_fns are 3 losses, it needs 4"):
        opt.update(G, opt.init(X), X, value_fns=LOSSES)
    opt = fish(sgd(0.1))
    with pytest.raises(ValueError, match="needs meta_steps"):
        opt.update(G, opt.init(X), X, value_fns=loss)
    with pytest.raises(ValueError, match="value_fns"):
        opt.update(G, opt.init(X), X)
