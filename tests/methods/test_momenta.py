"""Momentum, clipping and prediction methods against the rules written down in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import eval_params, optimizers, transforms
from gradchain.schedules import ranger21_schedule, stage_decay

SHAPES = {"w": (4, 3), "k": (2, 3, 2), "b": (3,), "s": ()}
WITH_CONVOLUTION = {**SHAPES, "c": (2, 2, 3, 4)}
RATES = np.array([0.05, 0.04, 0.03, 0.02, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01, 0.02, 0.03])


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def schedule(count):
    return jnp.asarray(RATES)[count]


def trees(steps, shapes=SHAPES, seed=0):
    """Starting params and gradients, one tree per step."""
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    grads = [
        {name: rng.normal(size=shape) * 3.0 ** rng.normal() for name, shape in shapes.items()}
        for _ in range(steps)
    ]
    return params, grads


def run(opt, params, grads):
    """The params after each step, as NumPy trees."""
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *grads)

    def step(carry, g):
        params, state = carry
        updates, state = opt.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    @jax.jit
    def trained(params):
        return jax.lax.scan(step, (params, opt.init(params)), stacked)

    path = jax.tree.map(np.asarray, trained(jax.tree.map(jnp.asarray, params))[1])
    return [jax.tree.map(lambda x, t=t: x[t], path) for t in range(len(grads))]


def follows(opt, leaf_rule, steps=12, shapes=SHAPES, rtol=1e-10):
    """Compares with `leaf_rule(theta, gradients, state dict, t) -> theta`, leaf by leaf."""
    params, grads = trees(steps, shapes)
    path = run(opt, params, grads)
    for name in shapes:
        theta, memory = params[name], {}
        for t in range(1, steps + 1):
            theta = leaf_rule(theta, grads[t - 1][name], memory, t)
            np.testing.assert_allclose(
                path[t - 1][name], theta, rtol=rtol, atol=1e-13, err_msg=f"{name} {t}"
            )


# --- AdamP and SGDP ------------------------------------------------------------------------------


def projected(theta, g, u, delta, eps, wd_ratio, axis):
    if theta.ndim <= 1:
        return u, 1.0
    moved = [np.moveaxis(x, axis, 0) for x in (theta, g, u)]
    for rows in (theta.shape[axis], 1):
        th, gr, up = (x.reshape(rows, -1) for x in moved)
        norms = [np.maximum(np.linalg.norm(x, axis=1), eps) for x in (th, gr)]
        cosine = np.abs(np.sum(th * gr, axis=1)) / norms[0] / norms[1]
        if cosine.max() < delta / np.sqrt(th.shape[1]):
            q = th / (np.linalg.norm(th, axis=1, keepdims=True) + eps)
            out = up - q * np.sum(q * up, axis=1, keepdims=True)
            return np.moveaxis(out.reshape(moved[2].shape), 0, axis), wd_ratio
    return u, 1.0


@pytest.mark.parametrize(
    ("nesterov", "delta", "axis"),
    [(False, 1.5, 0), (True, 20.0, -1), (True, 0.3, 0), (False, 1.5, -1)],
)
def test_adamp(nesterov, delta, axis):
    b1, b2, eps, decay, ratio = 0.8, 0.95, 1e-3, 0.2, 0.3

    def rule(theta, g, past, t):
        m = past["m"] = b1 * past.get("m", 0) + (1 - b1) * g
        v = past["v"] = b2 * past.get("v", 0) + (1 - b2) * g**2
        u = (b1 * m + (1 - b1) * g if nesterov else m) / (np.sqrt(v) / np.sqrt(1 - b2**t) + eps)
        u, r = projected(theta, g, u, delta, eps, ratio, axis)
        rate = RATES[t - 1]
        return theta * (1 - rate * decay * r) - rate / (1 - b1**t) * u

    opt = optimizers.adamp(schedule, b1, b2, eps, decay, delta, ratio, nesterov, axis)
    follows(opt, rule)


@pytest.mark.parametrize(
    ("nesterov", "project_buffer", "axis"),
    [(False, True, 0), (False, False, -1), (True, True, -1)],
)
def test_sgdp(nesterov, project_buffer, axis):
    mu, dampening, eps, decay, ratio, delta = 0.7, 0.2, 1e-8, 0.2, 0.3, 1.5

    def rule(theta, g, past, t):
        b = past["b"] = mu * past.get("b", 0) + (1 - dampening) * g
        u, r = projected(theta, g, g + mu * b if nesterov else b, delta, eps, ratio, axis)
        if project_buffer and not nesterov:
            past["b"] = u
        rate = RATES[t - 1]
        return theta * (1 - rate * decay * r / (1 - mu)) - rate * u

    opt = optimizers.sgdp(
        schedule, mu, dampening, decay, nesterov, eps, delta, ratio, axis, project_buffer
    )
    follows(opt, rule)


def test_masked_leaves_of_adamp_do_not_decay():
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}
    opt = optimizers.adamp(0.1, weight_decay=0.5, delta=0.0, mask={"a": True, "b": False})
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = opt.update(zero, opt.init(params), params)
    np.testing.assert_allclose(updates["a"], -0.05)
    np.testing.assert_array_equal(updates["b"], 0)


def test_the_projected_update_is_orthogonal_to_every_channel():
    rng = np.random.default_rng(0)
    params, g = (jnp.asarray(rng.normal(size=(3, 4, 5))) for _ in range(2))
    made = transforms.flow(
        lambda g, params: transforms.shape.project_out_radial(params, g, g, 100.0, 0.0, -1)[0]
    )
    u, _ = made.update(g, made.init(params), params)
    np.testing.assert_allclose(jnp.sum(u * params, axis=(0, 1)), 0, atol=1e-12)
    assert not np.allclose(jnp.sum(u * params, axis=(1, 2)), 0)


# --- SPAM and Stable-SPAM ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "interval", "correction"), [(0.0, 4, True), (0.7, 0, False), (0.7, 4, True)]
)
def test_spam(threshold, interval, correction):
    b1, b2, eps, decay, warmup, wait = 0.8, 0.95, 1e-3, 0.2, 3, 2

    def rule(theta, g, past, t):
        q = past.get("q", warmup + 1)
        damping = 0.99 * (1 + np.cos(np.pi * q / (warmup + 1))) / 2 if q < warmup else 0
        m, v = past.get("m", 0 * g), past.get("v", 0 * g)
        if interval and t % interval == 0:
            m, v = 0 * g, 0 * g
        since = t % interval if interval else t
        if threshold and since >= wait:
            g = np.where(g**2 > threshold * v, np.sign(g) * np.sqrt(threshold * v), g)
        m = past["m"] = b1 * m + (1 - b1) * g
        v = past["v"] = b2 * v + (1 - b2) * g**2
        past["q"] = 0 if interval and (t + 1) % interval == 0 else q + 1
        scale = np.sqrt(1 - b2**t) / (1 - b1**t) if correction else 1
        rate = RATES[t - 1]
        theta = theta - rate * scale * (1 - damping) * m / (np.sqrt(v) + eps)
        return theta * (1 - rate * decay)

    opt = optimizers.spam(
        schedule,
        b1,
        b2,
        eps,
        decay,
        None,
        threshold,
        interval,
        warmup,
        wait,
        correction,
    )
    follows(opt, rule)


@pytest.mark.parametrize("mode", ["official", "clean"])
@pytest.mark.parametrize(
    ("interval", "amsgrad", "total"), [(0, False, 9), (1, False, None), (4, True, 9)]
)
def test_stable_spam(mode, interval, amsgrad, total):
    b1, b2, eps, decay, end = 0.8, 0.95, 1e-3, 0.2, 0.6
    gammas = (0.6, 0.8, 0.9)

    def rule(theta, g, past, t):
        rate = RATES[t - 1]
        scale = 1 if total is None else end + (1 - end) * (1 + np.cos(np.pi * t / (total + 1))) / 2
        theta = theta * (1 - rate * decay)
        c = past["c"] = past.get("c", 0) + 1
        largest = np.abs(g).max()
        x = past["x"] = gammas[2] * past.get("x", 0) + (1 - gammas[2]) * largest
        usual = x / (1 - gammas[2] ** c)
        g = np.where(np.abs(g) > usual, g / largest * usual, g)
        norm, a = np.sqrt(np.sum(g**2)), gammas[0] * scale
        n1 = past["n1"] = a * past.get("n1", 0) + (1 - a) * norm
        n2 = past["n2"] = gammas[1] * past.get("n2", 0) + (1 - gammas[1]) * norm**2
        if norm > 0:
            g = g / norm * (n1 / (1 - a**c)) / (np.sqrt(n2 / (1 - gammas[1] ** c)) + eps)
        beta, m, v = b1 * scale, past.get("m", 0 * g), past.get("v", 0 * g)
        reset = interval > 0 and t % interval == 0
        if mode == "clean":
            if reset:
                m, v, past["adam"] = 0 * g, 0 * g, 0
            adam = past["adam"] = past.get("adam", 0) + 1
        else:
            adam = past["c"] = 1 if reset else c
        m, v = beta * m + (1 - beta) * g, b2 * v + (1 - b2) * g**2
        y = past["y"] = np.maximum(past.get("y", 0), v) if amsgrad else v
        past["m"], past["v"] = (0 * g, 0 * g) if reset and mode == "official" else (m, v)
        root = np.sqrt(y) / np.sqrt(1 - b2**adam) + eps
        return theta - rate / (1 - beta**adam) * m / root

    opt = optimizers.stable_spam(
        schedule, b1, b2, eps, decay, None, *gammas, total, end, interval, amsgrad, mode
    )
    follows(opt, rule)


def test_clip_spikes_is_the_clipping_of_spam():
    params, grads = trees(8)
    wait, threshold, b2 = 3, 0.7, 0.9
    opt = optimizers.clipping.spikes.clip_spikes(threshold, b2, start=wait)
    state = opt.init(params)
    v = jax.tree.map(np.zeros_like, params)
    update = jax.jit(opt.update)
    for t, g in enumerate(grads, 1):
        out, state = update(g, state)
        for name in g:
            allowed = threshold * v[name]
            spike = (g[name] ** 2 > allowed) & (t >= wait)
            want = np.where(spike, np.sign(g[name]) * np.sqrt(allowed), g[name])
            np.testing.assert_allclose(out[name], want, rtol=1e-12)
            v[name] = b2 * v[name] + (1 - b2) * want**2


# --- Ranger21 ------------------------------------------------------------------------------------


def unit(x, axis):
    if x.ndim <= 1:
        return np.sqrt(np.sum(x**2))
    if x.ndim <= 3:
        along = 1 if axis == 0 else x.ndim - 2
    else:
        along = tuple(range(1, x.ndim)) if axis == 0 else tuple(range(x.ndim - 1))
    return np.sqrt(np.sum(x**2, axis=along, keepdims=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channel_axis": -1, "max_variance": True, "variance_offset": 1.0, "normalize": False},
        {"agc_clip": None, "softplus_beta": None, "sync_period": None, "noise_beta": 0.7},
        {"softplus_beta": 3.0, "pnm_beta": 0.6, "slow_step_size": 0.3, "sync_period": 3},
    ],
    ids=["defaults", "flax", "off", "settings"],
)
def test_ranger21(options):
    total, peak, b1, b2, eps, steps = 20, 0.1, 0.8, 0.9, 1e-6, 12
    decay, factor, agc_eps = 0.1, 0.2, 0.02
    clip = options.get("agc_clip", 0.05)
    beta = options.get("softplus_beta", 50.0)
    pnm, nb = options.get("pnm_beta", 1.0), options.get("noise_beta") or b2
    axis = options.get("channel_axis", 0)
    period = options.get("sync_period", 5)
    alpha = options.get("slow_step_size", 0.5)
    params, grads = trees(steps, WITH_CONVOLUTION)
    opt = optimizers.ranger21(
        peak,
        total,
        b1,
        b2,
        eps,
        weight_decay=decay,
        normloss_factor=factor,
        agc_eps=agc_eps,
        warmup_steps=4,
        warmdown_start=0.4,
        end_value=0.01,
        **{"agc_clip": clip, **options},
    )
    path = run(opt, params, grads)
    rate_of = ranger21_schedule(peak, total, b2, 4, warmdown_start=0.4, end_value=0.01)

    def prepared(g):
        if g.ndim > 1:
            axes = tuple(range(1, g.ndim)) if axis == 0 else tuple(range(g.ndim - 1))
            g = g - g.mean(axis=axes, keepdims=True)
        if options.get("normalize", True) and g.size > 2:
            g = g / (g.std(ddof=1) + 1e-8)
        return g

    x = dict(params)
    slow = dict(params)
    v = {n: 0 * p for n, p in x.items()}
    top, a, b = dict(v), dict(v), dict(v)
    size = sum(p.size for p in x.values())
    for t in range(1, steps + 1):
        rate = float(rate_of(t - 1))
        g = {}
        for n, raw in grads[t - 1].items():
            if clip is not None:
                allowed, norm = clip * np.maximum(unit(x[n], axis), agc_eps), unit(raw, axis)
                raw = np.where(norm > allowed, raw * allowed / np.maximum(norm, 1e-6), raw)
            g[n] = prepared(raw)
            v[n] = b2 * v[n] + (1 - b2) * g[n] ** 2
        offset = options.get("variance_offset", 0.0)
        typical = np.sqrt((offset + sum(np.sum(y) for y in v.values()) / (1 - b2**t)) / size)
        for n in x:
            theta = x[n] * (1 - decay * rate / typical)
            theta = theta * (1 - 2 * rate * factor * (1 - 1 / (unit(theta, axis) + eps)))
            again = prepared(g[n])
            cur, other = (a, b) if t % 2 else (b, a)
            cur[n] = b1**2 * cur[n] + (1 - b1**2) * again
            p = ((1 + pnm) * cur[n] - pnm * other[n]) / np.sqrt((1 + nb) ** 2 + nb**2)
            top[n] = np.maximum(top[n], v[n])
            root = np.sqrt((top if options.get("max_variance") else v)[n]) / np.sqrt(1 - b2**t)
            root = root + eps
            if beta is not None:
                soft = np.log1p(np.exp(np.minimum(beta * root, 50))) / beta
                root = np.where(beta * root > 20, root, soft)
            x[n] = theta - rate / (1 - b1**t) * p / root
            if period and t % period == 0:
                x[n] = slow[n] = alpha * x[n] + (1 - alpha) * slow[n]
            np.testing.assert_allclose(path[t - 1][n], x[n], rtol=1e-9, atol=1e-12)


def test_adaptive_grad_clip_with_channels_last_is_that_of_optax():
    params, grads = trees(1, {"w": (4, 3), "c": (2, 2, 3, 4), "b": (3,)})
    ours, theirs = (
        transforms.shape.adaptive_grad_clip(0.1, 1e-3),
        optax.adaptive_grad_clip(0.1, 1e-3),
    )
    got, _ = ours.update(grads[0], ours.init(params), params)
    want, _ = theirs.update(grads[0], theirs.init(params), params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), got, want)


def test_norm_loss_is_the_gradient_of_its_penalty():
    params, _ = trees(1, WITH_CONVOLUTION)

    def penalty(params):
        squares = jax.tree.map(
            lambda x: jnp.sum((1 - jnp.sqrt(jnp.sum(x**2, axis=_axes(x), keepdims=True))) ** 2),
            params,
        )
        return 0.3 * sum(jax.tree.leaves(squares))

    def _axes(x):
        return {0: None, 1: None, 2: 0, 3: 1}.get(x.ndim, tuple(range(x.ndim - 1)))

    opt = transforms.shape.norm_loss(0.3, eps=0.0)
    zero = jax.tree.map(np.zeros_like, params)
    got, want = jax.jit(lambda p: (opt.update(zero, (), p)[0], jax.grad(penalty)(p)))(params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), got, want)


def test_ranger21_at_zero_weights_and_gradients_stays():
    params = {"w": jnp.zeros((3, 3)), "b": jnp.zeros(3)}
    opt = optimizers.ranger21(0.1, total_steps=10)
    updates, _ = jax.jit(opt.update)(params, opt.init(params), params)
    jax.tree.map(lambda u: np.testing.assert_array_equal(u, 0), updates)


# --- momentum ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("momentum", "mu"), [(0.8, 0.0), (0.8, 2.0), (1.0, 2.0)])
def test_random_scaling_scales_the_step_and_not_the_buffer(momentum, mu):
    draws = np.random.default_rng(1).exponential(size=12)

    def rule(theta, g, past, t):
        rate = RATES[t - 1]
        d = past["d"] = momentum / (1 + rate * mu) * (past.get("d", 0) - rate * g)
        return theta + draws[t - 1] * d

    def sampler(key, count, params):
        return jnp.asarray(draws)[count]

    follows(optimizers.sgdm_random_scaling(schedule, momentum, mu, sampler=sampler), rule)


def test_random_scaling_draws_one_exponential_scalar_per_step():
    opt = optimizers.random_scaling(optax.identity(), key=3)
    ones = {"a": jnp.ones(2), "b": jnp.ones(())}

    def step(state, _):
        updates, state = opt.update(ones, state)
        return state, updates

    _, drawn = jax.lax.scan(step, opt.init(ones), length=4000)
    np.testing.assert_array_equal(drawn["a"][:, 0], drawn["b"])
    np.testing.assert_array_equal(drawn["a"][:, 0], drawn["a"][:, 1])
    assert abs(float(drawn["b"].mean()) - 1) < 0.08
    assert abs(float(drawn["b"].std()) - 1) < 0.12
    assert float(drawn["b"].min()) >= 0


@pytest.mark.parametrize(
    ("granularity", "nesterov", "axis"),
    [("tensor", True, 0), ("filter", False, 0), ("filter", True, -1), ("global", False, 0)],
)
def test_adaptive_braking(granularity, nesterov, axis):
    mu, rho, decay, steps = 0.8, 1.3, 0.1, 8
    params, grads = trees(steps)
    opt = optimizers.adaptive_braking(schedule, mu, rho, nesterov, decay, granularity, axis)
    path = run(opt, params, grads)
    x, v = dict(params), {n: 0 * p for n, p in params.items()}

    def total(tree_a, tree_b):
        return sum(np.sum(tree_a[n] * tree_b[n]) for n in tree_a)

    def sums(a, b):
        if granularity == "filter" and a.ndim > 1:
            axes = tuple(i for i in range(a.ndim) if i != axis % a.ndim)
            return np.sum(a * b, axis=axes, keepdims=True)
        return np.sum(a * b)

    for t in range(1, steps + 1):
        g = {n: grads[t - 1][n] + decay * x[n] for n in x}
        fixed = dict(v)
        for n in x:
            dot = total if granularity == "global" else (lambda p, q, n=n: sums(p[n], q[n]))
            norms = np.sqrt(dot(g, g)) * np.sqrt(dot(fixed, fixed))
            braked = (1 - rho * dot(g, fixed) / np.maximum(norms, 1e-8)) * g[n]
            v[n] = mu * v[n] + braked
            x[n] = x[n] - RATES[t - 1] * (braked + mu * v[n] if nesterov else v[n])
            np.testing.assert_allclose(path[t - 1][n], x[n], rtol=1e-10, atol=1e-13)


def test_brake_around_sgd_is_adaptive_braking():
    params, grads = trees(8)
    one = run(optimizers.adaptive_braking(0.05, 0.8, rho=0.7), params, grads)
    two = run(optimizers.brake(optax.sgd(0.05, 0.8), rho=0.7), params, grads)
    for a, b in zip(one, two, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), a, b)


def test_heavy_ball_step_decay_keeps_the_velocity_when_the_rate_drops():
    def rule(theta, g, past, t):
        rate = 0.1 * 3.0 ** -min((t - 1) // 4, 2)
        d = past["d"] = 0.7 * past.get("d", 0) - rate * g
        return theta + d

    opt = optimizers.heavy_ball_step_decay(0.1, 0.7, total_steps=12, num_stages=3, factor=3.0)
    follows(opt, rule)


def test_heavy_ball_step_decay_derives_its_defaults_from_the_condition_number():
    derived = optimizers.heavy_ball_step_decay(0.1, total_steps=12, condition_number=16.0)
    named = optimizers.stochastic_heavy_ball(stage_decay(0.1, 12, 6), 0.75**2)
    params, grads = trees(12)
    for a, b in zip(run(derived, params, grads), run(named, params, grads), strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), a, b)


@pytest.mark.parametrize("arguments", [{}, {"num_stages": 13}, {"condition_number": 0.5}])
def test_heavy_ball_step_decay_refuses_what_gives_no_stage(arguments):
    with pytest.raises(ValueError, match=r"num_stages|condition_number"):
        optimizers.heavy_ball_step_decay(0.1, total_steps=12, **arguments)


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rescale", [False, True])
def test_perpgrad(rescale):
    params, grads = trees(1)
    opt = optimizers.perpgrad(rescale)
    got, _ = opt.update(grads[0], opt.init(params), params)
    for name, g in grads[0].items():
        w = params[name]
        h = g - np.sum(w * g) / (np.sum(w * w) + 1e-30) * w
        if rescale:
            h = h * np.sqrt(np.sum(g * g)) / (np.sqrt(np.sum(h * h)) + 1e-30)
        want = g if name == "s" else h
        np.testing.assert_allclose(got[name], want, rtol=1e-9)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.55, 1.0])
@pytest.mark.parametrize(("scope", "scale"), [("global", 1.0), ("leaf", 0.5)])
def test_coordinate_clipping(fraction, scope, scale):
    _, (g,) = trees(1)
    opt = optimizers.coordinate_clipping(fraction, scale, scope)
    traced = jax.jit(lambda f, g: optimizers.coordinate_clipping(f, scale, scope).update(g, ())[0])
    got, _ = opt.update(g, opt.init(g))
    again = traced(fraction, g)

    def threshold(entries):
        falling = np.append(np.sort(np.abs(entries))[::-1], 0)
        return np.inf if fraction == 0 else scale * falling[int(entries.size * fraction)]

    everything = threshold(np.concatenate([x.ravel() for x in g.values()]))
    for name, x in g.items():
        tau = everything if scope == "global" else threshold(x.ravel())
        np.testing.assert_array_equal(got[name], np.clip(x, -tau, tau))
        np.testing.assert_array_equal(again[name], got[name])


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_clip_by_global_norm(max_norm, eps):
    _, (g,) = trees(1)
    norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
    opt = optimizers.clip_by_global_norm(max_norm, eps)
    got, _ = opt.update(g, opt.init(g))
    for name, x in g.items():
        np.testing.assert_allclose(got[name], x * min(1, max_norm / (norm + eps)), rtol=1e-12)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_delayed_gradients(steps):
    _, grads = trees(7)
    opt = transforms.accumulate.delay_gradients(steps)
    state = opt.init(grads[0])
    for t, g in enumerate(grads):
        out, state = opt.update(g, state)
        for name in g:
            want = grads[t - steps][name] if t >= steps else 0 * g[name]
            np.testing.assert_array_equal(out[name], want)


# --- weight prediction ---------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("s", [0, 2])
def test_xgrad_steps_from_the_true_weights(base, s):
    mu, dampening, b1, b2, eps, decay, steps = 0.8, 0.3, 0.7, 0.9, 1e-3, 0.2, 9
    opt = optimizers.xgrad(schedule, base, s, mu, dampening, b1, b2, eps, decay)
    params, _ = trees(1)
    rng = np.random.default_rng(2)
    bends = {name: rng.uniform(0.5, 2.0, size=x.shape) for name, x in params.items()}

    def gradient(x, bend):
        return bend * x + 0.3 * x**3

    ours, state = jax.tree.map(jnp.asarray, params), opt.init(params)
    update = jax.jit(opt.update)
    x, hat = dict(params), dict(params)
    z, m, v = ({n: 0 * p for n, p in params.items()} for _ in range(3))
    for t in range(1, steps + 1):
        g = {n: gradient(ours[n], bends[n]) for n in ours}
        updates, state = update(g, state, ours)
        ours = optax.apply_updates(ours, updates)
        true = eval_params(state, ours)
        rate, coming = RATES[t - 1], RATES[t]
        for n in x:
            g = gradient(hat[n], bends[n])
            if base == "sgd":
                z[n] = mu * z[n] + (1 - dampening) * (g + decay * x[n])
                d = z[n]
            else:
                m[n] = b1 * m[n] + (1 - b1) * g
                v[n] = b2 * v[n] + (1 - b2) * g**2
                d = m[n] / (1 - b1**t) / (np.sqrt(v[n]) / np.sqrt(1 - b2**t) + eps)
            x[n] = (x[n] * (1 - rate * decay) if base == "adamw" else x[n]) - rate * d
            hat[n] = x[n] - s * coming * d
            np.testing.assert_allclose(true[n], x[n], rtol=1e-10)
            np.testing.assert_allclose(ours[n], hat[n], rtol=1e-10)


def test_weight_prediction_shows_the_inner_optimizer_the_true_weights():
    params, _ = trees(1)
    inner = optax.chain(optax.trace(0.5), optax.add_decayed_weights(0.3), optax.scale(-0.1))
    opt = optimizers.weight_prediction(inner, prediction_steps=3)
    state, inner_state = opt.init(params), inner.init(params)
    x, hat = params, params
    for _ in range(4):
        g = jax.tree.map(lambda p: p + 0.5, hat)
        updates, state = opt.update(g, state, hat)
        step, inner_state = inner.update(g, inner_state, x)
        hat = optax.apply_updates(hat, updates)
        x = jax.tree.map(jnp.add, x, step)
        want = jax.tree.map(lambda a, u: a + 3 * u, x, step)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), hat, want)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), eval_params(state, hat), x
        )


# --- Polyak steps --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("mag", {"c": 0.3, "max_learning_rate": 1e-9}),
        ("smag", {"c": 0.7, "max_learning_rate": 0.02, "weight_decay": 0.3}),
        ("smag", {"max_learning_rate": schedule, "f_min": 3.5, "clamp": True}),
        ("hb", {"max_learning_rate": None, "smoothness": 20.0, "weight_decay": 0.3}),
        ("shb", {"c": 0.7, "max_learning_rate": 0.05, "f_min": 3.5}),
    ],
)
def test_polyak_momentum(variant, options):
    mu, decay = 0.7, options.get("weight_decay", 0.0)
    cap, c = options.get("max_learning_rate", 0.1), options.get("c", 1.0)
    values = np.array([5.0, 3.0, 4.0, 2.0, 6.0, 3.6])
    params, grads = trees(6)
    opt = optimizers.polyak_momentum(variant, mu, **options)
    state, ours = opt.init(params), jax.tree.map(jnp.asarray, params)
    update = jax.jit(opt.update)

    def flat(tree):
        return np.concatenate([np.ravel(tree[name]) for name in SHAPES])

    x, d, last = flat(params), 0.0, 0.0
    for t, value in enumerate(values, 1):
        updates, state = update(grads[t - 1], state, ours, value=value)
        ours = optax.apply_updates(ours, updates)
        g, gap = flat(grads[t - 1]), value - options.get("f_min", 0.0)
        if variant.endswith("mag"):
            d = mu * d + g
            rate = gap / ((1.0 if variant == "mag" else c) * np.sum(d * d))
        else:
            rate = (gap / c + mu * np.sum(g * last)) / np.sum(g * g)
            rate += 1 / (2 * options["smoothness"]) if "smoothness" in options else 0
        if options.get("clamp"):
            rate = max(rate, 0)
        if cap is not None and variant != "mag":
            rate = min(rate, RATES[t - 1] if callable(cap) else cap)
        step = -rate * d if variant.endswith("mag") else mu * last - rate * g
        last = step - rate * decay * x
        x = x + last
        np.testing.assert_allclose(flat(ours), x, rtol=1e-10, atol=1e-13)


def test_a_zero_gradient_makes_no_polyak_step():
    zero = jnp.zeros(3)
    for variant, smoothness in (("smag", None), ("hb", None), ("hb", 3.0)):
        opt = optimizers.polyak_momentum(variant, weight_decay=0.5, smoothness=smoothness)
        updates, _ = opt.update(zero, opt.init(zero), zero + 1, value=1.0)
        np.testing.assert_array_equal(updates, 0)
