"""What stands around FZooS's client: surrogates, the queries they see, and a whole round."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain import federated
from gradchain.optimizers import (
    active_queries,
    fzoos_client,
    nearest_queries,
    random_fourier_features,
    trajectory_gradient_surrogate,
)

pytestmark = pytest.mark.usefixtures("x64")
KERNELS = ("matern52", "rbf")


def history(rows=20, dims=3, seed=4):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(rows, dims))
    return points, np.sin(points).sum(axis=1), rng.normal(size=dims)


def kernel(name, x, y, lengthscale):
    """The kernel alone, of points in rows."""
    r = np.linalg.norm(x[:, None] - y[None], axis=-1) / lengthscale
    if name == "rbf":
        return np.exp(-(r**2) / 2)
    return (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r)


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_and_variances_are_those_of_the_process(name):
    """Of its mean, also at a point of the history; the variance is that of small differences."""
    points, values, at = history(12)
    points[5], values[5] = points[4], values[4]

    @jax.jit
    def ask(values, at):
        surrogate = trajectory_gradient_surrogate(name, 1.3, 1e-3).fit(points, values)
        slope = jax.grad(surrogate.mean)(at)
        return surrogate.gradient(at), slope, surrogate.gradient_variance(at)

    gradient, slope, variance = ask(values, at)
    np.testing.assert_allclose(gradient, slope, rtol=1e-8)
    here, slope, _ = ask(values, points[4])
    np.testing.assert_allclose(here, slope, rtol=1e-8)
    np.testing.assert_array_equal(ask(np.ones(12), at)[0], 0)

    h, total = 1e-3, 0.0
    known = np.linalg.inv(kernel(name, points, points, 1.3) + 1e-3 * np.eye(len(points)))
    for axis in np.eye(3):
        pair = np.stack([at + h * axis, at - h * axis])
        cross = kernel(name, pair, points, 1.3)
        covariance = kernel(name, pair, pair, 1.3) - cross @ known @ cross.T
        total += np.array([1, -1]) @ covariance @ np.array([1, -1]) / (2 * h) ** 2
    np.testing.assert_allclose(variance, total, rtol=1e-4)


def test_a_history_that_fills_up_is_one_of_what_it_has():
    points, values, at = history(12)
    seen = np.arange(12) % 3 > 0

    @jax.jit
    def ask(points, values, seen):
        surrogate = trajectory_gradient_surrogate(noise=1e-3).fit(points, values, seen)
        sent = random_fourier_features(3, 60).fit(points, values, seen)
        found = surrogate.mean(at), surrogate.gradient(at), surrogate.gradient_variance(at)
        return jnp.hstack(found), sent.weights

    holed, lost = np.where(seen[:, None], points, np.nan), np.where(seen, values, np.nan)
    found, weights = ask(holed, lost, seen)
    wanted, whole = ask(points[seen], values[seen], None)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    np.testing.assert_allclose(weights, whole, rtol=1e-6, atol=1e-9)
    found, weights = ask(holed, lost, np.zeros(12, bool))
    np.testing.assert_array_equal(found[:4], 0)
    np.testing.assert_array_equal(weights, 0)


def test_features_come_to_the_process_as_they_become_many():
    points, values, at = history()

    @partial(jax.jit, static_argnums=0)
    def gradient(count, key):
        features = random_fourier_features(3, count, 1.3, 0.1, key)
        return features.gradient(features.fit(points, values), at)

    fitter = trajectory_gradient_surrogate("rbf", 1.3, 0.1)
    exact = jax.jit(lambda: fitter.fit(points, values).gradient(at))()

    def error(count):
        off = [np.linalg.norm(gradient(count, key) - exact) for key in range(4)]
        return np.mean(off) / np.linalg.norm(exact)

    few, many = error(100), error(40000)
    assert many < 0.05
    assert many < few / 8


def test_features_follow_the_values_and_means_of_them_the_mean():
    points, values, at = history()
    features = random_fourier_features(3, 400)

    @jax.jit
    def ask(at):
        sent = [features.fit(points, y) for y in (values, 5 - 7 * values)]
        mean = jax.tree.map(lambda *leaves: sum(leaves) / 2, *sent)
        slope = jax.grad(lambda x: features.mean(mean, x))(at)
        apart = [features.gradient(x, at) for x in sent]
        return features.mean(sent[0], at), features.gradient(mean, at), slope, sum(apart) / 2

    for row in (0, 7):
        np.testing.assert_allclose(ask(points[row])[0], values[row], atol=1e-6)
    _, gradient, slope, apart = ask(at)
    np.testing.assert_allclose(gradient, slope, rtol=1e-8)
    np.testing.assert_allclose(gradient, apart, rtol=1e-8)


def test_nearest_queries_are_the_nearest():
    points, values, at = history()
    nearest = jax.jit(nearest_queries, static_argnums=3)
    order = np.argsort(np.linalg.norm(points - at, axis=1))
    found = nearest(points, values, at, max_queries=6)
    np.testing.assert_array_equal(found.points, points[order[:6]])
    np.testing.assert_array_equal(found.values, values[order[:6]])
    assert nearest(points, values, at).values.shape == (20,)

    seen = np.isin(np.arange(20), order[[0, 3, 5]])
    found = nearest(points, values, at, 5, seen)
    assert found.seen.tolist() == [True] * 3 + [False] * 2
    np.testing.assert_array_equal(found.values[:3], values[order[[0, 3, 5]]])


def test_active_queries_are_the_most_uncertain_candidates():
    points, values, _ = history(8, 2)
    at, offsets = points[3], np.random.default_rng(1).uniform(-1, 1, (30, 2))
    candidates = at + 0.2 * offsets

    @jax.jit
    def ask(key):
        surrogate = trajectory_gradient_surrogate().fit(points, values)
        given = active_queries(surrogate, at, key, 30, 4, 0.2, lambda key, count, x: offsets)
        variances = jax.vmap(surrogate.gradient_variance)(candidates)
        return surrogate, given, variances, active_queries(surrogate, at, key)

    surrogate, given, variances, drawn = ask(0)
    np.testing.assert_allclose(given, candidates[np.argsort(-variances)[:4]], rtol=1e-12)
    assert drawn.shape == (5, 2)
    assert np.abs(drawn - at).max() <= 0.01
    assert not np.allclose(drawn, ask(1)[3])
    assert surrogate.kernel == "matern52"


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda x, y, s, f: nearest_queries(x, y[:2], x[0]), "nearest_queries: history_x must be"),
        (lambda x, y, s, f: nearest_queries(x, y, x), r"nearest_queries: x must be a point of 3"),
        (lambda x, y, s, f: nearest_queries(x, y, x[0], 0), "nearest_queries: max_queries=0"),
        (lambda x, y, s, f: nearest_queries(x, y, x[0], 2, y), "nearest_queries: seen must be a"),
        (lambda x, y, s, f: active_queries(s, x[0], 0, 4), "num_queries=5 must be at most"),
        (lambda x, y, s, f: active_queries(s, x[0, :1]), "active_queries: x must be a point of 3"),
        (lambda x, y, s, f: active_queries(s, x[0], radius=0.0), "active_queries: radius=0.0"),
        (lambda x, y, s, f: active_queries(s, x[0], sampler=lambda *_: x), "sampler must give"),
        (lambda x, y, s, f: f.fit(x[:, :2], y), "random_fourier_features: x must be a point of 3"),
        (lambda x, y, s, f: random_fourier_features(0), "random_fourier_features: num_dims=0"),
        (lambda x, y, s, f: random_fourier_features(3, noise=-1.0), "noise=-1.0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(ask, problem):
    points, values, _ = history(6)
    surrogate = jax.jit(trajectory_gradient_surrogate().fit)(points, values)
    with pytest.raises(ValueError, match=problem):
        ask(points, values, surrogate, random_fourier_features(3, 10))


STEPS, ROUNDS, DIMS = 3, 8, 2
ROWS = ROUNDS * (1 + 3 * STEPS)


def whole_method():
    """FZooS as a pair whose clients are given values in place of gradients."""
    features, fitter = random_fourier_features(DIMS, 100), trajectory_gradient_surrogate()
    client = fzoos_client()
    nothing = features.fit(np.zeros((1, DIMS)), np.zeros(1))

    def asked(state, points, values, use=True):
        xs, ys, seen, count = state
        rows = count + np.arange(len(points))
        seen = seen.at[rows].set(use)
        return xs.at[rows].set(points), ys.at[rows].set(values), seen, count + len(points)

    def nearest(state, x):
        return nearest_queries(*state[:2], x, 15, state[2])

    def run(broadcast, state, value_fn, num_steps=None):
        start, of_server = broadcast
        seen, of_client, key = state
        seen = asked(seen, start[None], value_fn(start, 0)[None])

        def step(carry, t):
            x, inner, seen = carry
            update, inner = client.update(
                fitter.fit(*nearest(seen, x)).gradient(x), inner, x,
                server_gradient=features.gradient(of_server, x),
                client_gradient=features.gradient(of_client, x),
            )  # fmt: skip
            x = x + update
            seen = asked(seen, x[None], value_fn(x, t)[None])
            fresh = jax.random.fold_in(jax.random.wrap_key_data(key), seen[3])
            near = fitter.fit(*nearest(seen, x))
            more = active_queries(near, x, fresh, num_candidates=10, num_queries=2)
            values = jax.vmap(lambda at: value_fn(at, t))(more)
            return (x, inner, asked(seen, more, values, t < STEPS - 1)), None

        carry = start, client.init(start), seen
        (x, _, seen), _ = jax.lax.scan(step, carry, jnp.arange(STEPS))
        sent = features.fit(*nearest(seen, x))
        return (x, sent), (seen, sent, key)

    def init(params, client):
        zeros = jnp.zeros((ROWS, DIMS)), jnp.zeros(ROWS), jnp.zeros(ROWS, bool), 0
        return zeros, nothing, jax.random.key_data(jax.random.key(client))

    def update(params, state, messages, clients):
        return jax.tree.map(lambda x: x.mean(axis=0), messages)

    return federated.Federated(
        federated.Client(init, run, STEPS),
        federated.Server(lambda *_: nothing, lambda params, state: (params, state), update),
    )


def test_clients_who_see_values_alone_find_the_minimum_of_their_mean():
    targets = jnp.array([[0.9, 0.2], [0.1, -0.6]])

    def value(params, client, turn, step):
        return jnp.sum((params - targets[client]) ** 2)

    run = federated.simulate(
        whole_method(), jnp.array([-0.2, 0.8]), value, [[0, 1]] * ROUNDS, num_clients=2
    )
    start, end = (
        float(jnp.linalg.norm(x - targets.mean(axis=0)))
        for x in (jnp.array([-0.2, 0.8]), run.params)
    )
    assert end < 0.2 * start
    assert int(run.client_states[0][2][0].sum()) == ROUNDS * (1 + STEPS + 2 * (STEPS - 1))
