"""The greedy block is that of the largest decrease of the quadratic model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.optimizers import greedy_block_descent, greedy_block_mask

G = {"a": jnp.array([3.0, -1.0]), "b": jnp.array([[0.5, 2.5]]), "c": jnp.array(-2.0)}
DENSE = {
    "a": jnp.array([[4.0, 1.0], [1.0, 2.0]]),
    "b": jnp.array([[1.0, -0.5], [-0.5, 3.0]]),
    "c": jnp.array([[0.5]]),
}
DIAGONAL = {"a": jnp.array([4.0, 2.0]), "b": jnp.array([[1.0, 3.0]]), "c": jnp.array(0.5)}


def matrices(rule):
    """The curvature that a rule takes a block to have."""
    for name, g in G.items():
        h, d = np.asarray(DENSE[name]), np.ravel(DIAGONAL[name])
        n = np.size(g)
        yield name, {"gs": np.eye(n), "gsl": d.max() * np.eye(n), "gsd": np.diag(d), "gsq": h}[rule]


@pytest.mark.parametrize("rule", ["gs", "gsl", "gsd", "gsq"])
def test_it_goes_to_the_minimum_of_the_model_in_the_best_block(rule):
    steps = {n: np.linalg.solve(h, np.ravel(G[n])) for n, h in matrices(rule)}
    best = max(G, key=lambda n: np.ravel(G[n]) @ steps[n])
    bounds = None if rule == "gs" else DENSE if rule == "gsq" else DIAGONAL
    opt = greedy_block_descent(rule=rule, lipschitz=bounds)
    mask = greedy_block_mask(rule=rule, lipschitz=bounds)
    u, _ = opt.update(G, opt.init(G))
    kept, _ = mask.update(G, mask.init(G))
    for name in G:
        chosen = name == best
        np.testing.assert_allclose(np.ravel(u[name]), -steps[name] * chosen, rtol=1e-6)
        np.testing.assert_array_equal(kept[name], G[name] * chosen)


@pytest.mark.parametrize(
    ("rule", "size", "kept"), [("gs", 3, "a0 b1 c0"), ("gsd", 2, "a0 c0"), ("gs", 9, "all")]
)
def test_entries_are_chosen_across_leaves(rule, size, kept):
    bounds = None if rule == "gs" else DIAGONAL
    for opt in (
        greedy_block_mask(rule, "entries", size, lipschitz=bounds),
        greedy_block_descent(0.1, rule, "entries", size, lipschitz=bounds),
    ):
        u, _ = jax.jit(opt.update)(G, opt.init(G))
        found = {f"{n}{i}" for n, x in u.items() for i, v in enumerate(np.ravel(x)) if v != 0}
        assert found == ({"a0", "a1", "b0", "b1", "c0"} if kept == "all" else set(kept.split()))


def test_entries_that_tie_are_all_taken():
    g = {"a": jnp.array([1.0, -1.0, 0.5])}
    opt = greedy_block_mask(blocks="entries", block_size=1)
    assert opt.update(g, opt.init(g))[0]["a"].tolist() == [1.0, -1.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "gsd"}, "needs lipschitz"),
        ({"blocks": "entries"}, "needs block_size"),
        ({"rule": "gsl", "blocks": "entries", "block_size": 1, "lipschitz": DIAGONAL}, "whole blo"),
        ({"lipschitz": DIAGONAL}, "rule='gs' has no curvature"),
        ({"rule": "gsd", "lipschitz": G}, r"lipschitz\['a'\] must be above 0, a bound is -1.0"),
        ({"rule": "gsl", "lipschitz": {"a": np.nan}}, r"lipschitz\['a'\] .* a bound is nan"),
        ({"rule": "gsq", "lipschitz": DIAGONAL}, r"must be a symmetric matrix for rule='gsq'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        greedy_block_descent(**arguments)
