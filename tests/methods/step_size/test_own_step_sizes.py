"""Own step sizes, averages of the weights, and Muon: what no record shows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from flows import close
from gradchain import eval_params
from gradchain import optimizers as o

X = {"w": jnp.array([[1.0, -2.0, 0.5], [3.0, 1.0, -1.0]]), "b": jnp.array([0.5, 2.0])}


def gradient(params):
    return jax.tree.map(lambda x: x - 0.3, params)


def run(opt, params, steps, gradient=gradient):
    """The params after each step, and the last state."""
    opt = optax.with_extra_args_support(opt)

    @jax.jit
    def step(params, state):
        updates, state = opt.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    state, seen = opt.init(params), []
    for _ in range(steps):
        params, state = step(params, state)
        seen.append(params)
    return seen, state


class TestDistances:
    def test_layers_of_a_stack_go_as_if_apart(self):
        stacked = {"w": jnp.stack([X["w"], 3 * X["w"]]), "b": X["b"]}
        apart = {"w0": X["w"], "w1": 3 * X["w"], "b": X["b"]}
        mask = {"w": True, "b": False}
        together, _ = run(o.l_dog(init_step=("heuristic", 0.1), stacked=mask), stacked, 4)
        separate, _ = run(o.l_dog(init_step=("heuristic", 0.1)), apart, 4)
        close(together[-1]["w"][0], separate[-1]["w0"])
        close(together[-1]["w"][1], separate[-1]["w1"])
        close(together[-1]["b"], separate[-1]["b"])

    def test_a_stacked_leaf_is_otherwise_one(self):
        stacked = {"w": jnp.stack([X["w"], 3 * X["w"]])}
        one, _ = run(o.l_dog(init_step=("heuristic", 0.1)), stacked, 4)
        whole, _ = run(o.dog(init_step=("heuristic", 0.1)), stacked, 4)
        close(one[-1], whole[-1])

    @pytest.mark.parametrize("build", [o.dog, o.l_dog, o.u_dog])
    @pytest.mark.parametrize("init_step", [("fast", 1.0), 0.1, ("heuristic", -1.0)])
    def test_first_steps_that_are_none_are_refused(self, build, init_step):
        with pytest.raises(ValueError, match="init_step"):
            build(init_step=init_step)

    @pytest.mark.parametrize(
        "build",
        [o.dog, o.l_dog, o.dowg, o.prodigy, o.dadapt_adamw, o.dadapt_sgd, o.cocob, o.u_dog],
    )
    def test_a_first_gradient_of_zero_leaves_everything(self, build):
        zeros = jax.tree.map(jnp.zeros_like, X)
        seen, _ = run(build(), X, 2, lambda params: zeros)
        close(seen[-1], X)


def unixgrad_of(x0, diameter, grads):
    """UniXGrad as its paper states it, with all sums written out."""
    y, xs, weights, total, queries = x0, [], [], 0.0, []
    for k in range(1, len(grads) // 2 + 1):
        step = 2 * diameter * k / np.sqrt(1 + total)
        m, g = grads[2 * k - 2], grads[2 * k - 1]
        xs.append(y - step * m)
        weights.append(k)
        queries.append(np.average(xs, axis=0, weights=weights))
        total += k**2 * np.sum((g - m) ** 2)
        y = y - step * g
        queries.append(np.average([*xs, y], axis=0, weights=[*weights, k + 1]))
    return queries


def test_unixgrad_is_that_of_its_paper():
    rng = np.random.default_rng(0)
    x0, grads = rng.normal(size=4), rng.normal(size=(10, 4))
    with jax.enable_x64(True):
        opt, x = o.unixgrad(0.7), jnp.asarray(x0)
        state = opt.init(x)
        for g, wanted in zip(grads, unixgrad_of(x0, 0.7, grads), strict=True):
            updates, state = opt.update(jnp.asarray(g), state, x)
            x = x + updates
            np.testing.assert_allclose(x, wanted, rtol=1e-12)


def test_unixgrad_stays_in_its_domain():
    from gradchain.transforms import clip

    opt = o.unixgrad(5.0, projection=lambda x: clip(x, -1.0, 1.0))
    seen, state = run(opt, {"x": jnp.array([0.9, -0.2])}, 6, lambda p: {"x": p["x"] + 4.0})
    assert all(float(jnp.max(jnp.abs(p["x"]))) <= 1.0 + 1e-6 for p in seen)
    close(eval_params(state, seen[-1])["x"], jnp.array([-1.0, -1.0]), atol=0.6)


class TestWeightAverage:
    def average(self, **arguments):
        seen, state = run(o.weight_average(o.sgd(0.3), **arguments), X, 7)
        plain, _ = run(o.sgd(0.3), X, 7)
        close(seen[-1], plain[-1])
        return [p["w"] for p in plain], eval_params(state, seen[-1])["w"]

    def test_ema(self):
        y, found = self.average(decay=0.8, debias=False)
        expected = X["w"]
        for value in y:
            expected = 0.8 * expected + 0.2 * value
        close(found, expected)

    def test_ema_that_starts_fast(self):
        y, found = self.average(decay=0.4)
        expected = X["w"]
        for n, value in enumerate(y, 1):
            rate = min(0.4, (1 + n) / (10 + n))
            expected = rate * expected + (1 - rate) * value
        close(found, expected)

    def test_window(self):
        y, found = self.average(form="window", size=3)
        close(found, sum(y[-3:]) / 3)
        y, found = self.average(form="window", size=3, update_interval=3)
        close(found, (y[2] + y[5]) / 2)

    def test_tail(self):
        y, found = self.average(form="uniform", start=4)
        close(found, sum(y[4:]) / 3)

    @pytest.mark.parametrize(
        "around",
        [
            lambda opt: optax.chain(optax.clip(100.0), opt),
            lambda opt: optax.masked(opt, {"w": True, "b": True}),
            lambda opt: optax.partition({"a": opt}, {"w": "a", "b": "a"}),
            lambda opt: optax.MultiSteps(opt, 1).gradient_transformation(),
        ],
        ids=["chain", "masked", "partition", "MultiSteps"],
    )
    def test_the_average_is_found_in_any_container(self, around):
        opt = o.weight_average(o.sgd(0.3), form="uniform")
        seen, state = run(around(opt), X, 4)
        close(eval_params(state, seen[-1]), jax.tree.map(lambda *x: sum(x) / 4, *seen))


class TestMuon:
    def test_chosen_leaves_only(self):
        chosen = {"w": False, "b": False, "u": True}
        params = {**X, "u": X["w"]}
        opt = o.muon(0.1, orthogonalize=chosen)
        seen, _ = run(opt, params, 2)
        adam, _ = run(o.nadam(0.1), X, 2)
        close({k: seen[-1][k] for k in X}, adam[-1], rtol=1e-5)
        assert float(jnp.max(jnp.abs(seen[-1]["u"] - seen[-1]["w"]))) > 1e-3

    def test_singular_values_come_near_one(self):
        coefficients = [(1.5, -0.5, 0.0)] * 30
        direction = o.scale_by_muon(ns_coeffs=coefficients, beta=0.0)
        updates, _ = direction.update({"w": X["w"]}, direction.init({"w": X["w"]}))
        close(jnp.linalg.svd(updates["w"], compute_uv=False), jnp.ones(2), rtol=1e-4)

    def test_axes_that_a_tensor_does_not_have_are_refused(self):
        for axes in ((0, 2), (0, 0), ((), 1)):
            numbers = optax.contrib.MuonDimensionNumbers(*axes)
            opt = o.muon(0.1, muon_weight_dimension_numbers={"w": numbers, "b": None})
            with pytest.raises(ValueError, match="MuonDimensionNumbers"):
                opt.init(X)

    @pytest.mark.parametrize("coefficients", ["fast", (1.0, 2.0), [(1.0, 2.0, 3.0), (1.0,)]])
    def test_coefficients_that_are_none_are_refused(self, coefficients):
        with pytest.raises(ValueError, match="ns_coeffs"):
            o.muon(0.1, ns_coeffs=coefficients)


def test_hypergradient_bounds_hold():
    opt = o.sgd_hd(0.1, hypergrad_learning_rate=10.0, bounds=(0.0, 0.2))
    _, state = run(opt, X, 3)
    rate = optax.tree.get(state, "learning_rate")
    assert 0.0 <= float(rate) <= 0.2 + 1e-6
    with pytest.raises(ValueError, match="bounds"):
        o.sgd_hd(0.1, bounds=(1.0, 0.0))


@pytest.mark.parametrize(
    "build",
    [
        lambda: o.momo(adapt_lower_bound=True, bias_correction=True, weight_decay=0.1),
        lambda: o.polyak_momentum("hb", weight_decay=0.1),
    ],
)
def test_a_loss_that_is_not_finite_changes_nothing(build):
    opt = build()
    update = jax.jit(opt.update)
    _, state = update(X, opt.init(X), X, value=2.0)
    for value in (jnp.nan, jnp.inf):
        updates, after = update(X, state, X, value=value)
        close(updates, jax.tree.map(jnp.zeros_like, X))
        close(after, state, rtol=0, atol=0)
