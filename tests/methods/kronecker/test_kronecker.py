"""Shampoo and PSGD against plain NumPy transcriptions of their rules, and their traps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import observe, observed, optimizers
from gradchain.transforms import FlowError
from gradchain.transforms.kronecker import merge_dims, qr_root
from samples import sample
from subjects import signature_of

RTOL = 1e-9
SHAPES = {"w": (4, 3), "v": (4, 3), "b": (3,), "s": (), "t": (2, 3, 2), "e": (0, 3)}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def trees(count, seed=0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [{k: rng.normal(size=shape) for k, shape in shapes.items()} for _ in range(count)]


def run(opt, params, grads, **extra):
    """The params after every step."""
    params = jax.tree.map(jnp.asarray, params)
    state, seen = opt.init(params), []

    @jax.jit
    def step(g, state, params, extra):
        updates, state = opt.update(g, state, params, **extra)
        return optax.apply_updates(params, updates), state

    for t, g in enumerate(grads):
        now = {name: jax.tree.map(jnp.asarray, values[t]) for name, values in extra.items()}
        params, state = step(jax.tree.map(jnp.asarray, g), state, params, now)
        seen.append(params)
    return seen


def close(found, expected, rtol=RTOL):
    for t, (one, two) in enumerate(zip(found, expected, strict=True)):
        for name in two:
            message = f"step {t + 1}, leaf {name}"
            np.testing.assert_allclose(one[name], two[name], rtol, 1e-11, err_msg=message)


def unfold(x, axis):
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def along(x, matrix, axis):
    return np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)


def power(matrix, exponent, floor=0.0):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.maximum(values, floor) ** exponent @ vectors.T


# --- Shampoo --------------------------------------------------------------------------------------


def shampoo(p, grads, lr, eps, momentum, weight_decay, interval, max_dim, exponent):
    x = p.reshape(p.shape or (1,)).copy()
    big = [max_dim is not None and n > max_dim for n in x.shape]
    H = [np.full(n, eps) if d else eps * np.eye(n) for n, d in zip(x.shape, big, strict=True)]
    m, seen = np.zeros_like(x), []
    alpha = -1 / (2 * x.ndim) if exponent is None else exponent
    for t, g in enumerate(grads):
        g = g.reshape(x.shape) + weight_decay * x
        for i in range(x.ndim):
            rows = unfold(g, i)
            H[i] = H[i] + ((rows**2).sum(1) if big[i] else rows @ rows.T)
        if t % interval == 0:
            P = [h**alpha if d else power(h, alpha, eps) for h, d in zip(H, big, strict=True)]
        m = momentum * m + (1 - momentum) * g
        u = m
        for i in range(x.ndim):
            u = along(u, np.diag(P[i]) if big[i] else P[i], i)
        x = x - lr(t) * u
        seen.append(x.reshape(p.shape))
    return seen


def by_leaf(rule, params, grads, *arguments):
    runs = {}
    for k, p in params.items():
        given = [g[k] for g in grads]
        runs[k] = rule(p, given, *arguments) if p.size else given
        if not p.size:
            runs[k] = [p for _ in grads]
    return [{k: runs[k][t] for k in params} for t in range(len(grads))]


@pytest.mark.parametrize(
    ("eps", "momentum", "weight_decay", "interval", "max_dim", "exponent"),
    [(1e-4, 0.0, 0.0, 1, None, None), (0.1, 0.9, 0.3, 3, 3, None), (0.1, 0.5, 0.0, 2, None, -0.4)],
)
def test_shampoo_is_its_rule(eps, momentum, weight_decay, interval, max_dim, exponent):
    params, grads = trees(1, 1)[0], trees(7)
    rate = lambda t: 0.1 / (1 + t)  # noqa: E731
    opt = optimizers.shampoo(rate, eps, momentum, weight_decay, interval, max_dim, exponent)
    expected = by_leaf(
        shampoo, params, grads, rate, eps, momentum, weight_decay, interval, max_dim, exponent
    )
    close(run(opt, params, grads), expected)


def test_shampoo_whitens_the_first_gradient():
    g = np.random.default_rng(0).normal(size=(4, 4))
    (found,) = run(optimizers.shampoo(1.0, eps=0.0), {"w": np.zeros((4, 4))}, [{"w": g}])
    u, _, v = np.linalg.svd(g)
    np.testing.assert_allclose(found["w"], -u @ v, rtol=1e-8)


def test_shampoo_keeps_one_stack_per_shape():
    state = optimizers.shampoo(0.1).init(jax.tree.map(jnp.asarray, trees(1)[0]))
    stacks = state.scale_by_shampoo.mean_statistics
    assert [factor.shape for factor in stacks["4x3_float64"]] == [(2, 4, 4), (2, 3, 3)]
    assert len(stacks) == 4


@pytest.mark.parametrize("name", ["shampoo", "distributed_shampoo"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_a_factor_that_is_not_finite_is_left_as_it_was(name, bad):
    opt = getattr(optimizers, name)(0.1, eps=1e-4)
    opt = observe(opt, "nonfinite_gradients")
    params, grads = trees(1, 1)[0], trees(4)
    grads[1]["w"][2, 1] = bad
    state, update = jax.jit(opt.init)(params), jax.jit(opt.update)
    for t, g in enumerate(grads):
        updates, state = update(g, state, params)
        assert all(np.all(np.isfinite(u)) for u in jax.tree.leaves(updates))
        assert observed(state)["nonfinite_gradients"] == (t == 1)


def test_a_singular_factor_falls_back_and_says_so():
    opt = observe(optimizers.shampoo(0.1, eps=0.0), "failed_roots")
    params, g = {"w": jnp.ones((3, 3))}, {"w": jnp.zeros((3, 3))}
    updates, state = opt.update(g, opt.init(params), params)
    assert np.all(np.isfinite(updates["w"]))
    assert observed(state)["failed_roots"] == 2


@pytest.mark.parametrize("solver", ["eigh_shift", "newton", "newton_schulz"])
def test_other_root_solvers_agree(solver):
    shapes = {"w": (4, 3), "b": (3,)}
    params, grads = trees(1, 1, shapes)[0], trees(4, 0, shapes)
    one = run(optimizers.shampoo(0.1, eps=0.1), params, grads)
    two = run(optimizers.shampoo(0.1, eps=0.1, root_solver=solver), params, grads)
    close(two, one, 1e-8)


def test_the_root_on_a_basis_of_one_orthogonal_iteration():
    a = np.cov(np.random.default_rng(0).normal(size=(5, 20)))
    ridged = a + 0.1 * np.eye(5)
    basis = np.linalg.qr(ridged[:, np.argsort(-np.diag(a))])[0]
    values = np.diag(basis.T @ ridged @ basis)
    found, _ = qr_root(jnp.asarray(a)[None], 0.1, -0.25)
    np.testing.assert_allclose(found[0], basis * values**-0.25 @ basis.T, rtol=1e-10)


# --- Distributed Shampoo --------------------------------------------------------------------------


def blocks(shape, size):
    return itertools.product(*([slice(i, i + size) for i in range(0, n, size)] for n in shape))


def distributed(p, grads, lr, a):
    merged = merge_dims(p.shape, a["block_size"], a["target_ndim"])
    x, peak = p.reshape(merged).copy(), max(map(lr, range(len(grads))))
    parts = list(blocks(merged, a["block_size"]))
    state = [{"L": None, "m": 0.0, "V": 0.0, "P": None} for _ in parts]
    B, seen = np.zeros_like(x), []
    b1, b2, b3, gb2, K = a["b1"], a["b2"], a["b3"], a["grafting_b2"], a["update_interval"]
    b3 = b1 if b3 is None else b3
    S = a["start_preconditioning_step"] or K
    kind, wd = a["weight_decay_type"], a["weight_decay"]
    for t, whole in enumerate(grads, 1):
        whole = whole.reshape(merged) + (wd * x if kind == "l2" else 0)
        u = np.zeros_like(x)
        for part, s in zip(parts, state, strict=True):
            g = whole[part]
            o = g.ndim
            if s["L"] is None:
                s["L"] = [np.zeros((n, n)) for n in g.shape]
                s["P"] = [np.eye(n) for n in g.shape]
            for i in range(o):
                gram = unfold(g, i) @ unfold(g, i).T
                s["L"][i] = s["L"][i] + gram if b2 == 1 else b2 * s["L"][i] + (1 - b2) * gram
            if a["grafting"] == "adagrad":
                s["V"] = s["V"] + g**2
            else:
                s["V"] = gb2 * s["V"] + (1 - gb2) * g**2
            if t == S or (t > S and t % K == 0):
                c = 1 - b2**t if a["bias_correction"] and b2 < 1 else 1
                e = a["inverse_exponent"] or -1 / (2 * o)
                s["P"] = [power(L / c + a["eps"] * np.eye(len(L)), e) for L in s["L"]]
            f = g
            if b1 > 0:
                f = b3 * s["m"] + (1 - b3) * g
                s["m"] = b1 * s["m"] + (1 - b1) * g
                f = f / (1 - b3 * b1 ** (t - 1)) if a["bias_correction"] else f
            A = f
            if a["grafting"] in ("adagrad", "rmsprop"):
                A = f / (np.sqrt(s["V"]) + a["grafting_eps"])
            elif a["grafting"] == "adam":
                A = f / (np.sqrt(s["V"] / (1 - gb2**t)) + a["grafting_eps"])
            U = f
            for i in range(o):
                U = along(U, s["P"][i], i)
            if a["grafting"]:
                U = A if t < S else U * np.linalg.norm(A) / (np.linalg.norm(U) + 1e-16)
            u[part] = U
        r = lr(t - 1)
        u = u + wd * x * {"decoupled": 1, "corrected": r / peak, "independent": 1 / peak}.get(
            kind, 0
        )
        if a["momentum"]:
            B = a["momentum"] * B + (1 - a["dampening"]) * u
            u = (1 - a["dampening"]) * u + a["momentum"] * B if a["nesterov"] else B
        x = x - r * u
        seen.append(x.reshape(p.shape))
    return seen


DISTRIBUTED = {
    "b1": 0.9,
    "b2": 1.0,
    "b3": None,
    "eps": 1e-3,
    "weight_decay": 0.0,
    "weight_decay_type": "decoupled",
    "block_size": 2,
    "target_ndim": 1,
    "update_interval": 1,
    "start_preconditioning_step": None,
    "bias_correction": True,
    "grafting": None,
    "grafting_b2": 0.99,
    "grafting_eps": 1e-8,
    "momentum": 0.0,
    "dampening": 0.0,
    "nesterov": False,
    "inverse_exponent": None,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"block_size": 1024},
        {"update_interval": 3, "b2": 0.9, "b1": 0.0, "weight_decay": 0.1},
        {"grafting": "adam", "update_interval": 2, "start_preconditioning_step": 3, "b3": 0.5},
        {"grafting": "adagrad", "block_size": 3, "target_ndim": 2, "momentum": 0.9,
         "dampening": 0.2, "weight_decay": 0.1, "weight_decay_type": "corrected"},
        {"grafting": "rmsprop", "nesterov": True, "momentum": 0.5, "bias_correction": False,
         "b2": 0.8, "weight_decay": 0.2, "weight_decay_type": "independent"},
        {"grafting": "sgd", "inverse_exponent": -0.3, "weight_decay": 0.3,
         "weight_decay_type": "l2", "update_interval": 2},
    ],
)  # fmt: skip
def test_distributed_shampoo_is_its_rule(changes):
    arguments = {**DISTRIBUTED, **changes}
    params, grads = trees(1, 1)[0], trees(7)
    rate = lambda t: 0.1 / (1 + t)  # noqa: E731
    opt = optimizers.distributed_shampoo(rate, **arguments)
    close(run(opt, params, grads), by_leaf(distributed, params, grads, rate, arguments))


WARM_UP = np.array([0.0, 0.1, 0.25, 0.4, 0.3, 0.05, 0.0])


def warm_up(count):
    return jnp.asarray(WARM_UP)[count]


@pytest.mark.parametrize("kind", ["decoupled", "corrected", "independent"])
def test_forms_of_decay_under_a_warm_up(kind):
    """Against the transcription, which knows the peak from the start."""
    changes = {"weight_decay": 0.2, "weight_decay_type": kind, "momentum": 0.5, "grafting": "sgd"}
    arguments = {**DISTRIBUTED, **changes}
    params, grads = trees(1, 1)[0], trees(len(WARM_UP))
    opt = optimizers.distributed_shampoo(warm_up, **arguments, peak_learning_rate=WARM_UP.max())
    close(run(opt, params, grads), by_leaf(distributed, params, grads, warm_up, arguments))


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("kind", "share"),
    [("corrected", lambda r, peak: r / peak), ("independent", lambda r, p: 1 / p)],
)
def test_peak_and_schedule_of_the_decay(kind, share, given, scheduled):
    """Without gradient the params shrink by r w share; a peak not given is the highest r so far."""

    def decay(count):
        return 0.2 / (1 + count)

    opt = optimizers.distributed_shampoo(
        warm_up,
        weight_decay=decay if scheduled else 0.2,
        weight_decay_type=kind,
        peak_learning_rate=WARM_UP.max() if given else None,
    )
    params, zeros = {"x": np.array([3.0, -4.0])}, [{"x": np.zeros(2)}] * len(WARM_UP)
    x, expected = params["x"], []
    for t, r in enumerate(WARM_UP):
        peak = WARM_UP.max() if given else WARM_UP[: t + 1].max()
        if r > 0:
            x = x * (1 - r * (decay(t) if scheduled else 0.2) * share(r, peak))
        expected.append({"x": x})
    close(run(opt, params, zeros), expected)


@pytest.mark.parametrize("peak", [None, 0.7])
def test_independent_decay_has_the_precision_of_the_params(peak):
    opt = optimizers.distributed_shampoo(
        0.3, weight_decay=0.1, weight_decay_type="independent", peak_learning_rate=peak
    )
    params = jnp.array([3.0, -4.0])
    update, _ = opt.update(jnp.zeros(2), opt.init(params), params)
    np.testing.assert_allclose(update, -0.3 * 0.1 / (peak or 0.3) * params, RTOL)


@pytest.mark.parametrize(
    ("shape", "size", "target", "merged"),
    [
        ((4, 3), 1024, 1, (12,)),
        ((4, 3), 1024, 2, (4, 3)),
        ((1, 1), 8, 1, (1,)),
        ((), 8, 1, (1,)),
        ((3, 1, 5, 4), 20, 1, (3, 20)),
        ((5, 2, 3, 4), 12, 1, (10, 12)),
        ((5, 2, 3, 4), 12, 3, (5, 2, 12)),
    ],
)
def test_merged_dimensions(shape, size, target, merged):
    assert merge_dims(shape, size, target) == merged


# --- PSGD -----------------------------------------------------------------------------------------

TINY = np.finfo(np.float64).tiny


def bound(a):
    top = np.abs(a).max()
    if top == 0:
        return 0.0
    a = a / top
    rows, columns = (a**2).sum(1), (a**2).sum(0)
    if columns.max() > rows.max():
        a = a.T
        rows = columns
    x = a @ a[rows.argmax()]
    return top * np.linalg.norm(a.T @ (x / np.linalg.norm(x)))


def first_scale(mode, v, h, scale):
    if scale is not None:
        return scale
    return np.mean(h**4) ** (-1 / 8) * (np.mean(v**2) ** 0.25 if mode == "newton" else 1)


class Kron:
    def __init__(self, a):
        self.a, self.Q, self.L = a, None, None

    def fit(self, v, h, t):
        a = self.a
        v, h = (x.reshape(x.shape or (1,)) for x in (v, h))
        s = first_scale(a["mode"], v, h, a["precond_init_scale"])
        h = h + 2.0**-13 * np.mean(np.abs(h)) * v if a["mode"] == "whiten" else h
        self.diagonal = [
            n == 1 or n > a["max_size"] or n * n > a["max_skew"] * h.size for n in h.shape
        ]
        if self.Q is None:
            self.Q = [s ** (1 / h.ndim) * np.eye(n) for n in h.shape]
            self.L = [0.0] * h.ndim
        if a["balance_probability"] == 1 and h.ndim > 1:
            tops = [np.abs(q).max() for q in self.Q]
            mean = np.prod(tops) ** (1 / len(tops))
            self.Q = [q * mean / top for q, top in zip(self.Q, tops, strict=True)]
        A, B = h, v
        for i, q in enumerate(self.Q):
            A, B = along(A, q, i), along(B, np.linalg.inv(q).T, i)
        for i, q in enumerate(self.Q):
            one, two = (unfold(x, i) @ unfold(x, i).T for x in (A, B))
            if self.diagonal[i]:
                one, two = np.diag(np.diag(one)), np.diag(np.diag(two))
            norm = (lambda x: np.abs(x).max()) if self.diagonal[i] else bound
            delta = np.triu(one - two)
            if a["step_normalizer"] == "2nd":
                ell = norm(one + two)
                size = self.L[i] = max(0.9 * self.L[i] + 0.1 * ell, ell)
            else:
                size = norm(delta)
            self.Q[i] = q - a["precond_lr"] / (size + TINY) * delta @ q

    def apply(self, x):
        y = x.reshape(x.shape or (1,))
        for i, q in enumerate(self.Q):
            y = along(y, q.T @ q, i)
        return y.reshape(x.shape)


class Flat:
    def __init__(self, a):
        self.a, self.started = a, False

    def pair(self, v, h):
        s = first_scale(self.a["mode"], v, h, self.a["precond_init_scale"])
        if self.a["mode"] == "whiten":
            h = h + 2.0**-13 * np.mean(np.abs(h)) * v
        return s, h

    def step(self, size):
        return self.a["precond_lr"] / (size + TINY)


class XMat(Flat):
    def fit(self, v, h, t):
        s, h = self.pair(v, h)
        n = len(h)
        if not self.started:
            self.x, self.y, self.started = np.full(n, s), np.zeros(n), True
        a, b = self.x, self.y
        Q = np.diag(a) + np.diag(b)[:, ::-1]
        Qh, w = Q @ h, np.linalg.inv(Q).T @ v
        nA, nB = Qh**2 - w**2, Qh * Qh[::-1] - w * w[::-1]
        if n % 2:
            nB[n // 2] = 0
        if self.a["step_normalizer"] == "2nd":
            mu = self.step(np.max(Qh**2 + w**2))
        else:
            mu = self.step(max(np.abs(nA).max(), np.abs(nB).max()))
        self.x, self.y = a - mu * (nA * a + nB * b[::-1]), b - mu * (nA * b + nB * a[::-1])

    def apply(self, x):
        Q = np.diag(self.x) + np.diag(self.y)[:, ::-1]
        return Q.T @ Q @ x


class LRA(Flat):
    def fit(self, v, h, t):
        s, h = self.pair(v, h)
        if not self.started:
            self.U, self.V = map(np.array, self.a["init_factors"])
            self.d, self.started = np.full(len(h), s), True
        U, V, d = self.U, self.V, self.d
        if self.a["balance_probability"] == 1:
            rho = np.sqrt(np.linalg.norm(U) / np.linalg.norm(V))
            U, V = U / rho, V * rho
        Q = (np.eye(len(h)) + U @ V.T) @ np.diag(d)
        P = Q.T @ Q
        Ph, Pv, a, b = P @ h, np.linalg.solve(P, v), Q @ h, np.linalg.solve(Q.T, v)
        nD = Ph * h - v * Pv
        second = self.a["step_normalizer"] == "2nd"
        if second:
            size = 1 / np.min((Ph**2 + v**2) ** -0.5 * (h**2 + Pv**2) ** -0.5)
        else:
            size = np.abs(nD).max()
        self.d = d - self.step(size) * d * nD
        W = V if t % 2 else U
        A, B = W @ W.T @ a, W @ W.T @ b
        norm = np.linalg.norm
        if second:
            size = norm(a) * norm(A) + norm(b) * norm(B)
        else:
            size = norm(np.outer(a, A) - np.outer(b, B))
        mu = self.step(size)
        if t % 2:
            K = np.eye(V.shape[1]) + V.T @ U
            U = U - mu * (np.outer(a, a @ V) - np.outer(b, b @ V)) @ K
        else:
            M = np.eye(len(h)) + V @ U.T
            V = V - mu * (np.outer(M @ a, a @ U) - np.outer(M @ b, b @ U))
        self.U, self.V = U, V

    def apply(self, x):
        Q = (np.eye(len(x)) + self.U @ self.V.T) @ np.diag(self.d)
        return Q.T @ Q @ x


def join(tree):
    return {"all": np.concatenate([np.ravel(tree[k]) for k in sorted(tree)])}


def apart(flat, like):
    sizes = np.cumsum([like[k].size for k in sorted(like)])[:-1]
    parts = np.split(flat["all"], sizes)
    return {k: x.reshape(like[k].shape) for k, x in zip(sorted(like), parts, strict=True)}


def psgd(group, a, params, grads, vs, hs, lr):
    flat = group is not Kron
    x = params
    groups = {k: group(a) for k in (join(x) if flat else x)}
    m = {k: np.zeros_like(p) for k, p in x.items()}
    seen = []
    for t, (g, v, h) in enumerate(zip(grads, vs, hs, strict=True), 1):
        h = g if a["mode"] == "whiten" else h
        m = {k: a["momentum"] * m[k] + (1 - a["momentum"]) * g[k] for k in g}
        one, two, three = (join(y) if flat else y for y in (v, h, m))
        for k, q in groups.items():
            q.fit(one[k], two[k], t)
        u = {k: q.apply(three[k]) for k, q in groups.items()}
        u = apart(u, g) if flat else u
        norm = np.sqrt(sum(np.sum(y**2) for y in u.values()))
        clip = a["grad_clip_norm"]
        s = lr if clip is None else lr * min(clip / (norm + TINY), 1)
        x = {k: x[k] - s * u[k] for k in x}
        seen.append(x)
    return seen


PSGD = {
    "precond_lr": 0.1,
    "mode": "newton",
    "precond_init_scale": None,
    "momentum": 0.0,
    "step_normalizer": "2nd",
    "grad_clip_norm": None,
}
PSGD_CHANGES = [
    {},
    {"mode": "whiten", "momentum": 0.9, "grad_clip_norm": 0.5, "precond_lr": 0.2},
    {"step_normalizer": "1st", "precond_lr": 0.05, "precond_init_scale": 2.0},
]


def check_psgd(name, group, arguments, shapes):
    params, grads = trees(1, 1, shapes)[0], trees(6, 0, shapes)
    vs, hs = trees(6, 2, shapes), trees(6, 3, shapes)
    opt = getattr(optimizers, name)(0.1, **arguments)
    found = run(opt, params, grads, probe=vs, hvp=hs)
    close(found, psgd(group, arguments, params, grads, vs, hs, 0.1))


FULL = {"w": (4, 3), "b": (3,), "s": (), "t": (2, 3, 2), "x": (4, 3)}


@pytest.mark.parametrize("changes", PSGD_CHANGES)
@pytest.mark.parametrize(
    "kron",
    [
        {"max_size": np.inf, "max_skew": 1.0, "balance_probability": 0.0},
        {"max_size": 3, "max_skew": 1e30, "balance_probability": 1.0},
    ],
)
def test_psgd_kron_is_its_rule(changes, kron):
    check_psgd("psgd_kron", Kron, {**PSGD, **changes, **kron}, FULL)


@pytest.mark.parametrize("changes", PSGD_CHANGES)
@pytest.mark.parametrize("shapes", [{"w": (3, 2), "b": (3,)}, {"w": (4, 3), "s": (), "b": (3,)}])
def test_psgd_xmat_is_its_rule(changes, shapes):
    check_psgd("psgd_xmat", XMat, {**PSGD, **changes}, shapes)


@pytest.mark.parametrize("changes", PSGD_CHANGES)
@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_psgd_lra_is_its_rule(changes, balance):
    rng = np.random.default_rng(5)
    factors = rng.normal(size=(2, 16, 3)) / 8
    low_rank = {
        "rank": 3,
        "init_factors": (factors[0], factors[1]),
        "update_factor": "alternate",
        "balance_probability": balance,
    }
    check_psgd("psgd_lra", LRA, {**PSGD, **changes, **low_rank}, {"w": (4, 3), "b": (3,), "s": ()})


METHODS = ["psgd_kron", "psgd_lra", "psgd_xmat"]
SCALES = jnp.array([1.0, 100.0, 0.01])


def ill_conditioned(params):
    return jnp.sum(SCALES * params["w"] ** 2) / 2


@pytest.mark.parametrize("name", METHODS)
def test_newton_mode_makes_an_ill_conditioned_problem_easy(name):
    opt = getattr(optimizers, name)(0.3)

    def step(carry, _):
        params, state = carry
        g = jax.grad(ill_conditioned)(params)
        updates, state = opt.update(g, state, params, value_fn=ill_conditioned)
        return (optax.apply_updates(params, updates), state), None

    params = {"w": jnp.ones(3)}
    (params, _), _ = jax.lax.scan(step, (params, opt.init(params)), None, 8000)
    assert ill_conditioned(params) < 1e-10


@pytest.mark.parametrize("name", METHODS)
def test_newton_mode_asks_for_the_closure(name):
    opt = getattr(optimizers, name)(0.1)
    params = {"w": jnp.ones(3)}
    assert "value_fn" in opt.needs
    with pytest.raises(FlowError, match="value_fn"):
        opt.update(params, opt.init(params), params)


@pytest.mark.parametrize("name", METHODS)
def test_rare_updates_hold_the_preconditioner_but_never_at_first(name):
    opt = getattr(optimizers, name)(0.1, mode="whiten", precond_update_probability=0.0)
    params, (g, *_) = trees(1, 1, FULL)[0], trees(1, 0, FULL)
    state, update = jax.jit(opt.init)(params), jax.jit(opt.update)
    found = [state]
    for _ in range(3):
        _, state = update(g, state, params)
        found.append(state)
    start, first, second, third = (jax.tree.leaves(s[-1]) for s in found)
    assert any(np.any(x != y) for x, y in zip(start, first, strict=True))
    for x, y, z in zip(first, second, third, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(y, z)


def changes_over_keys(name, unbalance, unchanged, **arguments):
    """The share of 400 keys with which a second step changes what the first has left."""
    grads, params = {"w": jnp.array([[1.0, 2.0], [-3.0, 1.0]])}, {"w": jnp.ones((2, 2))}

    def changes(key):
        opt = getattr(optimizers, name)(0.1, mode="whiten", precond_lr=1e-3, key=key, **arguments)
        _, state = opt.update(grads, opt.init(params), params)
        state = unbalance(state)
        return ~unchanged(state, opt.update(grads, state, params)[1])

    return np.mean(jax.jit(jax.vmap(changes))(jax.random.split(jax.random.key(0), 400)))


@pytest.mark.by_hand
@pytest.mark.parametrize("name", METHODS)
def test_the_preconditioner_is_updated_as_often_as_said(name):
    def unchanged(one, two):
        pairs = zip(*(jax.tree.leaves(s[-1].preconditioner) for s in (one, two)), strict=True)
        pairs = [(x, y) for x, y in pairs if jnp.issubdtype(x.dtype, jnp.floating)]
        return jnp.all(jnp.stack([jnp.all(x == y) for x, y in pairs]))

    share = changes_over_keys(name, lambda s: s, unchanged, precond_update_probability=0.5)
    assert abs(share - 0.5) < 0.1


@pytest.mark.by_hand
@pytest.mark.parametrize(("name", "factors"), [("psgd_kron", "factors"), ("psgd_lra", "UV")])
def test_factors_are_balanced_as_often_as_said(name, factors):
    is_element = lambda x: hasattr(x, factors[0]) or hasattr(x, factors)  # noqa: E731

    def pair(element):
        return element.factors if factors == "factors" else (element.U, element.V)

    def pulled(x):
        if not is_element(x):
            return x
        one, two = pair(x)
        one, two = 4 * one, two / 4
        return x._replace(**({"factors": (one, two)} if len(factors) > 2 else {"U": one, "V": two}))

    def skew(state):
        leaves = jax.tree.leaves(state, is_leaf=is_element)
        one, two = pair(next(filter(is_element, leaves)))
        return jnp.max(jnp.abs(one)) / jnp.max(jnp.abs(two))

    share = changes_over_keys(
        name,
        lambda state: jax.tree.map(pulled, state, is_leaf=is_element),
        lambda one, two: abs(skew(two) / skew(one) - 1) < 0.5,
        balance_probability=0.5,
    )
    assert abs(share - 0.5) < 0.1


@pytest.mark.parametrize("name", METHODS)
def test_zero_and_broken_gradients_leave_the_preconditioner_alone(name):
    opt = observe(getattr(optimizers, name)(0.1, mode="whiten"), "failed_updates")
    params, (good,) = trees(1, 1, FULL)[0], trees(1, 0, FULL)
    zero = jax.tree.map(np.zeros_like, good)
    broken = {**good, "w": np.full((4, 3), np.nan)}
    state, update = jax.jit(opt.init)(params), jax.jit(opt.update)
    for g in (zero, good, zero, broken, good):
        updates, state = update(g, state, params)
        assert all(np.all(np.isfinite(u)) for u in jax.tree.leaves(updates))
    end = jax.tree.map(lambda x: np.copysign(np.finfo(x.dtype).max, x), good)
    updates, state = update(end, state, params)
    assert all(np.all(np.isfinite(u)) for u in jax.tree.leaves(updates))
    assert observed(state)["failed_updates"] > 0


@pytest.mark.parametrize("name", ["psgd_kron", "psgd_lra", "psgd_xmat"])
def test_psgd_of_empty_leaves_alone(name):
    params = {"w": jnp.zeros((2, 0)), "b": None}
    opt = sample(name)
    update = lambda state: opt.update(params, state, params)[1]  # noqa: E731
    state = jax.eval_shape(opt.init, params)
    assert signature_of(jax.eval_shape(update, state)) == signature_of(state)


def test_psgd_fits_the_curvature_of_the_trained_leaves_alone():
    curvature = jnp.array([[3.0, 1.0], [1.0, 2.0]])
    loss = lambda w, b: jnp.stack([w[0], b[0]]) @ curvature @ jnp.stack([w[0], b[0]])  # noqa: E731
    opt, params = optimizers.psgd_xmat(trainable={"w": True, "b": False}), {"w": 1.0, "b": 2.0}
    params = jax.tree.map(lambda x: jnp.full(1, x), params)
    updates, _ = opt.update(
        params,
        opt.init(params),
        params,
        value_fn=lambda p: loss(p["w"], p["b"]),
        probe=jax.tree.map(jnp.ones_like, params),
    )
    alone, w = optimizers.psgd_xmat(), params["w"]
    wanted, _ = alone.update(
        w, alone.init(w), w, value_fn=lambda w: loss(w, params["b"]), probe=jnp.ones_like(w)
    )
    np.testing.assert_allclose(updates["w"], wanted, RTOL)
    np.testing.assert_array_equal(updates["b"], 0)


def test_a_first_gradient_of_any_length_gives_soap_its_basis():
    """Squares of 1e-30 are 0 in float32; the basis is that of the direction."""
    first, second = np.random.default_rng(4).normal(size=(2, 3, 3)).astype(np.float32)
    opt = optimizers.soap(0.1)
    step = jax.jit(opt.update)

    def updates(scale):
        state = opt.init(second)
        _, state = step(scale * first, state, second)
        return step(second, state, second)[0]

    short, usual = map(updates, (np.float32(1e-30), np.float32(1)))
    assert abs(usual).max() > 0.01
    np.testing.assert_allclose(short, usual, rtol=1e-4, atol=1e-6)
