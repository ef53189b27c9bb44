"""Methods of layer statistics, against plain transcriptions of their rules in numpy."""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import replay
from gradchain import observe, observed, optimizers
from gradchain.optimizers.curvature.layers.structures import structure_named
from gradchain.transforms.kronecker import Layer
from subjects import same


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


RANDOM = np.random.default_rng(0)
PARAMS = {
    "one": {"kernel": RANDOM.normal(size=(3, 4)), "bias": RANDOM.normal(size=4)},
    "two": {"kernel": RANDOM.normal(size=(4, 2))},
    "norm": {"scale": RANDOM.normal(size=2)},
}
SIZES = {"one": (3, 4), "two": (4, 2)}


def batches(steps, scale=1.0, n=6):
    """Gradients, inputs and cotangents of every step; gradients are A^T D."""
    found = []
    for _ in range(steps):
        inputs = {k: scale * RANDOM.normal(size=(n, i)) for k, (i, _) in SIZES.items()}
        cotangents = {k: scale * RANDOM.normal(size=(n, o)) / n for k, (_, o) in SIZES.items()}
        grads = {k: {"kernel": inputs[k].T @ cotangents[k]} for k in SIZES}
        grads["one"]["bias"] = cotangents["one"].sum(axis=0)
        grads["norm"] = {"scale": RANDOM.normal(size=2)}
        found.append((grads, inputs, cotangents))
    return found


def run(opt, data, params=PARAMS, **more):
    """The params after every step, and the last state."""
    opt = optax.with_extra_args_support(opt)
    params = jax.tree.map(jnp.asarray, params)
    state = opt.init(params)

    @jax.jit
    def step(params, state, grads, inputs, cotangents, more):
        updates, state = opt.update(
            grads, state, params, layer_inputs=inputs, layer_cotangents=cotangents, **more
        )
        return optax.apply_updates(params, updates), state

    trajectory = []
    for t, batch in enumerate(data):
        now = {key: values[t] for key, values in more.items()}
        params, state = step(params, state, *batch, now)
        trajectory.append(params)
    return trajectory, state


def rows(batch, name):
    _, inputs, cotangents = batch
    a = inputs[name]
    if name == "one":
        a = np.concatenate([a, np.ones((len(a), 1))], axis=1)
    return a, cotangents[name]


def matrix(grads, name):
    kernel = grads[name]["kernel"]
    return np.vstack([kernel, grads[name]["bias"]]) if name == "one" else kernel


class Reference:
    """Heavy-ball SGD with coupled decay over preconditioned matrices."""

    def __init__(self, precondition, lr, momentum, decay=0.0, start=0):
        self.precondition, self.lr, self.momentum = precondition, lr, momentum
        self.decay, self.start = decay, start
        self.theta = {k: matrix(PARAMS, k).copy() for k in SIZES}
        self.theta["norm"] = PARAMS["norm"]["scale"].copy()
        self.buffer = {k: np.zeros_like(v) for k, v in self.theta.items()}

    def step(self, t, batch):
        updates = {k: self.precondition(t, batch, k) for k in SIZES}
        updates["norm"] = batch[0]["norm"]["scale"]
        for k, x in updates.items():
            if t - 1 >= self.start:
                x = x + self.decay * self.theta[k]
            self.buffer[k] = self.momentum * self.buffer[k] + x
            self.theta[k] = self.theta[k] - self.lr * self.buffer[k]


def follow(opt, reference, data, rtol=1e-9):
    compare(run(opt, data)[0], reference, data, rtol)


def compare(trajectory, reference, data, rtol=1e-9):
    for t, (batch, params) in enumerate(zip(data, trajectory, strict=True), start=1):
        reference.step(t, batch)
        for name in SIZES:
            np.testing.assert_allclose(matrix(params, name), reference.theta[name], rtol=rtol)
        np.testing.assert_allclose(params["norm"]["scale"], reference.theta["norm"], rtol=rtol)


# --- K-FAC ---------------------------------------------------------------------------------------


def kfac_reference(rho, damping_a, damping_b, every_s, every_i, eigen=False):
    factors, inverses = {}, {}

    def precondition(t, batch, name):
        a, d = rows(batch, name)
        n, g = len(a), matrix(batch[0], name)
        sa, sg = factors.setdefault(name, (np.eye(a.shape[1]), np.eye(d.shape[1])))
        if (t - 1) % every_s == 0:
            sa = rho * sa + (1 - rho) * a.T @ a / n
            sg = rho * sg + (1 - rho) * n * d.T @ d
            factors[name] = sa, sg
        if (t - 1) % every_i == 0:
            inverses[name] = sa, sg
        sa, sg = inverses[name]
        if eigen:
            (va, qa), (vg, qg) = np.linalg.eigh(sa), np.linalg.eigh(sg)
            return qa @ ((qa.T @ g @ qg) / (np.outer(va, vg) + damping_a)) @ qg.T
        left = np.linalg.inv(sa + damping_a[name] * np.eye(len(sa)))
        return left @ g @ np.linalg.inv(sg + damping_b[name] * np.eye(len(sg)))

    return precondition


def test_k_fac_with_damping_per_layer_and_periods():
    a, b = {"one": 0.1, "two": 0.3}, {"one": 0.2, "two": 0.2}
    opt = optimizers.k_fac(
        0.1,
        0.8,
        stat_decay=0.7,
        weight_decay=0.05,
        weight_decay_start=3,
        update_interval=2,
        inverse_interval=3,
        damping_a=a,
        damping_b=0.2,
    )
    follow(opt, Reference(kfac_reference(0.7, a, b, 2, 3), 0.1, 0.8, 0.05, 3), batches(8))


def test_k_fac_with_a_scheduled_decay_that_starts_later():
    def decay(step):
        return 0.1 * (step + 1)

    opt = optimizers.k_fac(0.1, 0.0, weight_decay=decay, weight_decay_start=2)
    zeros = jax.tree.map(np.zeros_like, batches(1)[0])
    params = PARAMS["one"]["kernel"]
    for t, after in enumerate(run(opt, [zeros] * 4)[0]):
        params = params * (1 - 0.1 * (decay(t) if t >= 2 else 0))
        np.testing.assert_allclose(after["one"]["kernel"], params, rtol=1e-12)


def test_k_fac_in_eigenbases():
    opt = optimizers.k_fac(
        0.1, 0.0, stat_decay=0.5, damping=0.2, update_interval=1, inverse_interval=2, eigen=True
    )
    reference = kfac_reference(0.5, 0.2, None, 1, 2, eigen=True)
    follow(opt, Reference(reference, 0.1, 0.0), batches(5))


def test_k_fac_of_a_convolution_follows_kfc():
    """Patches over the number of positions, cotangents times it: KFAC-pytorch's factors."""
    n, positions = 3, 5
    patches = RANDOM.normal(size=(n, positions, 6))
    cotangents = RANDOM.normal(size=(n, positions, 4))
    params = {"conv": {"kernel": jnp.asarray(RANDOM.normal(size=(2, 3, 4)))}}
    opt = optimizers.scale_by_k_fac(stat_decay=0.0, damping=0.1, update_interval=1)
    data = {"layer_inputs": {"conv": patches}, "layer_cotangents": {"conv": cotangents}}
    update, _ = jax.jit(opt.update)(params, opt.init(params), params, **data)
    a, d = patches.reshape(-1, 6) / positions, cotangents.reshape(-1, 4) * n * positions
    left = np.linalg.inv(a.T @ a / n + 0.1 * np.eye(6))
    right = np.linalg.inv(d.T @ d / len(d) + 0.1 * np.eye(4))
    wanted = left @ np.asarray(params["conv"]["kernel"]).reshape(6, 4) @ right
    np.testing.assert_allclose(update["conv"]["kernel"].reshape(6, 4), wanted, rtol=1e-9)


@pytest.mark.parametrize("method", ["k_fac", "singd", "mkor"])
def test_stacked_layers_are_layers_one_by_one(method):
    build = getattr(optimizers, method)
    more = {} if method == "mkor" else {"damping": 0.1}
    stacked = build(0.1, update_interval=1, layers={"s": Layer(stacked=2)}, **more)
    single = build(0.1, update_interval=1, **more)
    kernel, bias = RANDOM.normal(size=(2, 3, 4, 5)), RANDOM.normal(size=(2, 3, 5))
    a, d = RANDOM.normal(size=(2, 3, 6, 4)), RANDOM.normal(size=(2, 3, 6, 5))

    def update(opt, kernel, bias, a, d):
        params = {"s": {"kernel": kernel, "bias": bias}}
        state = opt.init(params)
        for _ in range(3):
            out, state = opt.update(
                params, state, params, layer_inputs={"s": a}, layer_cotangents={"s": d}
            )
        return out["s"]

    together = jax.jit(lambda *x: update(stacked, *x))(kernel, bias, a, d)
    each = jax.jit(jax.vmap(jax.vmap(lambda *x: update(single, *x))))(kernel, bias, a, d)
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(together[name], each[name], rtol=1e-9, atol=1e-12)


# --- SINGD ---------------------------------------------------------------------------------------


def projected(m, structure):
    """P of the card, and of the package for the structures that the card only names."""
    n = len(m)
    if structure == "dense":
        return m
    if structure == "diagonal":
        return np.diag(np.diag(m))
    if "toeplitz" in structure:
        lower = np.zeros_like(m)
        for i in range(n):
            value = np.trace(m, i) / (n - i) * (1 if i == 0 else 2)
            lower += value * np.eye(n, k=-i)
        return lower if structure.startswith("tril") else lower.T
    out = np.zeros_like(m)
    if structure == "block2diagonal":
        for i in range(0, n, 2):
            out[i : i + 2, i : i + 2] = m[i : i + 2, i : i + 2]
        return out
    assert structure == "hierarchical1_1"
    out[0, 0], out[0, 1:] = m[0, 0], 2 * m[0, 1:]
    middle = range(1, n - 1)
    out[middle, middle] = m[middle, middle]
    out[n - 1, 1 : n - 1], out[n - 1, n - 1] = 2 * m[n - 1, 1 : n - 1], m[n - 1, n - 1]
    return out


def singd_reference(damping, alpha, interval, rates, structures, kfac_like, normalize):
    state = {}

    def precondition(t, batch, name):
        a, d = rows(batch, name)
        n, g = len(a), matrix(batch[0], name)
        start = (np.eye(a.shape[1]), np.eye(d.shape[1]), 0.0, 0.0)
        K, C, mK, mC = state.setdefault(name, start)
        if (t - 1) % interval == 0:
            HK, HC = K.T @ (a.T @ a / n) @ K, C.T @ (n * d.T @ d) @ C
            KK, CC = K.T @ K, C.T @ C

            def tr(m):
                return 1.0 if kfac_like else np.trace(m) / len(m)

            s = 1 - alpha if normalize else 1.0
            PK, PC = (lambda m, s=s: projected(m, s) for s in structures)
            mK = alpha * mK + s / 2 * (tr(HC) * PK(HK) + damping * tr(CC) * PK(KK) - np.eye(len(K)))
            mC = alpha * mC + s / 2 * (tr(HK) * PC(HC) + damping * tr(KK) * PC(CC) - np.eye(len(C)))
            b = rates(t - 1)
            bK, bC = (b / max(1, np.abs(m).max()) if normalize else b for m in (mK, mC))
            K, C = K - bK * K @ mK, C - bC * C @ mC
            state[name] = K, C, mK, mC
        return K @ K.T @ g @ C @ C.T

    return precondition


@pytest.mark.parametrize(
    ("structures", "more"),
    [
        (("dense", "diagonal"), {"kfac_like": True}),
        (("triltoeplitz", "triutoeplitz"), {"normalize_lr_cov": True}),
        (("block2diagonal", "hierarchical1_1"), {}),
        (("hierarchical1_1", "block2diagonal"), {}),
        (("diagonal", "triltoeplitz"), {"lr_cov": "lin2023"}),
    ],
)
def test_singd(structures, more):
    lr_cov = more.get("lr_cov", lambda step: 0.1 / (1.0 + step))
    rates = (lambda step: 2e-4) if lr_cov == "lin2023" else lr_cov
    arguments = {"lr_cov": lr_cov, **more}
    opt = optimizers.singd(
        0.05, 0.7, 0.3, 0.4, 0.02, 2, update_interval=2, structures=structures, **arguments
    )
    reference = singd_reference(
        0.3,
        0.4,
        2,
        rates,
        structures,
        more.get("kfac_like", False),
        more.get("normalize_lr_cov", False),
    )
    follow(opt, Reference(reference, 0.05, 0.7, 0.02, 2), batches(6))


@pytest.mark.parametrize(
    "name",
    ["dense", "diagonal", "triltoeplitz", "triutoeplitz", "block2diagonal", "hierarchical2_1"],
)
def test_products_stay_in_the_structure(name):
    structure = structure_named(name)

    @jax.jit
    def pairs(a, b, x):
        one, other = structure.gram(a), structure.gram(b)
        dense = one.dense()
        return (
            ((one @ other).dense(), dense @ other.dense()),
            (structure.identity(5, dense).dense(), jnp.broadcast_to(jnp.eye(5), dense.shape)),
            (one.square_times(x), dense @ jnp.swapaxes(dense, -1, -2) @ x),
            (one.own_gram().dense(), structure.gram(dense).dense()),
        )

    a, b, x = (RANDOM.normal(size=shape) for shape in ((2, 6, 5), (2, 6, 5), (2, 5, 3)))
    for found, wanted in pairs(a, b, x):
        np.testing.assert_allclose(found, wanted, atol=1e-11)


def test_unknown_structures_are_named():
    with pytest.raises(ValueError, match="block0diagonal"):
        optimizers.singd(structures=("dense", "block0diagonal"))
    with pytest.raises(ValueError, match="lin2024"):
        optimizers.singd(lr_cov="lin2024")


# --- MKOR ----------------------------------------------------------------------------------------


def mkor_reference(variant, interval, warmup, clip, gamma, zeta, threshold, plain=()):
    inverses, flags = {}, {}

    def official(name, side, u):
        J, reset = inverses.get((name, side)), flags.setdefault(name, [True, True])
        if reset[side]:
            inverses[name, side], reset[side] = np.eye(len(u)), False
            return
        c = 0.95 * J + 0.05 * np.eye(len(u))
        inverses[name, side] = c - np.outer(c @ u, c @ u) / (1 + u @ c @ u)
        if np.abs(inverses[name, side]).max() > 2:
            flags[name] = [True, True]

    def other(name, side, u):
        J = inverses.get((name, side), np.eye(len(u)))
        if np.abs(J).max() > threshold:
            J = zeta * J + (1 - zeta) * np.eye(len(u))
        if variant == "paper":
            w = gamma**2 * (1 + gamma * (1 - gamma) * u @ J @ u)
            J = gamma * J + (1 - gamma) / w * np.outer(J @ u, J @ u)
        else:
            J = np.linalg.inv(gamma * np.linalg.inv(J) + (1 - gamma) * np.outer(u, u))
        inverses[name, side] = J

    def precondition(t, batch, name):
        a, d = rows(batch, name)
        g = matrix(batch[0], name)
        if name in plain:
            return g
        if (t - 1) % interval == 0 or t - 1 < warmup:
            update = official if variant == "official" else other
            update(name, 0, np.clip(a, -clip, clip).mean(axis=0))
            update(name, 1, np.clip(len(d) * d, -clip, clip).mean(axis=0))
        x = inverses[name, 0] @ g @ inverses[name, 1]

        def norms(m):
            split = [m[:-1], m[-1:]] if name == "one" else [m]
            return sum(np.linalg.norm(part) for part in split)

        return x * norms(g) / norms(x)

    return precondition


@pytest.mark.parametrize("variant", ["official", "paper", "sherman_morrison"])
def test_mkor(variant):
    opt = optimizers.mkor(
        0.05,
        0.6,
        0.03,
        update_interval=2,
        warmup_steps=3,
        clip_value=0.9,
        variant=variant,
        gamma=0.4,
        stabilization_factor=0.7,
        stabilization_threshold=1.2,
        first_order_layers=("two",),
    )
    reference = mkor_reference(variant, 2, 3, 0.9, 0.4, 0.7, 1.2, ("two",))
    follow(opt, Reference(reference, 0.05, 0.6, 0.03), batches(12, scale=2.0))


def test_mkor_with_another_back_end_and_an_unknown_layer():
    data = batches(3)
    after, _ = run(optimizers.mkor(None, backend=optax.sgd(0.05)), data)
    plain, _ = run(optimizers.mkor(0.05, momentum=0.0), data)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), after[-1], plain[-1])
    with pytest.raises(ValueError, match="three"):
        optimizers.mkor(0.1, first_order_layers=("three",)).init(PARAMS)


@pytest.mark.parametrize(
    "losses",
    [
        [8, 6, 5, 4, 4, 4, 4, 4, 1, 0.5, 0.1, 0.1],
        [np.nan, 8, np.inf, 5, 4, -np.inf, 4, 4, 4, 4, 1, np.nan],  # at first, at a check, after it
        [8, np.nan, np.inf, np.nan, 5, 4, 4, 4, 4, 4, 0.1, 0.1],  # at the first check
    ],
)
def test_mkor_h_switches_once_and_for_good(losses):
    """Steps whose losses are not finite do not count, and a tap says so."""
    data, losses = batches(12), np.array(losses)
    opt = optimizers.mkor_h(
        0.05, 0.5, update_interval=1, loss_decay=0.5, switch_interval=2, switch_threshold=0.1
    )
    finite = np.isfinite(losses)
    smooth, before, second, switched_at = 0.0, None, True, None
    for t, loss in enumerate(losses[finite], start=1):
        smooth = 0.5 * smooth + 0.5 * loss
        bar = smooth / (1 - 0.5**t)
        if second and t % 2 == 0:
            if before is not None and before - bar < 0.1 * abs(before):
                second, switched_at = False, t
            before = bar
    assert switched_at is not None
    assert 4 < switched_at < finite.sum()

    mkor = mkor_reference("official", 1, 0, 100.0, 0.9, 0.9, 2.0)

    def precondition(t, batch, name):
        return mkor(t, batch, name) if t < switched_at else matrix(batch[0], name)

    trajectory, state = run(observe(opt, "value_is_finite"), data, value=losses)
    assert all(map(bool, observed(state).values())) is bool(finite[-1])
    for before, after, moves in zip([PARAMS, *trajectory], trajectory, finite, strict=False):
        assert same(before, after) is not moves
    counted = [
        [x for x, moves in zip(xs, finite, strict=True) if moves] for xs in (trajectory, data)
    ]
    compare(counted[0], Reference(precondition, 0.05, 0.5), counted[1])


# --- fallbacks and bad input ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["k_fac", "mkor", "singd"])
def test_statistics_that_are_not_finite_never_reach_the_params(method):
    data = batches(4)
    data[1][1]["one"][0, 0] = np.nan
    data[2][2]["two"][:] = np.inf
    more = {} if method == "mkor" else {"damping": 0.1}
    opt = getattr(optimizers, method)(0.01, update_interval=1, **more)
    trajectory, state = run(opt, data)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((trajectory, state)))


def test_a_singular_factor_falls_back_to_the_gradient_and_says_so():
    """Without damping, fewer examples than inputs make the factor singular."""
    data = batches(1, n=2)
    opt = observe(optimizers.scale_by_k_fac(stat_decay=0.0, damping=0.0), "fallbacks")
    params = jax.tree.map(jnp.asarray, PARAMS)
    grads, inputs, cotangents = data[0]
    inputs["one"][:] = 0
    updates, state = jax.jit(opt.update)(
        grads, opt.init(params), params, layer_inputs=inputs, layer_cotangents=cotangents
    )
    np.testing.assert_array_equal(updates["one"]["kernel"], grads["one"]["kernel"])
    assert float(observed(state)["fallbacks"]) >= 1


@pytest.mark.parametrize(
    "more",
    [{}, {"update_interval": 1, "inverse_interval": 2}, {"update_interval": 1, "eigen": True}],
)
def test_layers_without_data_follow_the_gradient(more):
    data = [(g, {**a, "two": None}, {**d, "two": None}) for g, a, d in batches(2)]
    after, _ = run(optimizers.k_fac(0.1, 0.0, damping=0.1, **more), data)
    wanted = PARAMS["two"]["kernel"] - 0.1 * sum(g["two"]["kernel"] for g, _, _ in data)
    np.testing.assert_allclose(after[-1]["two"]["kernel"], wanted, rtol=1e-12)
    assert not np.allclose(
        after[-1]["one"]["kernel"],
        PARAMS["one"]["kernel"] - 0.1 * sum(g["one"]["kernel"] for g, _, _ in data),
    )


def test_data_at_the_kernel_is_data_at_the_layer():
    data = batches(2)
    deeper = [
        (g, *({k: {"kernel": v, "bias": None} for k, v in tree.items()} for tree in (a, d)))
        for g, a, d in data
    ]
    opt = optimizers.k_fac(0.1, damping=0.1)
    one, other = run(opt, data)[0][-1], run(opt, deeper)[0][-1]
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, d: a.update(three=a["one"]), "three"),
        (lambda a, d: a.pop("two"), "two"),
        (lambda a, d: d.update(two=None), "two"),
        (lambda a, d: a.update(one=a["one"][:, :2]), "one"),
        (lambda a, d: a.update(one=a["one"][:3]), "leading axes"),
    ],
)
def test_data_that_does_not_fit_is_refused_by_name(change, message):
    grads, inputs, cotangents = batches(1)[0]
    change(inputs, cotangents)
    with pytest.raises(ValueError, match=message):
        run(optimizers.k_fac(0.1), [(grads, inputs, cotangents)])


# --- ScaledGD ------------------------------------------------------------------------------------


def test_scaled_gd_of_symmetric_factors():
    x, g = RANDOM.normal(size=(5, 2)), RANDOM.normal(size=(5, 2))
    params = {"x": jnp.asarray(x), "v": jnp.ones(3)}
    grads = {"x": jnp.asarray(g), "v": jnp.ones(3)}
    opt = optimizers.scaled_gd(0.2, damping=0.3)
    updates, _ = opt.update(grads, opt.init(params), params)
    wanted = -0.2 * g @ np.linalg.inv(x.T @ x + 0.3 * np.eye(2))
    np.testing.assert_allclose(updates["x"], wanted, rtol=1e-10)
    np.testing.assert_allclose(updates["v"], -0.2)
    plain = optimizers.scaled_gd(0.2, damping=0.3, preconditioned={"x": False, "v": True})
    np.testing.assert_allclose(plain.update(grads, plain.init(params), params)[0]["x"], -0.2 * g)


def test_scaled_gd_takes_the_plain_gradient_of_a_singular_factor():
    """More columns than rows: rounding leaves some of these Gram matrices a positive pivot."""
    factors = np.random.default_rng(0).normal(size=(40, 1, 2))
    params = {str(i): jnp.asarray(x) for i, x in enumerate(factors)}
    grads = jax.tree.map(jnp.ones_like, params)
    opt = optimizers.scaled_gd(0.1, damping=0.0)
    updates, _ = opt.update(grads, opt.init(params), params)
    for u in updates.values():
        np.testing.assert_allclose(u, -0.1)


def test_scaled_gd_does_not_depend_on_the_basis():
    """Without damping, (L A, R A^{-T}) gives the same products after a step."""
    left, right = RANDOM.normal(size=(6, 2)), RANDOM.normal(size=(5, 2))
    target, turn = RANDOM.normal(size=(6, 5)), RANDOM.normal(size=(2, 2))
    opt = optimizers.scaled_gd(0.3, damping=0.0, pairs=[("m/left", "m/right")])

    def product(left, right):
        params = {"m": {"left": left, "right": right}}
        grads = jax.grad(
            lambda p: 0.5 * jnp.sum((p["m"]["left"] @ p["m"]["right"].T - target) ** 2)
        )(params)
        updates, _ = opt.update(grads, opt.init(params), params)
        after = optax.apply_updates(params, updates)["m"]
        return after["left"] @ after["right"].T

    plain = product(left, right)
    np.testing.assert_allclose(
        product(left @ turn, right @ np.linalg.inv(turn).T), plain, rtol=1e-8
    )


@pytest.mark.parametrize("pairs", [[("l", "no")], [("l", "r"), ("r", "l")], [("l", "wide")]])
def test_scaled_gd_refuses_bad_pairs(pairs):
    params = {"l": jnp.ones((3, 2)), "r": jnp.ones((4, 2)), "wide": jnp.ones((4, 3))}
    opt = optimizers.scaled_gd(0.1, pairs=pairs)
    with pytest.raises(ValueError, match="pairs"):
        opt.update(params, opt.init(params), params)


# --- maximal-update scales -----------------------------------------------------------------------


def test_mup_scales_follow_the_record_and_the_table():
    replay.check(replay.load("mup_second_order__adam.npz"))
    scales = optimizers.mup_second_order_scales("foof", 64, 256)
    assert [scales[role]["learning_rate_mult"] for role in scales] == [4.0, 4.0, 1.0]
    scales = optimizers.mup_second_order_scales("kfac", 64, 256)
    assert [scales[role]["damping_a_mult"] for role in scales] == [1.0, 4.0, 4.0]
    assert [scales[role]["damping_b_mult"] for role in scales] == [0.25, 0.25, 1.0]
    assert [scales[role]["init_std_mult"] for role in scales] == [1.0, 0.5, 0.25]
    shampoo = optimizers.mup_second_order_scales("shampoo", 64, 256, ("input",))
    assert shampoo["input"]["learning_rate_mult"] == 2.0


def test_mup_scales_reach_rates_and_damping():
    roles = {"one": "input", "two": "output", "norm": "hidden"}
    data = batches(3)
    scaled = optimizers.with_mup_scales(optimizers.k_fac, roles, "kfac", 10, 30)
    by_hand = optimizers.k_fac(
        0.1, damping_a={"one": 0.2, "two": 0.6}, damping_b={"one": 0.2 / 3, "two": 0.2}
    )
    one, other = run(scaled(0.1, damping=0.2), data)[0], run(by_hand, data)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), one, other)
    entry = optimizers.mup_second_order(0.1, roles, 10, 30, inner_kwargs={"damping": 0.2})
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), run(entry, data)[0], other
    )
    with pytest.raises(ValueError, match="inner"):
        optimizers.mup_second_order(0.1, roles, 10, 30, "foof")
    adam = optimizers.with_mup_scales(gradchain.optimizers.adam, roles, "adam", 10, 30)
    one, other = run(adam(0.3), data)[0][-1], run(gradchain.optimizers.adam(0.1), data)[0][-1]
    np.testing.assert_allclose(one["two"]["kernel"], other["two"]["kernel"], rtol=1e-12)
    with pytest.raises(ValueError, match="outptu"):
        optimizers.with_mup_scales(optax.sgd, {"one": "outptu"}, "sgd", 1, 2)(0.1)


@pytest.mark.parametrize("build", [optimizers.mkor, optimizers.mkor_h])
def test_without_a_backend_there_must_be_a_rate(build):
    with pytest.raises(ValueError, match="learning_rate may be None only beside a backend"):
        build(None)
