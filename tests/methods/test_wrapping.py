"""Lookahead, schedule-free learning, weight interpolation, MARS, MoMo, Sophia-H."""

import itertools

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import (
    adam,
    lookahead,
    mars,
    mars_adamw,
    mars_lion,
    mars_shampoo,
    momentum_weight_interpolation,
    momo,
    schedule_free,
    schedule_free_adamw,
    schedule_free_radam,
    schedule_free_sgd,
    sgd,
    sophia_h,
)
from trajectories import assert_close, average, gradients, run, transcribed, tree

B1, B2, EPS = 0.7, 0.9, 1e-3
both = lambda state, params: (params, gradchain.eval_params(state, params))  # noqa: E731


@pytest.mark.parametrize("pullback", ["none", "reset", "pullback"])
@pytest.mark.parametrize("inner", [sgd, optax.sgd])
def test_lookahead(pullback, inner):
    def rule(t, g, x, memory):
        slow = memory.get("slow", x)
        b = 0.9 * memory.get("b", 0) + g
        new = x - 0.1 * b
        if t % 3 == 0:
            new = slow = slow + 0.6 * (new - slow)
            if pullback == "reset":
                b = 0 * b
            if pullback == "pullback":
                b = memory["cached"] = 0.6 * b + 0.4 * memory.get("cached", 0)
        memory.update(slow=slow, b=b)
        return new

    params, grads = tree(), gradients(10)
    opt = lookahead(inner(0.1, 0.9), 3, 0.6, pullback)
    assert_close(run(opt, params, grads), transcribed(rule, params, grads))


def test_lookahead_pulls_back_the_first_moment_alone():
    opt = lookahead(adam(0.1), 2, 0.5, "reset")
    params, grads = tree(), gradients(2)
    look = lambda state, params: {  # noqa: E731
        name: optax.tree.get(state, name) for name in ("mu", "nu")
    }
    for _, after in [run(opt, params, grads, look)]:
        assert not any(leaf.any() for leaf in jax.tree.leaves(after["mu"]))
        assert all(leaf.any() for leaf in jax.tree.leaves(after["nu"]))


def test_lookahead_without_momentum_to_pull_back():
    with pytest.raises(ValueError, match="no momentum"):
        lookahead(sgd(0.1), pullback_momentum="reset").init(jnp.zeros(1))


def test_lookahead_evaluates_at_the_slow_weights():
    params, grads = tree(), gradients(4)
    seen = run(lookahead(sgd(0.1), 3), params, grads, both)
    assert_close([slow for _, slow in seen[:2]], [params] * 2)
    assert_close([seen[2][1]], [seen[2][0]])
    assert not np.allclose(seen[3][0]["w"], seen[3][1]["w"])


def test_weight_interpolation():
    def rule(t, g, x, memory):
        memory["x"] = memory.get("x", x) - 0.1 * g
        return 0.8 * x + 0.2 * memory["x"] if t % 3 == 0 else x

    params, grads = tree(), gradients(8)
    opt = momentum_weight_interpolation(sgd(0.1), 0.8, 3)
    seen = run(opt, params, grads, both)
    assert_close([slow for _, slow in seen], transcribed(rule, params, grads))
    assert_close([fast for fast, _ in seen], run(sgd(0.1), params, grads))


def schedule_free_rule(direction, rate_of, b1, r, power, memory_of):
    """(y, x) by the three sequences, x and z stored."""

    def rule(t, g, y, memory):
        z, x = memory.get("z", y), memory.get("x", y)
        rate = rate_of(t)
        memory["max"] = max(memory.get("max", 0.0), rate)
        weight = t**r * memory["max"] ** power
        memory["sum"] = memory.get("sum", 0.0) + weight
        c = weight / memory["sum"] if memory["sum"] else 0.0
        z = z - rate * direction(t, g, y, z, memory)
        x = (1 - c) * x + c * z
        memory.update(z=z, x=x)
        memory_of.append(x)
        return b1 * x + (1 - b1) * z

    return rule


def check_schedule_free(opt, direction, rate_of, b1, r, power, steps=8):
    params, grads = tree(0, w=(4, 3)), gradients(steps, w=(4, 3))
    averages = []
    rule = schedule_free_rule(direction, rate_of, b1, r, power, averages)
    wanted = transcribed(rule, params, grads)
    seen = run(opt, params, grads, both)
    assert_close([y for y, _ in seen], wanted)
    assert_close([x for _, x in seen], [{"w": x} for x in averages], rtol=1e-8)


@pytest.mark.parametrize("b1", [0.9, 0.0])
@pytest.mark.parametrize(("r", "power"), [(0.0, 2.0), (1.5, 0.5)])
def test_schedule_free_sgd(b1, r, power):
    check_schedule_free(
        schedule_free_sgd(0.2, b1, 0.1, 4, r, power),
        lambda t, g, y, z, memory: g + 0.1 * y,
        lambda t: 0.2 * min(1, t / 4),
        b1,
        r,
        power,
    )


@pytest.mark.parametrize(("momentum", "at_z"), itertools.product([0.0, 0.6], [False, True]))
def test_schedule_free_adamw(momentum, at_z):
    def direction(t, g, y, z, memory):
        v = average(memory, "v", B2, g * g)
        m = average(memory, "m", momentum, g) / (1 - momentum**t)
        return m / (np.sqrt(v / (1 - B2**t)) + EPS) + 0.1 * (z if at_z else y)

    opt = schedule_free_adamw(0.2, 0.8, B2, EPS, 0.1, 3, 0.5, 1.0, momentum, at_z)
    check_schedule_free(opt, direction, lambda t: 0.2 * min(1, t / 3), 0.8, 0.5, 1.0)


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("power", [2.0, 0.0])
def test_schedule_free_radam(silent, power):
    def length(t):
        return 2 / (1 - B2) - 1 - 2 * t * B2**t / (1 - B2**t)

    def rate(t):
        n, n_inf = length(t), 2 / (1 - B2) - 1
        if n <= 4:
            return 0.0 if silent else 0.2
        return 0.2 * np.sqrt((n - 4) * (n - 2) * n_inf / ((n_inf - 4) * (n_inf - 2) * n))

    def direction(t, g, y, z, memory):
        v = average(memory, "v", B2, g * g)
        u = g / (np.sqrt(v / (1 - B2**t)) + EPS) if length(t) > 4 else g
        return u + 0.1 * y

    opt = schedule_free_radam(0.2, 0.8, B2, EPS, 0.1, 0.0, power, silent)
    check_schedule_free(opt, direction, rate, 0.8, 0.0, power)


def test_schedule_free_wrapper_is_optax_contrib():
    def rate(count):
        return 0.1 * jnp.minimum(1.0, (count + 1) / 3)

    params, grads = tree(), gradients(7)
    inner = optax.adamw(0.1, b1=0.0, weight_decay=0.1)
    theirs = optax.contrib.schedule_free(inner, lambda count: rate(count - 1), b1=0.9)
    ours = schedule_free(inner, rate)
    assert_close(run(ours, params, grads), run(theirs, params, grads), rtol=1e-6)


MARS_SHAPES = {"b": (3,), "k": (2, 2, 2), "w": (5, 3)}


def corrected(g, memory, gamma, previous):
    p = memory.get("p", 0 * g) if previous is None else previous
    memory["p"] = g
    c = g + gamma * B1 / (1 - B1) * (g - p)
    norm = np.sqrt(np.sum(c * c))
    return c / norm if norm > 1 else c


def adam_of(t, g, memory, b1, b2, amsgrad=False):
    m, v = average(memory, "m", b1, g), average(memory, "v", b2, g * g)
    if amsgrad:
        v = memory["x"] = np.maximum(memory.get("x", 0), v)
    return m / ((np.sqrt(v) / np.sqrt(1 - b2**t) + EPS) * (1 - b1**t))


def quintic(m, steps):
    x = m / (np.linalg.norm(m) + EPS)
    x = x.T if m.shape[0] > m.shape[1] else x
    for _ in range(steps):
        a = x @ x.T
        b = a @ x
        x = 3.4445 * x - 4.7750 * b + 2.0315 * a @ b
    return x.T if m.shape[0] > m.shape[1] else x


@pytest.mark.parametrize("kind", ["adamw", "adamw_amsgrad", "lion", "shampoo"])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("optimize_1d", [False, True])
def test_mars(kind, exact, optimize_1d):
    gamma = 0.3
    previous = gradients(6, seed=7, **MARS_SHAPES)

    def rate(count):
        return 0.2 / (1 + count)

    def rule(name):
        def of(t, g, x, memory):
            lr = 0.2 / t
            if x.ndim != 2 and not optimize_1d:
                u = adam_of(t, g, memory, 0.6, 0.8)
                return x - lr * 0.05 / 0.2 * (u + 0.4 * x)
            c = corrected(g, memory, gamma, previous[t - 1][name] if exact else None)
            if kind.startswith("adamw") or (kind == "shampoo" and x.ndim != 2):
                u = adam_of(t, c, memory, B1, B2, kind == "adamw_amsgrad")
            else:
                m = average(memory, "m", B1, c)
                factor = np.sqrt(max(1, x.shape[0] / x.shape[1])) if x.ndim == 2 else 1
                u = np.sign(m) if kind == "lion" else factor * quintic(m / (1 - B1), 3)
            return x - lr * (u + 0.1 * x)

        return of

    common = {
        "b1": B1,
        "eps": EPS,
        "weight_decay": 0.1,
        "gamma": gamma,
        "exact": exact,
        "optimize_1d": optimize_1d,
        "learning_rate_1d": 0.05,
        "b1_1d": 0.6,
        "b2_1d": 0.8,
        "weight_decay_1d": 0.4,
    }
    opt = {
        "adamw": lambda: mars_adamw(rate, b2=B2, **common),
        "adamw_amsgrad": lambda: mars_adamw(rate, b2=B2, amsgrad=True, **common),
        "lion": lambda: mars_lion(rate, **common),
        "shampoo": lambda: mars_shampoo(rate, b2=B2, ns_steps=3, **common),
    }[kind]()
    params, grads = tree(0, **MARS_SHAPES), gradients(6, **MARS_SHAPES)
    grads = [{k: v * (0.1 if t % 2 else 1) for k, v in g.items()} for t, g in enumerate(grads)]
    parts = [transcribed(rule(k), {k: params[k]}, grads) for k in MARS_SHAPES]
    wanted = [{k: v for part in at for k, v in part.items()} for at in zip(*parts, strict=True)]
    extras = {"previous_grads": jax.tree.map(lambda *x: np.stack(x), *previous)} if exact else {}
    assert_close(run(opt, params, grads, **extras), wanted)


def test_mars_shampoo_of_flax_kernels():
    torch_way = mars_shampoo(0.1)
    flax_way = mars_shampoo(0.1, output_axis=1)
    params, grads = tree(0, w=(5, 3)), gradients(3, w=(5, 3))
    turn = lambda tree: {"w": tree["w"].T}  # noqa: E731
    turned = run(flax_way, turn(params), [turn(g) for g in grads])
    assert_close([turn(x) for x in turned], run(torch_way, params, grads))


def test_mars_wraps_anything():
    params, grads = tree(), gradients(4)
    plain = run(optax.sgd(0.1), params, grads)
    assert_close(run(mars(optax.sgd(0.1), gamma=0.0, max_norm=None), params, grads), plain)
    assert not np.allclose(run(mars(optax.sgd(0.1)), params, grads)[-1]["w"], plain[-1]["w"])


@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_momo(adapt, correct, decay):
    beta, floor, lr = 0.8, -0.5, 0.7
    params, grads = tree(), gradients(10)
    values = np.random.default_rng(5).normal(size=10) ** 2 * 3 - 0.4
    dot = lambda a, b: sum(np.sum(a[k] * b[k]) for k in a)  # noqa: E731
    x, lb, wanted = dict(params), floor, []
    m = {k: 0 * v for k, v in params.items()}
    f = c = 0.0
    for t, (g, value) in enumerate(zip(grads, values, strict=True), start=1):
        if t == 1 and not correct:
            m, f, c = g, value, dot(g, x)
        rho = 1 - beta**t if correct else 1.0
        m = {k: beta * m[k] + (1 - beta) * g[k] for k in g}
        f, c = beta * f + (1 - beta) * value, beta * c + (1 - beta) * dot(g, x)
        a = 1 + lr * decay
        d, n = dot(m, x), dot(m, m)
        cap = a * f + d - a * c
        if adapt and cap < a * rho * lb:
            lb = max(cap / (2 * a * rho), floor)
        tau = min(lr / rho, max(a * (f - rho * lb) + d - a * c, 0) / n)
        if adapt:
            lb = max((f + d - c - tau * n / 2) / rho, floor)
        x = {k: (x[k] - tau * m[k]) / a for k in x}
        wanted.append(x)
    opt = momo(lr, beta, floor, decay, adapt, correct)
    assert_close(run(opt, params, grads, value=values), wanted)


def test_momo_rests_where_there_is_no_slope():
    params = tree()
    zeros = [{k: 0 * v for k, v in params.items()}] * 2
    assert_close(run(momo(), params, zeros, value=np.ones(2)), [params] * 2)


@pytest.mark.parametrize("refresh", ["before", "after"])
@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("interval", [1, 3])
def test_sophia_h(refresh, correct, interval):
    params, grads = tree(), gradients(8)
    diagonals = [{k: 30 * v for k, v in g.items()} for g in gradients(8, seed=9)]
    gamma, lr, decay, rho = 0.5, 0.1, 0.3, 0.6

    def rule(name):
        def of(t, g, x, memory):
            m = average(memory, "m", B1, g)
            h = memory.get("h", 0 * g)
            due = t % interval == (1 % interval if refresh == "before" else 0)
            new = B2 * h + (1 - B2) * diagonals[t - 1][name] if due else h
            memory["h"] = new
            mhat = m / (1 - B1**t) if correct else m
            d = mhat / np.maximum(gamma * (new if refresh == "before" else h), EPS)
            return x - lr * (np.clip(d, -rho, rho) + decay * x)

        return of

    parts = [transcribed(rule(k), {k: params[k]}, grads) for k in params]
    wanted = [{k: v for part in at for k, v in part.items()} for at in zip(*parts, strict=True)]
    opt = sophia_h(
        lr,
        B1,
        B2,
        EPS,
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
    _, state = opt.update(jax.grad(loss)(x), opt.init(x), x, value_fn=loss)
    h = optax.tree.get(state, "hessian")
    assert jnp.all(jnp.abs(h - jnp.diag(matrix)) < 1.5)
    assert jnp.all(h != jnp.diag(matrix))
