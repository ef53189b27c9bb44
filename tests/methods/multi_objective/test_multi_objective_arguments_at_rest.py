"""Arguments of multi objective methods that recorded runs leave at rest, transcribed in NumPy."""

import jax
import numpy as np
import pytest
from at_rest import GRADS, RATE, START, draw, stepping, walk
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf

pytestmark = pytest.mark.usefixtures("x64")


def least(gram, floor):
    """The weights of smallest length that are no less than `floor`, by trying all active sets."""
    best = None
    for bits in np.ndindex(*(2,) * len(floor)):
        at = np.array(bits, bool)
        w = np.where(at, floor, 0.0)
        if (~at).any():
            w[~at] = -np.linalg.solve(gram[~at][:, ~at], gram[~at][:, at] @ floor[at])
        length = w @ gram @ w
        if np.all(w >= floor - 1e-12) and (best is None or length < best[0]):
            best = length, w
    return best[1]


@pytest.mark.parametrize("solver", ["enumerate", "projected_newton"])
@pytest.mark.parametrize("name", ["dualproj", "upgrad"])
def test_regularised_projections_with_preferences(name, solver):
    g = draw(8, (3,))
    g = {k: np.stack([v[0], v[1] - 0.9 * v[0], v[2] - 0.7 * v[0]]) for k, v in g.items()}
    rows = np.concatenate([v.reshape(3, -1) for v in g.values()], axis=1)
    gram = rows @ rows.T
    total = np.trace(gram)
    gram = gram / total + 0.2 * np.eye(3)
    preferred = np.array([0.7, 0.1, 0.4])
    if name == "dualproj":
        weights = least(gram, preferred)
    else:
        weights = sum(least(gram, p * np.eye(3)[i]) for i, p in enumerate(preferred))
    settings = {"pref_vector": tuple(preferred), "reg_eps": 0.2, "solver": solver}
    rule = getattr(o, name)(**settings)
    found = jax.jit(rule.update)(g, rule.init(START))[0]
    assert not np.allclose(weights, preferred)
    assert_close([found], [{k: np.tensordot(weights, g[k], 1) for k in g}], 1e-7)
    for bound, weighs in ((0.995, weights), (1.005, preferred)):
        rule = getattr(o, name)(**settings, norm_eps=bound * total)
        found = jax.jit(rule.update)(g, rule.init(START))[0]
        assert_close([found], [{k: np.tensordot(weighs, g[k], 1) for k in g}], 1e-7)


def test_cones_are_cut_where_gradients_are_short():
    g = draw(8, (3,))
    total = sum(np.sum(v**2) for v in g.values())
    g = {k: np.sqrt(0.01 / total) * v for k, v in g.items()}
    for bound, moves in ((0.00995, True), (0.01005, False)):
        rule = o.cagrad(0.1, norm_eps=bound)
        assert np.any(rule.update(g, rule.init(START))[0]["w"]) == moves


def test_the_least_step_of_frank_wolfe():
    """It stops after the first step below the bound."""
    g = draw(8, (5,))
    rows = np.concatenate([v.reshape(5, -1) for v in g.values()], axis=1)
    gram, a, steps, weights = rows @ rows.T, np.full(5, 0.2), [], []
    for _ in range(9):
        k = np.argmin(gram @ a)
        there, here, towards = gram[k, k], a @ gram @ a, a @ gram[k]
        steps.append((here - towards) / (here + there - 2 * towards))
        a = (1 - steps[-1]) * a + steps[-1] * np.eye(5)[k]
        weights.append(a)
    last = int(np.argmin(steps[:6]))
    for bound, stop in ((0.995 * steps[last], None), (1.005 * steps[last], last)):
        below = (i for i, step in enumerate(steps) if step < bound)
        wanted = next(below, 8)
        assert stop is None or wanted == stop
        rule = o.mgda(tol=bound, max_iters=9)
        found = rule.update(g, rule.init(START))[0]
        assert_close([found], [{k: np.tensordot(weights[wanted], g[k], 1) for k in g}], 1e-9)


def test_pseudo_inverses_leave_out_what_is_small():
    g = draw(8, (3,))
    rows = np.concatenate([v.reshape(3, -1) for v in g.values()], axis=1)
    gram = rows @ rows.T
    shares = np.linalg.eigvalsh(gram) / np.linalg.eigvalsh(gram)[-1]
    cutoff = np.mean(shares[:2])  # leaves out one of three directions
    v = np.linalg.pinv(gram, rcond=cutoff, hermitian=True) @ np.sqrt(np.diagonal(gram))
    rule = o.imtl_g(rcond=cutoff)
    found = rule.update(g, rule.init(START))[0]
    assert_close([found], [{k: np.tensordot(v / v.sum(), g[k], 1) for k in g}], 1e-9)


def test_a_large_eps():
    opt = o.m_config(RATE, 1, b2=0.95, eps=0.3)
    assert_close(walk(opt), by_leaf(stepping, START, GRADS), 1e-9)
