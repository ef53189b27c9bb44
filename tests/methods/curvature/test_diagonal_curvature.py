"""AdaHessian, Sophia-G, OASIS and SANIA against their formulas in NumPy."""

import itertools

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import observe
from gradchain.optimizers import adahessian, oasis, sania, sophia_g, sophia_h
from gradchain.optimizers.curvature.diagonal.block_average import block_average
from gradchain.transforms import gauss_newton_bartlett
from gradchain.transforms.curvature import bartlett_diagonal


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


A = {"w": np.linspace(0.5, 3.0, 6).reshape(2, 3), "b": np.array([2.0, -1.0, 0.7, 1.3])}
START = {"w": np.array([[1.0, -0.5, 0.3], [0.2, -0.8, 0.9]]), "b": np.array([0.4, -0.6, 1.0, 0.1])}


def loss(p):
    return sum(jnp.sum(A[k] * p[k] ** 2 / 2 + 0.1 * p[k] ** 4) for k in A)


def slope(p):
    return {k: A[k] * p[k] + 0.4 * p[k] ** 3 for k in A}


def curvature(p):
    return {k: A[k] + 1.2 * p[k] ** 2 for k in A}


def run(opt, steps, start=START, value_fn=loss, **extras):
    """The params after each step."""

    @jax.jit
    def scan(params):
        def body(carry, _):
            p, s = carry
            value, g = jax.value_and_grad(value_fn)(p)
            u, s = opt.update(g, s, p, value=value, value_fn=value_fn, **extras)
            p = optax.apply_updates(p, u)
            return (p, s), p

        return jax.lax.scan(body, (params, opt.init(params)), length=steps)[1]

    return jax.tree.map(np.asarray, scan(jax.tree.map(jnp.asarray, start)))


def assert_follows(got, wanted, rtol=1e-10):
    for k in wanted[0]:
        np.testing.assert_allclose(got[k], np.stack([p[k] for p in wanted]), rtol=rtol, atol=1e-13)


def numpy_run(step, steps):
    p, out = {k: v.copy() for k, v in START.items()}, []
    for t in range(1, steps + 1):
        p = step(p, t)
        out.append(p)
    return out


@pytest.mark.parametrize("interval", [1, 3])
def test_adahessian_off_its_defaults(interval):
    power, b1, b2, eps, rate, decay = 0.5, 0.7, 0.8, 0.05, 0.1, 0.3
    m = dict.fromkeys(A, 0.0)
    v = dict.fromkeys(A, 0.0)

    def step(p, t):
        g, h, new = slope(p), curvature(p), {}
        d = {
            "w": np.broadcast_to(np.abs(h["w"]).mean(0, keepdims=True), (2, 3)),
            "b": np.repeat(np.abs(h["b"]).reshape(2, 2).mean(1), 2),
        }
        for k in A:
            m[k] = b1 * m[k] + (1 - b1) * g[k]
            if (t - 1) % interval == 0:
                v[k] = b2 * v[k] + (1 - b2) * d[k] ** 2
            denominator = np.sqrt(v[k]) ** power / np.sqrt(1 - b2**t) ** power + eps
            new[k] = p[k] - rate * (m[k] / (1 - b1**t) / denominator + decay * p[k])
        return new

    opt = adahessian(
        rate,
        b1,
        b2,
        eps,
        decay,
        power,
        interval,
        average_axes={"2": [0]},  # as a configuration file has them
        block_sizes={1: 2},
    )
    assert_follows(run(opt, 7), numpy_run(step, 7))


def test_blocks():
    x = jnp.arange(24.0).reshape(2, 2, 3, 2)
    average = block_average()
    out, _ = average.update(x, average.init(x))
    np.testing.assert_allclose(out, np.broadcast_to(np.mean(x, (0, 1), keepdims=True), x.shape))
    wrong = block_average(block_sizes={1: 4})
    with pytest.raises(ValueError, match="block_sizes: 4 does not divide"):
        wrong.update(jnp.ones(6), wrong.init(jnp.ones(6)))


@pytest.mark.parametrize(
    "given", [{"block_sizes": {"kernel": 2}}, {"average_axes": {2: "0"}}, {"block_sizes": 2}]
)
def test_blocks_are_refused_by_name(given):
    (name,) = given
    with pytest.raises(ValueError, match=rf"adahessian: {name}=.*numbers of dimensions"):
        adahessian(0.1, **given)


def test_one_probe_is_drawn_for_all_leaves():
    """Leaves that interact: |H z| of a joint probe, not of one leaf at a time."""
    probe = {"a": jnp.array([1.0]), "b": jnp.array([-1.0])}
    opt = adahessian(1.0, b1=0.0, eps=0.0, sampler=lambda key, count, params: probe)
    start = {"a": jnp.array([1.0]), "b": jnp.array([1.0])}
    grads = {"a": jnp.array([1.0]), "b": jnp.array([1.0])}

    def coupled(p):
        return jnp.sum(p["a"] ** 2 + 3 * p["a"] * p["b"] + 2 * p["b"] ** 2)

    u, _ = opt.update(grads, opt.init(start), start, value_fn=coupled)
    np.testing.assert_allclose([u["a"][0], u["b"][0]], [-1.0, -1.0])  # |2 - 3| and |3 - 4|


X = np.array([[1.0, -0.5], [0.3, 0.8]])
W = {"w": np.array([[0.4, -0.2, 0.1], [0.3, 0.5, -0.6]])}


def logits(p):
    return X @ p["w"]


def test_bartlett_is_unbiased_and_takes_b_positions():
    """The mean over all labels, weighed by their probability, is the Gauss-Newton diagonal."""
    params = jax.tree.map(jnp.asarray, W)
    p = np.asarray(jax.nn.softmax(logits(params)))
    mean = 0.0
    for labels in itertools.product(range(3), repeat=2):
        chance = np.prod([p[i, label] for i, label in enumerate(labels)])
        estimate = gauss_newton_bartlett(logits, params, None, labels=jnp.array(labels))
        mean = mean + chance * np.asarray(estimate["w"])
    exact = sum(np.outer(X[i] ** 2, p[i] * (1 - p[i])) for i in range(2)) / 2
    np.testing.assert_allclose(mean, exact, rtol=1e-12)


def test_bartlett_leaves_masked_positions_out():
    params = jax.tree.map(jnp.asarray, W)
    labels = jnp.array([2, 0])
    masked = gauss_newton_bartlett(
        lambda p: (logits(p), jnp.array([True, False])), params, None, labels=labels
    )
    alone = gauss_newton_bartlett(lambda p: logits(p)[:1], params, None, labels=labels[:1])
    np.testing.assert_allclose(masked["w"], alone["w"], rtol=1e-12)
    scaled = gauss_newton_bartlett(logits, params, None, batch_size=7, labels=labels)
    plain = gauss_newton_bartlett(logits, params, None, labels=labels)
    np.testing.assert_allclose(scaled["w"], 3.5 * np.asarray(plain["w"]), rtol=1e-12)


def test_bartlett_draws_from_the_model():
    """With one class certain the draws are that class, and the estimate vanishes."""
    opt = bartlett_diagonal(3)
    params = jnp.zeros(3)
    bias = jnp.array([0.0, 60.0, 0.0])
    h, _ = opt.update(params, opt.init(params), params, logits_fn=lambda p: (p + bias)[None])
    assert float(jnp.max(h)) < 1e-40


def test_bartlett_does_not_underflow_in_float16():
    """A residual of 4.5e-5 over 4096 positions is zero in float16."""
    params = jnp.array([0.0, -10.0], jnp.float16)

    def many(p):
        return jnp.broadcast_to(p, (4096, 2))

    labels = jnp.zeros(4096, int)
    h = gauss_newton_bartlett(many, params, None, labels=labels)
    exact = gauss_newton_bartlett(many, params.astype(float), None, labels=labels)
    np.testing.assert_allclose(h, exact, rtol=0.1)


@pytest.mark.parametrize(
    ("build", "more"),
    [
        (sophia_g, {"eps_mode": "add"}),
        (sophia_g, {"eps_mode": "max"}),
        (sophia_h, {}),
        (adahessian, {}),
        (sania, {"eps_mode": "add"}),
        (sania, {"eps_mode": "max"}),
    ],
)
def test_without_eps_an_entry_that_never_moved_stays(build, more):
    """0/0, of the momentum over the curvature, is 0."""
    params, grads = jnp.zeros(2), jnp.array([0.0, 1.0])
    opt = build(0.1, eps=0.0, **more)
    u, _ = opt.update(grads, opt.init(params), params, value=1.0, hessian_diag=grads)
    assert float(u[0]) == 0
    assert float(u[1]) < 0


@pytest.mark.parametrize(("mode", "first"), [("add", 1), ("max", 3), ("add", 2)])
def test_sophia_g_off_its_defaults(mode, first):
    b1, b2, eps, gamma, clip, rate, decay, k = 0.8, 0.6, 1e-3, 0.5, 0.9, 0.1, 0.2, 2
    draws = np.random.default_rng(0).integers(0, 3, (6, 2))
    m = h = 0.0
    p, wanted = W["w"].copy(), []
    for t in range(1, 7):
        s = np.exp(X @ p) / np.exp(X @ p).sum(1, keepdims=True)
        if t >= first and (t - 1) % k == 0:
            ghat = X.T @ (s - np.eye(3)[draws[t - 1]]) / 2
            h = b2 * h + (1 - b2) * 2 * ghat**2
        m = b1 * m + (1 - b1) * p
        floor = gamma * h + eps if mode == "add" else np.maximum(gamma * h, eps)
        p = (1 - rate * decay) * p - rate * np.sign(m) * np.minimum(np.abs(m) / floor, clip)
        wanted.append({"w": p})
    opt = sophia_g(
        rate,
        b1,
        b2,
        eps,
        gamma,
        clip,
        decay,
        k,
        eps_mode=mode,
        first_estimate=first,
        sampler=lambda key, count, params: jnp.asarray(draws)[count],
    )
    got = run(opt, 6, W, lambda p: jnp.sum(p["w"] ** 2) / 2, logits_fn=logits)
    assert_follows(got, wanted)


@pytest.mark.parametrize("adaptive", [True, False])
def test_oasis_off_its_defaults(adaptive):
    rate0, b2, alpha, momentum, decay = 0.05, 0.7, 1.5, 0.6, 0.1
    d = dict.fromkeys(A, 0.0)
    big = {}
    state = {"eta": 0.0, "ratio": np.inf, "past": None}

    def step(p, t):
        g, h = slope(p), curvature(p)
        for k in A:
            big[k] = h[k] if t == 1 else b2 * big[k] + (1 - b2) * h[k]
            d[k] = momentum * d[k] + (1 - momentum) * g[k]
        hat = {k: np.maximum(np.abs(big[k]), alpha) for k in A}
        eta = rate0
        if adaptive and t > 1:
            gp = slope(state["past"])
            top = np.sqrt(sum(np.sum(hat[k] * (p[k] - state["past"][k]) ** 2) for k in A))
            bottom = np.sqrt(sum(np.sum((g[k] - gp[k]) ** 2 / hat[k]) for k in A))
            eta = min(np.sqrt(1 + state["ratio"]) * state["eta"], top / (2 * bottom))
            state["ratio"] = eta / state["eta"]
        state["eta"], state["past"] = eta, p
        return {k: p[k] - eta * (d[k] / hat[k] + decay * p[k]) for k in A}

    opt = oasis(rate0, b2, alpha, adaptive, momentum, decay)
    assert_follows(run(opt, 8), numpy_run(step, 8))


def test_oasis_stands_still_where_nothing_changes():
    """Zero gradients: no change of the params or the gradient, and no division by it."""
    got = run(oasis(0.1), 4, {"w": jnp.ones(3)}, lambda p: 0.0 * jnp.sum(p["w"]))
    np.testing.assert_array_equal(got["w"], np.ones((4, 3)))


def test_oasis_keeps_its_rate_where_the_last_gradient_is_not_finite():
    """The gradient of this batch at the last params; not a sign that the gradient is constant."""
    opt = observe(oasis(0.1), "rate")
    params, rates = jnp.ones(2), []
    state = opt.init(params)
    for previous in (0.0, 1.0, jnp.nan, jnp.inf):
        u, state = opt.update(
            params,
            state,
            params,
            hessian_diag=jnp.ones(2),
            previous_grads=jnp.full(2, previous),
        )
        rates.append(float(gradchain.observed(state)["rate"]))
        params = params + u
    assert rates[1] != rates[0]
    assert rates[1] == rates[2] == rates[3]


def test_oasis_starts_with_the_first_positive_rate():
    """A warm-up starts at 0, where nothing is measured."""
    warm = run(oasis(lambda count: 0.02 * count), 5)
    cold = run(oasis(0.02), 4)
    for k in A:
        np.testing.assert_array_equal(warm[k][0], START[k])
        np.testing.assert_allclose(warm[k][1:], cold[k], rtol=1e-12)


def test_oasis_warms_up_with_more_probes():
    matrix = jnp.array([[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 2.0]])

    def quadratic(x):
        return x @ matrix @ x / 2

    def first(warmup):
        params, opt = jnp.ones(3), oasis(1.0, warmup_samples=warmup, key=5)
        update = jax.jit(lambda s: opt.update(params, s, params, value_fn=quadratic))
        return -1 / np.asarray(update(opt.init(params))[0])

    many = np.max(np.abs(first(64) - np.diag(matrix)))
    assert many < 0.6 < np.max(np.abs(first(1) - np.diag(matrix)))


PRECONDITIONERS = ("adam_sq", "adagrad_sq", "hessian", "identity")


@pytest.mark.parametrize("sqrt", [False, True])
@pytest.mark.parametrize("mode", ["max", "add"])
@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_sania_in_all_forms(name, mode, sqrt):
    b2, eps, rate, f_star = 0.9, 0.3, 0.7, 0.2
    s = dict.fromkeys(A, 0.0)

    def step(p, t):
        g, h, b = slope(p), curvature(p), {}
        for k in A:
            if name == "adagrad_sq":
                s[k] = s[k] + g[k] ** 2
                b[k] = s[k]
            elif name == "adam_sq":
                s[k] = b2 * s[k] + (1 - b2) * g[k] ** 2
                b[k] = s[k] / (1 - b2**t)
            else:
                b[k] = np.abs(h[k]) if name == "hessian" else np.ones_like(p[k])
            b[k] = np.maximum(b[k], eps) if mode == "max" else b[k]
            b[k] = np.sqrt(b[k]) if sqrt else b[k]
            b[k] = b[k] + eps if mode == "add" else b[k]
        norm = sum(np.sum(g[k] ** 2 / b[k]) for k in A)
        f = sum(np.sum(A[k] * p[k] ** 2 / 2 + 0.1 * p[k] ** 4) for k in A)
        gap = max(f - f_star, 0)
        lam = 1 - np.sqrt(1 - 2 * gap / norm) if 2 * gap < norm else 1.0
        return {k: p[k] - rate * lam * g[k] / b[k] for k in A}

    opt = sania(rate, name, b2, eps, sqrt, mode, f_star)
    assert_follows(run(opt, 4), numpy_run(step, 4))


@pytest.mark.parametrize(
    ("build", "more"),
    [
        (adahessian, {}),
        (oasis, {"warmup_samples": 5}),
        (sania, {"preconditioner": "hessian"}),
        (sophia_h, {}),
    ],
)
def test_there_are_as_many_probes_as_asked_for(build, more):
    report = gradchain.describe(build(0.1, num_samples=3, **more), START)
    estimates = (row.arguments for row in report.rows if row.label == "hutchinson")
    probes = {arguments["num_samples"] for arguments in estimates if arguments}
    assert probes == {3, more.get("warmup_samples", 3)}


def test_sania_does_not_notice_scaled_features():
    scale = jnp.array([1.0, 1e3, 1e-2])

    def plain(p):
        return jnp.sum((p["w"] - 1.0) ** 2)

    opt = sania(preconditioner="adagrad_sq", eps=1e-30)
    got = run(opt, 5, {"w": jnp.array([0.1, 0.2, 0.3])}, plain)
    scaled = run(
        opt,
        5,
        {"w": jnp.array([0.1, 0.2, 0.3]) / scale},
        lambda p: plain({"w": scale * p["w"]}),
    )
    np.testing.assert_allclose(scaled["w"] * np.asarray(scale), got["w"], rtol=1e-10)


def test_sania_takes_small_polyak_steps_exactly():
    """1 - sqrt(1 - 2c) would lose every digit of c = 1e-18."""
    params = jnp.array([1.0])
    opt = sania(preconditioner="identity")
    u, _ = opt.update(params, opt.init(params), params, value=1e-18)
    np.testing.assert_allclose(u, [-1e-18], rtol=1e-12)
    u, _ = opt.update(params, opt.init(params), params, value=-5.0)
    np.testing.assert_array_equal(u, [0.0])


def test_masked_out_leaves_do_not_move():
    mask = {"w": True, "b": False}
    got = run(sania(preconditioner="identity", trainable=mask), 3)
    np.testing.assert_array_equal(got["b"], np.broadcast_to(START["b"], (3, 4)))
    assert not np.allclose(got["w"][0], START["w"])


@pytest.mark.parametrize("build", [adahessian, oasis])
def test_overflowing_curvature_never_reaches_the_params(build):
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0])}
    grads = jax.tree.map(jnp.ones_like, params)
    diag = {"a": jnp.array([jnp.inf, 4.0]), "b": jnp.array([jnp.nan])}
    opt = build(0.1)
    state = opt.init(params)
    for _ in range(2):
        u, state = opt.update(
            grads, state, params, hessian_diag=diag, previous_grads=grads, value_fn=loss
        )
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((u, state)))
    assert float(jnp.max(jnp.abs(u["a"]))) < 0.1


@pytest.mark.parametrize("build", [adahessian, oasis])
def test_bad_closures_are_named(build):
    params = {"w": jnp.ones(3)}
    opt = build(0.1)
    with pytest.raises(ValueError, match="needs `value_fn`"):
        opt.update(params, opt.init(params), params)
    with pytest.raises(ValueError, match="value_fn must return a scalar loss"):
        opt.update(params, opt.init(params), params, value_fn=lambda p: p["w"])


def test_sophia_g_wants_logits():
    params = {"w": jnp.ones(3)}
    opt = sophia_g(0.1)
    with pytest.raises(ValueError, match="needs `logits_fn`"):
        opt.update(params, opt.init(params), params)
    with pytest.raises(ValueError, match="logits_fn must return one real array"):
        opt.update(params, opt.init(params), params, logits_fn=lambda p: jnp.sum(p["w"]))
    with pytest.raises(ValueError, match="mode='times'"):
        sophia_g(0.1, eps_mode="times")


def test_the_polyak_step_can_be_observed():
    params = jnp.array([1.0])
    opt = observe(sania(preconditioner="identity"), "polyak_step")
    _, state = opt.update(2 * params, opt.init(params), params, value=1.5)
    assert float(gradchain.observed(state)["polyak_step"]) == pytest.approx(0.5)
