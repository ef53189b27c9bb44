"""Arguments that every recorded run leaves at rest (0, None, off), by transcriptions in NumPy."""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import federated
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf, falling, rate_at

pytestmark = pytest.mark.usefixtures("x64")

SHAPES = {"w": (4, 3), "u": (3, 5), "b": (3,)}
STEPS, RATE, DECAY = 4, 0.1, 0.3


def draw(seed, lead=(), shapes=SHAPES):
    """Normal entries, one leaf per shape."""
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=(*lead, *shape)) for k, shape in shapes.items()}


START = draw(0)
GRADS = [draw(1 + t) for t in range(STEPS)]


def walk(opt, start=START, grads=GRADS, extras=lambda t: {}, look=lambda state, params: params):
    """What `look` sees after each step."""
    opt = optax.with_extra_args_support(opt)
    params, state, seen = start, opt.init(start), []
    step = jax.jit(lambda g, s, p, extra: opt.update(g, s, p, **extra))
    for t, g in enumerate(grads):
        updates, state = step(g, state, params, extras(t))
        params = optax.apply_updates(params, updates)
        seen.append(jax.tree.map(np.asarray, look(state, params)))
    return seen


# --- where the decay of the weights enters -------------------------------------------------------

FAR = {"update_interval": 100, "prune_decay_steps": 100}
PRUNED = {"groups": [{"w": 0}], "pruning_steps": 4, "start_pruning_step": 100}
CRIC = {
    "groups": [{"w": 0}],
    "target_sparsity": 0.5,
    "start_cric_step": 100,
    "max_cycles": 1,
    "sampling_steps": 2,
    "hybrid_steps": 2,
}
ENTERS = {
    "in the gradient": {
        "adaptive_braking": {"nesterov": True},
        "hesso": {**PRUNED, "target_sparsity": 0.5, "momentum": 0.9, "dampening": 0.4},
        "hesso_cric": {**CRIC, "momentum": 0.9, "dampening": 0.4},
        "multi_momentum": {"num_clusters": 2},
        "sgd_hd": {"momentum": 0.9},
        "sparse_momentum": {**FAR, "init_mask": {k: v > -0.5 for k, v in START.items()}},
    },
    "beside it": {
        "micro_adam": {"density": 0.5, "window": 3},
    },
    "after it": {
        "apollo_mini": {"max_growth": None},
        "online_subspace_descent": {"rank": 2},
        "subspace_momentum": {"rank": 2},
    },
}
EXTRA = {"multi_momentum": {"cluster": jnp.asarray(1)}, "hesso_cric": {"value": jnp.asarray(1.0)}}
CASES = [(how, name) for how, names in ENTERS.items() for name in names]


@pytest.mark.parametrize(("how", "name"), CASES)
def test_where_the_decay_enters(how, name):
    """A decay is the same as none, with other gradients or with a share taken off the params."""
    given = ENTERS[how][name]
    extra = EXTRA.get(name, {})
    make = getattr(o, name)

    @jax.jit
    def step(opt_state, params, g):
        return make(RATE, **given).update(g, opt_state, params, **extra)

    params, state = START, make(RATE, **given).init(START)
    wanted = []
    for g in GRADS:
        fed = g if how != "in the gradient" else {k: g[k] + DECAY * params[k] for k in g}
        updates, state = step(state, params, fed)
        moved = optax.apply_updates(params, updates)
        if how == "beside it":
            moved = {k: x - RATE * DECAY * params[k] for k, x in moved.items()}
        elif how == "after it":
            moved = {k: x * (1 - RATE * DECAY) for k, x in moved.items()}
        params = jax.tree.map(np.asarray, moved)
        wanted.append(params)
    got = walk(make(RATE, weight_decay=DECAY, **given), extras=lambda t: extra)
    assert_close(got, wanted)
    assert not np.allclose(got[-1]["w"], walk(make(RATE, **given), extras=lambda t: extra)[-1]["w"])


def test_decay_and_clipping_of_a_worker_that_is_alone():
    opt = o.mo_nna(falling, 0, momentum=0.6, weight_decay=DECAY, gradient_clip=2.0)
    x, m, wanted = START, dict.fromkeys(START, 0.0), []
    for t, g in enumerate(GRADS, 1):
        size = np.sqrt(sum(np.sum(v**2) for v in g.values()))
        assert size > 2
        m = {k: 0.6 * m[k] + 0.4 * g[k] * 2 / size for k in x}
        x = {k: x[k] - rate_at(falling, t) * (m[k] + DECAY * x[k]) for k in x}
        wanted.append(x)
    assert_close(walk(opt), wanted)


def test_two_decays_of_global_sparse_momentum():
    opt = o.global_sparse_momentum(RATE, 1.0, 0.8, True, DECAY, decay_1d=0.05)
    wanted = {}
    for k, x in START.items():
        z, path = 0.0, []
        for g in GRADS:
            d = g[k] + (0.05 if k == "b" else DECAY) * x
            z = 0.8 * z + d
            x = x - RATE * (d + 0.8 * z)
            path.append(x)
        wanted[k] = path
    assert_close(walk(opt), [{k: wanted[k][t] for k in wanted} for t in range(STEPS)])


def test_the_decay_of_adamw_goes_with_a_scheduled_rate():
    opt = o.adamw(falling, weight_decay=DECAY, decouple_lr=True, base_learning_rate=0.2)

    def rule(x, gs):
        m = v = 0.0
        out = []
        for t, g in enumerate(gs, 1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            x = x - rate_at(falling, t) * (u + DECAY / 0.2 * x)
            out.append(x)
        return out

    assert_close(walk(opt), by_leaf(rule, START, GRADS))


# --- momenta -------------------------------------------------------------------------------------


def test_braking_by_channels_looks_ahead():
    def rule(axis):
        def path(x, gs):
            v, out = np.zeros_like(x), []
            for g in gs:
                rest = tuple(i for i in range(x.ndim) if i != axis % x.ndim) if x.ndim > 1 else None
                inner = np.sum(g * v, axis=rest, keepdims=True)
                sizes = [np.sqrt(np.sum(y**2, axis=rest, keepdims=True)) for y in (g, v)]
                braked = g * (1 - 0.7 * inner / np.maximum(sizes[0] * sizes[1], 0.5))
                v = 0.9 * v + braked
                x = x - RATE * (braked + 0.9 * v)
                out.append(x)
            return out

        return path

    for axis in (0, -1):
        settings = {"rho": 0.7, "nesterov": True, "granularity": "filter", "eps": 0.5}
        opt = o.adaptive_braking(RATE, channel_axis=axis, **settings)
        assert_close(walk(opt), by_leaf(rule(axis), START, GRADS))


def test_dampening():
    def damped(x, gs, first):
        m, out = None, []
        for g in gs:
            past = first(g) if m is None else m
            m = 0.9 * past + (1 - 0.4) * g
            x = x - RATE * m
            out.append(x)
        return out

    rsgd = o.rsgd(RATE, momentum=0.9, dampening=0.4)
    assert_close(walk(rsgd), by_leaf(damped, START, GRADS, first=lambda g: g))
    zeros = o.rsgd(RATE, momentum=0.9, dampening=0.4, momentum_init="zeros")
    assert_close(walk(zeros), by_leaf(damped, START, GRADS, first=lambda g: 0.0))
    xgrad = o.xgrad(RATE, "sgd", dampening=0.4)
    true = walk(xgrad, look=gradchain.eval_params)
    assert_close(true, by_leaf(damped, START, GRADS, first=lambda g: 0.0))

    def torch_dampened(x, gs):
        z, out = None, []
        for g in gs:
            z = g if z is None else 0.9 * z + (1 - 0.4) * g
            x = x - RATE * z
            out.append(x)
        return out

    hesso = o.hesso(RATE, target_sparsity=0.5, momentum=0.9, dampening=0.4, **PRUNED)
    assert_close(walk(hesso), by_leaf(torch_dampened, START, GRADS))
    cric = o.hesso_cric(RATE, momentum=0.9, dampening=0.4, **CRIC)
    path = walk(cric, extras=lambda t: EXTRA["hesso_cric"])
    assert_close(path, by_leaf(torch_dampened, START, GRADS))


def test_inner_momentum_of_schedule_free_adamw():
    beta, b1, b2, eps = 0.7, 0.9, 0.95, 1e-3

    def rule(x, gs):
        y = z = average = x
        m = v = 0.0
        out = []
        for t, g in enumerate(gs, 1):
            m, v = beta * m + (1 - beta) * g, b2 * v + (1 - b2) * g**2
            u = m / (1 - beta**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            z = z - RATE * (u + DECAY * y)
            average = average + (z - average) / t
            y = b1 * average + (1 - b1) * z
            out.append(y)
        return out

    opt = o.schedule_free_adamw(
        RATE, b1=b1, b2=b2, eps=eps, inner_momentum=beta, weight_decay=DECAY
    )
    assert_close(walk(opt), by_leaf(rule, START, GRADS))


@pytest.mark.parametrize("base", ["sgd", "sgdm", "igt"])
def test_bases_of_multi_momentum(base):
    clusters, shares = [0, 1, 0, 0], np.array([0.7, 0.3])

    def rule(x, gs):
        memories, b, a, out = np.zeros((2, *x.shape)), 0.0, 0.0, []
        weights = x
        for t, (g, c) in enumerate(zip(gs, clusters, strict=True), 1):
            v = g - memories[c] + np.tensordot(shares, memories, 1)
            memories[c] = 0.6 * memories[c] + 0.4 * g
            a = ((t - 1) * a + v) / t
            b = (0.0 if base == "sgd" else 0.8) * b + (a if base == "igt" else v)
            weights = weights - RATE * b
            out.append(weights - t * RATE * b if base == "igt" else weights)
        return out

    opt = o.multi_momentum(RATE, 2, tuple(shares), decay=0.6, base=base, momentum=0.8)
    got = walk(opt, extras=lambda t: {"cluster": jnp.asarray(clusters[t])})
    assert_close(got, by_leaf(rule, START, GRADS))


@pytest.mark.parametrize("activation", [0.2, 0.5])
def test_activation_of_delayed_nesterov(activation):
    """Of the momentum's step in two, each step gets a share; the rest comes when it is due."""

    def rule(x, gs):
        m, buffer, out = 0.0, 0.0, []
        for t, g in enumerate(gs, 1):
            buffer = buffer + g
            if t % 2 == 0:
                m = 0.9 * m + buffer / 2
                share, buffer = 1 - 2 * activation + activation, 0.0
            else:
                share = activation
            x = x - RATE * (g / 2 + share * 0.9 * m)
            out.append(x)
        return out

    opt = o.delayed_nesterov(RATE, buffer_size=2, activation=activation)
    assert_close(walk(opt), by_leaf(rule, START, GRADS))


def test_private_sgd_with_noise_and_plain_momentum():
    batch = [draw(20 + t, (5,)) for t in range(STEPS)]
    noise = [draw(40 + t) for t in range(STEPS)]
    table = jax.tree.map(lambda *x: jnp.stack(x), *noise)
    opt = o.dp_sgd(
        RATE,
        l2_norm_clip=1.5,
        noise_multiplier=0.8,
        momentum=0.7,
        weight_decay=DECAY,
        noise_fn=lambda key, count, params: jax.tree.map(lambda x: x[count], table),
    )
    x, m, wanted = START, dict.fromkeys(START, 0.0), []
    for g, xi in zip(batch, noise, strict=True):
        sizes = np.sqrt(sum(np.sum(v**2, axis=tuple(range(1, v.ndim))) for v in g.values()))
        factors = np.minimum(1, 1.5 / sizes)
        for k in m:
            mean = (np.tensordot(factors, g[k], 1) + 0.8 * 1.5 * xi[k]) / 5
            m[k] = 0.7 * m[k] + mean + DECAY * x[k]
        x = {k: x[k] - RATE * m[k] for k in x}
        wanted.append(x)
    assert_close(walk(opt, grads=batch), wanted)


# --- corrections that are on by default, or off --------------------------------------------------


def test_bias_correction_off_and_on():
    """At vectors these are Adam, with eps before the correction, which may be left out."""

    def adam(x, gs, corrects, eps):
        m = v = 0.0
        out = []
        for t, g in enumerate(gs, 1):
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
            c1, c2 = (1 - 0.9**t, 1 - 0.95**t) if corrects else (1, 1)
            x = x - RATE * m / c1 / ((np.sqrt(v) + eps) / np.sqrt(c2))
            out.append(x)
        return out

    names = {"b": (3,), "c": (2,)}
    start, grads = draw(0, (), names), [draw(t, (), names) for t in range(1, 4)]
    same = {"b1": 0.9, "b2": 0.95, "eps": 0.02}
    for corrects in (True, False):
        wanted = by_leaf(adam, start, grads, corrects=corrects, eps=0.02)
        for opt in (
            o.subset_norm(RATE, bias_correction=corrects, **same),
            o.subspace_momentum(RATE, 2, bias_correction=corrects, **same),
        ):
            assert_close(walk(opt, start, grads), wanted)


@pytest.mark.parametrize("name", ["riemannian_adam", "riemannian_amsgrad"])
def test_riemannian_moments_without_correction(name):
    """In flat space, where a leaf has one second moment for each entry."""

    def rule(x, gs):
        m = v = top = 0.0
        out = []
        for g in gs:
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
            top = np.maximum(top, v) if name.endswith("amsgrad") else v
            x = x - RATE * m / (np.sqrt(top) + 0.02)
            out.append(x)
        return out

    opt = getattr(o, name)(RATE, b2=0.95, eps=0.02, bias_correction=False)
    assert_close(walk(opt), by_leaf(rule, START, GRADS))


@pytest.mark.parametrize("second_moment", ["full", "none"])
def test_subspace_momentum_with_other_second_moments(second_moment):
    """The rank is whole here, so that the momentum is that of all entries."""

    def rule(x, gs):
        m = v = 0.0
        out = []
        for t, g in enumerate(gs, 1):
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
            if second_moment == "none":
                u = m
            else:
                u = m / (1 - 0.9**t) / ((np.sqrt(v) + 0.02) / np.sqrt(1 - 0.95**t))
            x = x - RATE * u
            out.append(x)
        return out

    opt = o.subspace_momentum(RATE, 3, second_moment=second_moment, b2=0.95, eps=0.02)
    assert_close(walk(opt), by_leaf(rule, START, GRADS))


# --- bounds that are tiny by default -------------------------------------------------------------


def adam_of(x, gs, eps, before):
    """Adam, eps added before the correction of the second moment or after it."""
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        correction = np.sqrt(1 - 0.95**t)
        root = (np.sqrt(v) + eps) / correction if before else np.sqrt(v) / correction + eps
        yield m / (1 - 0.9**t) / root


def summed(x, gs):
    v, out = 0.0, []
    for g in gs:
        v = v + g**2
        x = x - RATE * g / (np.sqrt(v) + 0.3)
        out.append(x)
    return out


def turning(x, gs):
    """A momentum that turns in the complex plane."""
    m, v, out = 0j, 0.0, []
    for t, g in enumerate(gs, 1):
        m, v = 0.9 * np.exp(0.4j) * m + g, 0.95 * v + 0.05 * g**2
        x = x - RATE * m.real / (np.sqrt(v / (1 - 0.95**t)) + 0.3)
        out.append(x)
    return out


def by_first_ratio(x, gs):
    ratio = np.linalg.norm(gs[0]) / (np.std(gs[0], ddof=1) + 0.3)
    m, out = gs[0], []
    for t, g in enumerate(gs):
        m = m if t == 0 else 0.9 * m + 0.1 * g
        x = x - RATE * (ratio * m + DECAY * x)
        out.append(x)
    return out


def perpendicular(x, gs):
    out = []
    for g in gs:
        h = g - np.sum(x * g) / (np.sum(x * x) + 0.3) * x
        x = x - RATE * h * np.linalg.norm(g) / (np.linalg.norm(h) + 0.3)
        out.append(x)
    return out


def stepping(x, gs):
    out = []
    for u in adam_of(x, gs, 0.3, before=False):
        x = x - RATE * u
        out.append(x)
    return out


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: o.riemannian_adagrad(RATE, eps=0.3), summed),
        (lambda: o.complex_adam(RATE, phase=0.4, b2=0.95, eps=0.3), turning),
        (lambda: o.sgd_sai(RATE, eps=0.3, weight_decay=DECAY), by_first_ratio),
        (lambda: optax.chain(o.perpgrad(eps=0.3), optax.sgd(RATE)), perpendicular),
        (lambda: o.m_config(RATE, 1, b2=0.95, eps=0.3), stepping),
        (lambda: o.micro_adam(RATE, 9, 1.0, b2=0.95, eps=0.3, value_dtype=None), stepping),
    ],
    ids=lambda x: getattr(x, "__name__", "made"),
)
def test_a_large_eps(make, rule):
    assert_close(walk(make()), by_leaf(rule, START, GRADS), 1e-9)


def test_a_large_eps_of_adagrad_norm():
    x, total, wanted = START, 0.2, []
    for g in GRADS:
        total = total + sum(np.sum(v**2) for v in g.values())
        x = {k: x[k] - RATE * g[k] / (np.sqrt(total) + 0.3) for k in x}
        wanted.append(x)
    assert_close(walk(o.adagrad_norm(RATE, 0.2, eps=0.3)), wanted)


def test_a_large_eps_of_adam_with_its_hypergradient():
    steps = {k: list(adam_of(START[k], [g[k] for g in GRADS], 0.3, before=True)) for k in START}
    x, rate, wanted = START, RATE, []
    for t, g in enumerate(GRADS):
        if t:
            rate = rate + 1e-2 * sum(np.sum(g[k] * steps[k][t - 1]) for k in x)
        x = {k: x[k] - rate * steps[k][t] for k in x}
        wanted.append(x)
    opt = o.adam_hd(RATE, hypergrad_learning_rate=1e-2, b2=0.95, eps=0.3)
    assert_close(walk(opt), wanted)


@pytest.mark.parametrize("name", ["c_adamw", "cautious"])
def test_the_least_share_of_entries_that_agree(name):
    def rule(x, gs):
        out = []
        for g, u in zip(gs, adam_of(x, gs, 1e-12, before=False), strict=True):
            agrees = u * g > 0
            scaled = u * agrees / max(np.mean(agrees), 0.9)
            x = x - RATE * scaled
            out.append(x)
        return out

    adam = o.adam(RATE, b2=0.95, eps=1e-12)
    opt = (
        o.cautious(adam, "mean", min_mean=0.9)
        if name == "cautious"
        else o.c_adamw(RATE, b2=0.95, eps=1e-12, min_mean=0.9)
    )
    assert_close(walk(opt), by_leaf(rule, START, GRADS), 1e-6)


# --- losses and slopes ---------------------------------------------------------------------------

SIZES = {k: np.abs(x) + 0.5 for k, x in draw(3).items()}
DIRECTIONS = [draw(60 + t) for t in range(STEPS)]
TABLE = jax.tree.map(lambda *x: np.stack(x[:1] + x), *DIRECTIONS)
"""By the count of updates, which is 1 at the first."""


def loss(params):
    return sum(jnp.sum(SIZES[k] * x**2) / 2 for k, x in params.items())


def value(params):
    return float(sum(np.sum(SIZES[k] * x**2) / 2 for k, x in params.items()))


def recorded(key, count, params):
    return jax.tree.map(lambda x: jnp.asarray(x)[count], TABLE)


def of_the_loss(opt):
    """Params after each step; the gradient, where it is wanted, is that of the loss."""

    @jax.jit
    def step(state, params):
        grads = jax.grad(loss)(params)
        updates, state = opt.update(
            grads, state, params, value_fn=loss, value=loss(params), grad_fn=jax.grad(loss)
        )
        return optax.apply_updates(params, updates), state

    opt = optax.with_extra_args_support(opt)
    params, state, seen = START, opt.init(START), []
    for _ in range(STEPS):
        params, state = step(state, params)
        seen.append(jax.tree.map(np.asarray, params))
    return seen


def shifted(params, direction, scale):
    return {k: params[k] + scale * direction[k] for k in params}


def slope(params, direction, eps, one_sided=False):
    """The difference of two losses along a direction."""
    ahead = value(shifted(params, direction, eps))
    if one_sided:
        return (ahead - value(params)) / eps
    return (ahead - value(shifted(params, direction, -eps))) / (2 * eps)


@pytest.mark.parametrize("one_sided", [False, True])
def test_momentum_and_decay_of_zo_sgd(one_sided):
    x, m, wanted = START, dict.fromkeys(START, 0.0), []
    for z in DIRECTIONS:
        c = slope(x, z, 0.1, one_sided)
        m = {k: 0.6 * m[k] + c * z[k] for k in x}
        x = {k: x[k] - 0.01 * (m[k] + DECAY * x[k]) for k in x}
        wanted.append(x)
    settings = {"momentum": 0.6, "weight_decay": DECAY, "one_sided": one_sided}
    assert_close(of_the_loss(o.zo_sgd(0.01, 0.1, sampler=recorded, **settings)), wanted, 1e-9)


def test_signs_of_entries():
    x, wanted = START, []
    for z in DIRECTIONS:
        c = slope(x, z, 0.1)
        x = {k: x[k] - 0.01 * np.sign(c * z[k]) for k in x}
        wanted.append(x)
    opt = o.zo_sign_sgd(0.01, 0.1, elementwise=True, sampler=recorded)
    assert_close(of_the_loss(opt), wanted, 1e-9)


def test_blocks_one_after_the_other():
    x, wanted = START, []
    for z in DIRECTIONS:
        for block in sorted(x):
            own = {k: z[k] * (k == block) for k in x}
            c = slope(x, own, 0.1)
            x = {k: x[k] - 0.01 * c * own[k] for k in x}
        wanted.append(x)
    opt = o.zo_block_coordinate(0.01, 0.1, sampler=recorded)
    assert_close(of_the_loss(opt), wanted, 1e-9)


def test_mixed_probes_of_zo_adamu():
    a, b1, b2, eps, mix = 0.6, 0.7, 0.4, 1e-3, 0.1
    other = [draw(90 + t) for t in range(STEPS)]
    current = jax.tree.map(lambda *x: np.stack(x[:1] + x), *other)
    tables = jax.tree.map(jnp.asarray, {"history": TABLE, "current": current})
    x, h, wanted = START, dict.fromkeys(START, 0.0), []
    for e_h, e_c in zip(DIRECTIONS, other, strict=True):
        z_h = {k: h[k] + np.sqrt(1 - a) * e_h[k] for k in x}
        z_c = {k: np.sqrt(a) * e_c[k] for k in x}
        m = {k: b1 * z_c[k] + (1 - b1) * z_h[k] for k in x}
        v = {k: b2 * z_c[k] ** 2 + (1 - b2) * z_h[k] ** 2 for k in x}
        c = slope(x, {k: mix * z_c[k] + (1 - mix) * z_h[k] for k in x}, 0.1)
        x = {k: x[k] - 0.01 * (c * m[k] / np.sqrt(v[k] + eps) + DECAY * x[k]) for k in x}
        h = {k: np.sign(c) * m[k] for k in x}
        wanted.append(x)
    opt = o.zo_adamu(
        0.01, 0.1, a, b1, b2, eps, mix, DECAY,
        sampler=lambda key, count, p: jax.tree.map(lambda x: x[count], tables),
    )  # fmt: skip
    assert_close(of_the_loss(opt), wanted, 1e-9)


def test_momentum_and_decay_of_oasis():
    """Random signs make the diagonal of a quadratic exact."""

    def rule(x, sizes):
        d, out = 0.0, []
        for _ in range(STEPS):
            d = 0.7 * d + 0.3 * sizes * x
            x = x - RATE * (d / np.maximum(sizes, 0.8) + DECAY * x)
            out.append(x)
        return out

    runs = {k: rule(START[k], SIZES[k]) for k in START}
    opt = o.oasis(RATE, alpha=0.8, adaptive=False, momentum=0.7, weight_decay=DECAY)
    assert_close(of_the_loss(opt), [{k: runs[k][t] for k in runs} for t in range(STEPS)])


def test_the_lowest_loss_of_sania():
    """Far above the lowest loss a step is whole; near it Polyak's step is shorter."""
    lowest, eps = 0.8 * value(START), 0.1
    x, s, wanted, lengths = START, dict.fromkeys(START, 0.0), [], []
    for _ in range(STEPS):
        g = {k: SIZES[k] * x[k] for k in x}
        s = {k: s[k] + g[k] ** 2 for k in x}
        p = {k: g[k] / np.maximum(s[k], eps) for k in x}
        total = sum(np.sum(p[k] * g[k]) for k in x)
        c = max(value(x) - lowest, 0) / total
        lengths.append(1 - np.sqrt(1 - 2 * c) if 2 * c < 1 else 1.0)
        x = {k: x[k] - 0.2 * lengths[-1] * p[k] for k in x}
        wanted.append(x)
    assert min(lengths) < 1
    opt = o.sania(0.2, "adagrad_sq", eps=eps, f_star=lowest)
    assert_close(of_the_loss(opt), wanted, 1e-9)


def test_an_ascent_that_eps_shortens():
    x, wanted = START, []
    for _ in range(STEPS):
        g = {k: SIZES[k] * x[k] for k in x}
        length = np.sqrt(sum(np.sum(v**2) for v in g.values())) + 0.7
        x = {k: x[k] - RATE * SIZES[k] * (x[k] + 0.2 * g[k] / length) for k in x}
        wanted.append(x)
    assert_close(of_the_loss(o.sam(optax.sgd(RATE), 0.2, eps=0.7)), wanted)


def test_the_rate_of_the_extrapolation():
    x, wanted = START, []
    for _ in range(STEPS):
        half = {k: x[k] - 0.3 * SIZES[k] * x[k] for k in x}
        x = {k: x[k] - RATE * SIZES[k] * half[k] for k in x}
        wanted.append(x)
    assert_close(of_the_loss(o.extragradient(RATE, extrapolation_rate=0.3)), wanted)


# --- subspaces -----------------------------------------------------------------------------------


def test_a_basis_is_pulled_towards_orthonormality():
    """The penalty is the only thing that moves a basis whose gradient is inside it."""
    lam, gamma = 0.7, 5
    start = {"w": draw(0)["w"] @ np.ones((3, 1)) @ np.ones((1, 3))}  # 4 by 3, of rank 1
    grads = [{"w": draw(t)["w"]} for t in range(1, 4)]
    opt = o.online_subspace_descent(
        RATE, rank=1, update_interval=gamma, base="sgd", projection_optimizer="sgd",
        orthogonality_penalty=lam,
    )  # fmt: skip
    x, q, wanted = start["w"], None, []
    for g in (grad["w"] for grad in grads):
        if q is None:  # the longer side is down: the rows of V^H span
            q, moved = np.linalg.svd(g)[2][:1], 0.0
        else:
            n = g / np.linalg.norm(g)
            s = q.T @ q
            m = 2 * n.T @ (n @ s - n) + 2 * lam * (s - np.eye(3))
            moved = q @ (m + m.T)
        x = x - RATE * g @ q.T @ q
        q = q - moved / gamma
        wanted.append({"w": x})
    assert_close(walk(opt, start, grads), wanted, 1e-9)


@pytest.mark.parametrize("resets", [True, False])
def test_moments_of_grass_through_a_change_of_slices(resets):
    """All slices are chosen, in an order that changes with the norms."""
    shapes = {"w": (4, 4)}
    start, grads = draw(0, (), shapes), [draw(t, (), shapes) for t in range(1, 5)]
    opt = o.grass(RATE, rank=2, update_interval=2, scale=0.5, reset_state=resets, eps=0.02)
    x, m, v, count, rows, wanted = start["w"], 0.0, 0.0, 0, None, []
    for t, g in enumerate((grad["w"] for grad in grads), 1):
        if (t - 1) % 2 == 0:
            chosen = np.sort(np.argsort(-np.linalg.norm(g, axis=1), kind="stable")[:2])
            if rows is not None and resets:
                m, v, count = 0.0, 0.0, 0
            rows = chosen
        count += 1
        part = g[rows]
        m, v = 0.9 * m + 0.1 * part, 0.999 * v + 0.001 * part**2
        moved = np.zeros_like(x)
        moved[rows] = m / (1 - 0.9**count) / (np.sqrt(v / (1 - 0.999**count)) + 0.02)
        x = x - RATE * 0.5 * moved
        wanted.append({"w": x})
    assert_close(walk(opt, start, grads), wanted, 1e-9)


def test_the_inner_state_of_a_round_may_start_anew():
    """Rounds of two steps, of one worker: its Adam counts from 1 again."""

    def rule(x, gs):
        begun, trace, out = x, 0.0, []
        for t, g in enumerate(gs):
            if t % 2 == 0:
                m = v = 0.0
            k = t % 2 + 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            x = x - RATE * m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
            if k == 2:
                outer = begun - x
                trace = 0.9 * trace + outer
                begun = x = begun - 0.7 * (outer + 0.9 * trace)
            out.append(x)
        return out

    opt = o.local_sgd(optax.adam(RATE), 2, reset_inner_state=True)
    assert_close(walk(opt), by_leaf(rule, START, GRADS))


# --- clients and a server ------------------------------------------------------------------------

CLIENTS, LOCAL = 3, 2
CURVES, CENTRES = draw(5, (CLIENTS,)), draw(6, (CLIENTS,))
PRESENT = np.array([[0, 1], [1, 2], [0, 2]])


def pull(params, client, turn=0, step=0):
    """A quadratic of the client, with its own noise in each step."""
    return {
        k: (0.5 + CURVES[k][client] ** 2) * (params[k] - CENTRES[k][client])
        + 0.1 * (turn + 1) * (step + 1)
        for k in params
    }


def rounds_of(method, there=PRESENT):
    def gradient(params, client, turn, step):
        curves, centres = (jax.tree.map(jnp.asarray, x) for x in (CURVES, CENTRES))
        return {
            k: (0.5 + curves[k][client] ** 2) * (params[k] - centres[k][client])
            + 0.1 * (turn + 1) * (step + 1)
            for k in params
        }

    run = federated.simulate(
        method,
        jax.tree.map(jnp.asarray, START),
        gradient,
        there,
        num_clients=CLIENTS,
        local_steps=np.full(there.shape, LOCAL),
        record=lambda params, state: params,
    )
    return [jax.tree.map(lambda x, r=r: np.asarray(x[r]), run.recorded) for r in range(len(there))]


def plus(*terms):
    """The sum of trees, each times its number."""
    return {k: sum(a * tree[k] for a, tree in terms) for k in START}


ZERO = {k: np.zeros_like(x) for k, x in START.items()}


def test_anarchic_clients_of_a_silo():
    """The server keeps the last upload of every client; those that never came count as zero."""
    x, uploads, wanted = START, [ZERO] * CLIENTS, []
    for turn, present in enumerate(PRESENT):
        for client in present:
            y = x
            for step in range(LOCAL):
                y = plus((1, y), (-0.05, pull(y, client, turn, step)))
            uploads[client] = plus((1 / LOCAL, x), (-1 / LOCAL, y))
        x = plus((1, x), *((-2.0 / 4, upload) for upload in uploads))
        wanted.append(x)
    got = rounds_of(o.anarchic_fedavg(0.05, 2.0, cross_silo=True, num_clients=4))
    assert_close(got, wanted)


@pytest.mark.parametrize("name", ["fedavg_momentum", "scaffold_momentum"])
def test_momentum_of_clients_with_less_variance(name):
    """STORM: the gradient at the last params is taken of the same batch."""
    beta, eta, gamma = 0.3, 0.05, 0.2
    x = last = START
    g, control, controls, wanted = ZERO, ZERO, [ZERO] * CLIENTS, []
    for turn, present in enumerate(PRESENT):
        directions, changes = [], ZERO
        for client in present:
            y, raw = x, ZERO
            for step in range(LOCAL):
                now, then = pull(y, client, turn, step), pull(last, client, turn, step)
                d = plus((1, now), (1 - beta, g), (-(1 - beta), then))
                if name.startswith("scaffold"):
                    d = plus((1, d), (beta, control), (-beta, controls[client]))
                y, raw = plus((1, y), (-eta, d)), plus((1, raw), (1, now))
            directions.append(plus((1 / eta / LOCAL, x), (-1 / eta / LOCAL, y)))
            changes = plus((1, changes), (1 / LOCAL, raw), (-1, controls[client]))
            controls[client] = plus((1 / LOCAL, raw))
        last, g = x, plus(*((1 / len(present), d) for d in directions))
        control = plus((1, control), (1 / CLIENTS, changes))
        x = plus((1, x), (-gamma, g))
        wanted.append(x)
    make = getattr(o, name)
    got = rounds_of(make(eta, gamma, beta, num_local_steps=LOCAL, variance_reduced=True))
    assert_close(got, wanted)


def test_fedspeed_as_the_paper_has_it():
    """The ascent is as long as the gradient, and the server adds the duals of those that came."""
    eta, prox, rho, alpha, decay, bound = 0.05, 0.2, 0.3, 0.8, 0.01, 1.5
    x, duals, wanted = START, [ZERO] * CLIENTS, []

    def size(tree):
        return np.sqrt(sum(np.sum(v**2) for v in tree.values()))

    for turn, present in enumerate(PRESENT):
        rate, ends = eta * 0.9**turn, []
        for client in present:
            y = x
            for step in range(LOCAL):
                first = pull(y, client, turn, step)
                second = pull(plus((1, y), (rho, first)), client, turn, step)
                q = plus((1 - alpha, first), (alpha, second), (prox, duals[client]), (-prox, x))
                q = plus((min(1, bound / (size(q) + 1e-6)), q))
                y = plus((1, y), (-rate, q), (-rate * (decay + prox), y))
            duals[client] = plus((1, duals[client]), (1, y), (-1, x))
            ends.append(plus((1, y), (1, duals[client])))
        x = plus(*((1 / len(present), end) for end in ends))
        wanted.append(x)
    got = rounds_of(
        o.fedspeed(
            eta, prox, rho, alpha, decay, bound, num_local_steps=LOCAL, round_decay=0.9,
            normalize=False, server_dual="active",
        )
    )  # fmt: skip
    assert_close(got, wanted)


def test_rounds_without_a_client_count_up_to_a_cutoff():
    """A client that stays away has an interval after two rounds; the weight is their mean."""
    there = np.array([[0, 1], [0, 1], [0, 1], [2, 0], [2, 1]])
    since, counted, weights = np.zeros(3), np.zeros(3), np.ones(3)
    x, wanted = START, []
    for turn, present in enumerate(there):
        moved = ZERO
        for client in present:
            y = x
            for step in range(LOCAL):
                y = plus((1, y), (-0.05, pull(y, client, turn, step)))
            moved = plus((1, moved), (weights[client], y), (-weights[client], x))
        x = plus((1, x), (0.8 / 3, moved))
        wanted.append(x)
        since += 1
        ends = np.isin(np.arange(3), present) | (since == 2)
        means = (counted * weights + since) / (counted + 1)
        weights = np.where(ends, np.where(counted == 0, since, means), weights)
        counted, since = counted + ends, np.where(ends, 0, since)
    assert weights[2] > 1
    got = rounds_of(o.fed_au(0.05, 0.8, cutoff=2, num_local_steps=LOCAL), there)
    assert_close(got, wanted)


def test_bounds_of_moments_that_are_clipped_or_predicted():
    """The largest third of all entries is cut in the numerator alone."""
    steps = []
    for g in GRADS:
        every = np.sort(np.concatenate([np.abs(v).ravel() for v in g.values()]))[::-1]
        threshold = 0.8 * every[int(0.34 * every.size)]
        steps.append({k: np.clip(v, -threshold, threshold) for k, v in g.items()})
    x, m, v, wanted = START, dict.fromkeys(START, 0.0), dict.fromkeys(START, 0.0), []
    for t, (g, cut) in enumerate(zip(GRADS, steps, strict=True), 1):
        m = {k: 0.9 * m[k] + 0.1 * cut[k] for k in x}
        v = {k: 0.95 * v[k] + 0.05 * g[k] ** 2 for k in x}
        x = {
            k: x[k] - RATE * m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.95**t)) + 0.3) for k in x
        }
        wanted.append(x)
    opt = o.coordinate_clipped_adam(RATE, 0.34, b2=0.95, eps=0.3, threshold_scale=0.8)
    assert_close(walk(opt), wanted)
    true = walk(o.xgrad(RATE, "adam", b2=0.95, eps=0.3), look=gradchain.eval_params)
    assert_close(true, by_leaf(stepping, START, GRADS))


def test_a_large_eps_of_slopes():
    """Adam of what one random direction shows of the gradient."""
    x, m, v, wanted = START, dict.fromkeys(START, 0.0), dict.fromkeys(START, 0.0), []
    for t, z in enumerate(DIRECTIONS, 1):
        c = slope(x, z, 0.1)
        m = {k: 0.9 * m[k] + 0.1 * c * z[k] for k in x}
        v = {k: 0.95 * v[k] + 0.05 * (c * z[k]) ** 2 for k in x}
        x = {
            k: x[k] - 0.01 * m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.95**t)) + 0.3) for k in x
        }
        wanted.append(x)
    opt = o.zo_adam(0.01, 0.1, b2=0.95, eps=0.3, sampler=recorded)
    assert_close(of_the_loss(opt), wanted, 1e-9)


def test_a_large_eps_of_sparse_training():
    mask = {k: np.abs(v) > 0.3 for k, v in START.items()}

    def rule(x, gs, kept):
        out = []
        for u in adam_of(x, gs, 0.3, before=False):
            x = kept * (x - RATE * u)
            out.append(x)
        return out

    kept = {k: mask[k] if x.ndim > 1 else np.ones_like(x) for k, x in START.items()}
    paths = {k: rule(START[k], [g[k] for g in GRADS], kept[k]) for k in START}
    opt = o.sparse_momentum(RATE, **FAR, base="adam", b2=0.95, eps=0.3, init_mask=mask)
    assert_close(walk(opt), [{k: paths[k][t] for k in paths} for t in range(STEPS)])


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
    gram = gram / np.trace(gram) + 0.2 * np.eye(3)
    preferred = np.array([0.7, 0.1, 0.4])
    if name == "dualproj":
        weights = least(gram, preferred)
    else:
        weights = sum(least(gram, p * np.eye(3)[i]) for i, p in enumerate(preferred))
    settings = {"pref_vector": tuple(preferred), "reg_eps": 0.2, "solver": solver}
    rule = getattr(o, name)(**settings)
    found = rule.update(g, rule.init(START))[0]
    assert not np.allclose(weights, preferred)
    assert_close([found], [{k: np.tensordot(weights, g[k], 1) for k in g}], 1e-7)
    huge = getattr(o, name)(**settings, norm_eps=1e9)
    flat = huge.update(g, huge.init(START))[0]
    assert_close([flat], [{k: np.tensordot(preferred, g[k], 1) for k in g}], 1e-7)


def test_cones_are_cut_where_gradients_are_short():
    g = draw(8, (3,))
    total = sum(np.sum(v**2) for v in g.values())
    g = {k: np.sqrt(0.01 / total) * v for k, v in g.items()}
    for bound, moves in ((0.0099, True), (0.0101, False)):
        rule = o.cagrad(0.1, norm_eps=bound)
        assert np.any(rule.update(g, rule.init(START))[0]["w"]) == moves


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


def test_a_cautious_ascent():
    """What does not descend yet is turned around behind it."""
    ascent = optax.chain(o.cautious(optax.scale_by_adam(), descends=False), optax.scale(-RATE))
    assert_close(walk(ascent), walk(o.cautious(o.adam(RATE))))


def test_channels_along_the_other_axis():
    turned = [{k: np.transpose(v) for k, v in tree.items()} for tree in (START, *GRADS)]
    for make in (
        lambda axis: o.sgdp(RATE, delta=4.0, channel_axis=axis),
        lambda axis: optax.chain(
            gradchain.transforms.shape.adaptive_grad_clip(0.3, channel_axis=axis), optax.sgd(RATE)
        ),
    ):
        back = [
            {k: np.transpose(v) for k, v in x.items()} for x in walk(make(0), turned[0], turned[1:])
        ]
        assert_close(walk(make(-1)), back)


def test_an_alpha_that_is_counted_from_an_offset():
    shifted_alpha = gradchain.schedules.ademamix_alpha_schedule(5.0, 20, count_offset=3)
    plain = gradchain.schedules.ademamix_alpha_schedule(5.0, 20)
    counts = np.arange(8)
    np.testing.assert_allclose(jax.vmap(shifted_alpha)(counts), jax.vmap(plain)(counts + 3))


def test_a_skipping_worker_at_a_rate_of_zero():
    """A warm-up may start there, and nobody may ever meet."""
    for rate, p in ((0.0, 1.0), (RATE, 0.0)):
        opt = o.proxskip_vip(rate, p=p)
        found = walk(opt)[-1]
        wanted = {k: START[k] - rate * sum(g[k] for g in GRADS) for k in START}
        assert_close([found], [wanted])
