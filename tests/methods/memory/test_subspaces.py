"""Grass, subspace momentum, and the combinator under all that is projected."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import describe, observe, observed
from gradchain.optimizers import galore, grass, scale_by_adam, scale_by_lion, subspace_momentum
from gradchain.transforms import (
    chain,
    every,
    flow,
    lift,
    low_rank,
    matrices,
    sign,
    split,
    svd_basis,
    tap,
    trace,
)
from gradchain.transforms.subspaces import (
    active_leaves,
    random_basis,
    random_coordinates,
    selected_slices,
    sketched_basis,
)
from trajectories import assert_close, average, gradients, run, transcribed, tree

SHAPES = {"b": (3,), "e": (4, 4), "u": (3, 6), "w": (5, 4)}
B1, B2, EPS = 0.7, 0.9, 1e-3

# --- the combinator ------------------------------------------------------------------------------

BASES = {
    "svd": lambda: every(3, svd_basis(2)),
    "svd on both sides": lambda: every(2, svd_basis(2, "full")),
    "svd at multiples": lambda: every(3, svd_basis(2), phase=0, also_first=True),
    "svd at every step": lambda: svd_basis(2, "reverse_std"),
    "sketch": lambda: every(2, sketched_basis(2)),
    "gaussian": lambda: every(2, random_basis(2, kind="gaussian")),
    "hadamard": lambda: every(3, random_basis(2, "left", kind="hadamard")),
    "rows": lambda: every(2, random_coordinates(0.5, 0)),
    "entries": lambda: every(3, random_coordinates(0.5, None)),
    "slices": lambda: every(2, selected_slices(2)),
    "weighted slices": lambda: every(3, selected_slices(2, "multinomial_norm2")),
    "leaves": lambda: every(2, active_leaves(0.5, "ascending")),
}
INNER = {
    "adam": (lambda: scale_by_adam(B1, B2, EPS), {"mu": False, "nu": True}),
    "foreign adam": (lambda: optax.scale_by_adam(B1, B2, EPS), {"mu": False, "nu": True}),
    "lion": (lambda: scale_by_lion(B1, B2), {"mu": False}),
    "heavy ball": (lambda: trace(B1), {"trace": False}),
}
PERIODS = {
    "svd": (3, False),
    "svd on both sides": (2, False),
    "svd at multiples": (3, True),
    "svd at every step": (1, False),
    "sketch": (2, False),
    "gaussian": (2, False),
    "hadamard": (3, False),
    "rows": (2, False),
    "entries": (3, False),
    "slices": (2, False),
    "weighted slices": (3, False),
    "leaves": (2, False),
}
RESIDUALS = {
    "none": (None, lambda e: 0 * e),
    "plain": (lambda: flow(lambda e: e), lambda e: e),
    "sign": (lambda: flow(lambda e: 0.3 * sign(e)), lambda e: 0.3 * np.sign(e)),
}


def stepped(inner, k, low, memory):
    """What the inner rule makes of the coordinates at its k-th step."""
    if inner == "heavy ball":
        memory["trace"] = B1 * memory["trace"] + low
        return memory["trace"]
    if inner == "lion":
        out = np.sign(B1 * memory["mu"] + (1 - B1) * low)
        memory["mu"] = B2 * memory["mu"] + (1 - B2) * low
        return out
    memory["mu"] = B1 * memory["mu"] + (1 - B1) * low
    memory["nu"] = B2 * memory["nu"] + (1 - B2) * low**2
    return memory["mu"] / (1 - B1**k) / (np.sqrt(memory["nu"] / (1 - B2**k)) + EPS)


def operators(basis, params, grads):
    """The matrices of `project` and `unproject`, on flattened leaves, at every step."""

    def step(g):
        chosen, _ = split(g, matrices)
        subspace = chosen >> basis
        tap("down", lift(down)(subspace, chosen))
        tap("up", lift(up)(subspace, chosen))
        return g

    def down(b, x):
        units = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
        return jax.vmap(lambda unit: b.project(unit).reshape(-1))(units).T

    def up(b, x):
        low = jax.eval_shape(b.project, x)
        units = jnp.eye(low.size, dtype=x.dtype).reshape(low.size, *low.shape)
        return jax.vmap(lambda unit: b.unproject(unit).reshape(-1))(units).T

    watched = observe(flow(step), "down", "up")
    return run(watched, params, grads, lambda state, _: observed(state))


def combined(basis, inner, residual, moments, scale, operators):
    k, at_multiples = PERIODS[basis]
    of_residual = RESIDUALS[residual][1]

    def rule(name, t, g, x, memory):
        if not memory:
            memory.update(t=0, k=0, low=None, **dict.fromkeys(INNER[inner][1], 0.0))
        if g.ndim != 2:
            memory["k"] += 1
            return x - 0.1 * stepped(inner, memory["k"], g, memory)
        down, up = operators[t - 1]["down"][name], operators[t - 1]["up"][name]
        fresh = t == 1 or (t % k == 0 if at_multiples else (t - 1) % k == 0)
        if fresh and moments == "reset":
            memory.update(k=0, **dict.fromkeys(INNER[inner][1], 0.0))
        if fresh and moments == "transport" and t > 1:
            turn = down @ operators[t - 2]["up"][name]
            for state, is_square in INNER[inner][1].items():
                old = memory[state]
                memory[state] = (turn @ np.sqrt(old)) ** 2 if is_square else turn @ old
        memory["k"] += 1
        flat = g.reshape(-1)
        low = down @ flat
        rest = of_residual(flat - up @ low) if RESIDUALS[residual][0] else 0
        u = up @ stepped(inner, memory["k"], low, memory) + rest
        return x - 0.1 * scale * u.reshape(g.shape)

    return rule


@pytest.mark.parametrize("seed", range(8))
def test_random_combinations(seed):
    """Any inner rule, basis, treatment of the residual and of the moments, and scale."""
    rng = np.random.default_rng(seed)
    for _ in range(2):
        basis, inner = rng.choice(sorted(BASES)), rng.choice(sorted(INNER))
        residual, moments = (
            rng.choice(sorted(RESIDUALS)),
            rng.choice(["keep", "reset", "transport"]),
        )
        check_combination(basis, inner, residual, moments, float(rng.uniform(0.2, 2.0)))


def check_combination(basis, inner, residual, moments, scale):
    params, grads = tree(0, **SHAPES), gradients(8, **SHAPES)
    make = RESIDUALS[residual][0]
    direction = low_rank(
        INNER[inner][0](),
        BASES[basis](),
        residual=None if make is None else make(),
        moments=moments,
        scale=scale,
    )
    got = run(chain(direction, optax.scale(-0.1)), params, grads)
    seen = operators(BASES[basis](), params, grads)
    rule = combined(basis, inner, residual, moments, scale, seen)
    wanted = {
        name: transcribed(
            lambda t, g, x, memory, name=name: rule(name, t, g, x, memory),
            {name: params[name]},
            [{name: grad[name]} for grad in grads],
        )
        for name in params
    }
    for name, path in wanted.items():
        assert_close([{name: now[name]} for now in got], path, rtol=1e-7)


def test_a_rank_above_the_smaller_side_is_refused():
    """In `init`, by the leaf's shape."""
    x = {"w": jnp.zeros((5, 3))}
    for basis in (svd_basis(4), sketched_basis(4), random_basis(4), selected_slices(4)):
        with pytest.raises(ValueError, match=r"rank=4 .* \(5, 3\)"):
            low_rank(scale_by_adam(), basis).init(x)
    with pytest.raises(ValueError, match="rank"):
        galore(0.1, rank=4, project=lambda leaf: leaf.ndim == 2).init(x)


def test_what_is_too_small_to_be_projected_is_told_by_describe():
    report = describe(galore(0.1, rank=4), {"w": jnp.zeros((5, 3)), "u": jnp.zeros((8, 6))})
    assert report["scale_by_galore.rest"].state_bytes == 2 * 4 * 15
    assert report["scale_by_galore.low"].state_bytes == 2 * 4 * 8 * 4


# --- Grass ---------------------------------------------------------------------------------------


def adam(k, g, memory, after):
    m, v = average(memory, "m", B1, g), average(memory, "v", B2, g * g)
    c1, c2 = 1 - B1**k, 1 - B2**k
    return m / c1 / (np.sqrt(v / c2) + EPS if after else (np.sqrt(v) + EPS) / np.sqrt(c2))


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("selection", ["topr", "multinomial_norm2", "multinomial_norm_nr"])
def test_grass(selection, reset):
    rank, interval, lr, decay, steps = 2, 3, 0.1, 0.2, 8
    again = selection == "multinomial_norm2"

    def indices(t, size):
        drawn = np.random.default_rng(t + size).integers(0, size, rank)
        distinct = np.random.default_rng(t + size).permutation(size)[:rank]
        return drawn if again else distinct

    def rule(t, g, x, memory):
        x = x * (1 - lr * decay)
        if g.ndim != 2:
            return x - lr * adam(t, g, memory, after=True)
        wide = g if g.shape[0] <= g.shape[1] else g.T
        due = (t - 1) % interval == 0
        if due:
            sizes = np.linalg.norm(wide, axis=1)
            memory["at"] = indices(t - 1, len(sizes))
            if selection == "topr":
                memory["at"] = np.sort(np.argsort(-sizes)[:rank])
            q = sizes**2 / np.sum(sizes**2)
            memory["rho"] = 1 / np.sqrt(rank * q[memory["at"]]) if again else np.ones(rank)
        if due and reset:
            for name in ("m", "v", "k"):
                memory.pop(name, None)
        memory["k"] = memory.get("k", 0) + 1
        rho = memory["rho"][:, None]
        d = adam(memory["k"], rho * wide[memory["at"]], memory, after=True)
        u = np.zeros_like(wide)
        np.add.at(u, memory["at"], rho * d)
        return x - lr * 0.5 * (u if wide is g else u.T)

    def sampler(key, count, params):
        def of(leaf):
            if leaf.ndim != 2:
                return jnp.zeros(0, jnp.int32)
            table = np.stack([indices(t, min(leaf.shape)) for t in range(steps)])
            return jnp.asarray(table)[count]

        return jax.tree.map(of, params)

    params, grads = tree(0, **SHAPES), gradients(steps, **SHAPES)
    draws = None if selection == "topr" else sampler
    opt = grass(lr, rank, interval, 0.5, selection, reset, B1, B2, EPS, decay, sampler=draws)
    assert_close(run(opt, params, grads), transcribed(rule, params, grads), rtol=1e-8)


def test_slices_are_drawn_by_their_norms():
    """Those of zeros never; and the projection is the identity in the mean."""
    g = jnp.diag(jnp.array([3.0, 1.0, 0.0, 1.0]))[:, :4]
    opt = low_rank(flow(lambda g: g), selected_slices(2, "multinomial_norm"))

    def step(state, _):
        u, state = opt.update({"w": g}, state)
        return state, u["w"]

    _, moved = jax.jit(lambda s: jax.lax.scan(step, s, length=4000))(opt.init({"w": g}))
    np.testing.assert_allclose(moved.mean(0), g, atol=0.15)
    assert not np.any(np.isnan(moved))


@pytest.mark.parametrize("power", [0, 1, 2])
def test_slices_drawn_without_replacement(power):
    """Two of four at a time, each as often as two draws in a row take it."""
    g, count = jnp.diag(jnp.array([1.0, 2.0, 3.0, 4.0])), 4000
    selection = {0: "uniform_nr", 1: "multinomial_norm_nr", 2: "multinomial_norm2_nr"}[power]
    opt = low_rank(flow(lambda g: g), selected_slices(2, selection))

    def step(state, _):
        u, state = opt.update(g, state)
        return state, jnp.diag(u) / jnp.diag(g)

    _, taken = jax.jit(lambda s: jax.lax.scan(step, s, length=count))(opt.init(g))
    assert np.all(np.sort(taken) == [0, 0, 1, 1])
    q = np.arange(1, 5.0) ** power / np.sum(np.arange(1, 5.0) ** power)
    wanted = q + [q[i] * sum(q[j] / (1 - q[j]) for j in range(4) if j != i) for i in range(4)]
    np.testing.assert_allclose(np.mean(taken, 0), wanted, atol=2 / count**0.5)


# --- subspace momentum ---------------------------------------------------------------------------


def positive(rows):
    largest = rows[np.arange(len(rows)), np.argmax(abs(rows), axis=1)]
    return rows * np.sign(largest)[:, None]


@pytest.mark.parametrize("reset", ["after", "before", "never"])
@pytest.mark.parametrize(
    ("projection", "second"),
    [("svd", "full"), ("topk", "none"), ("uniform", "subset_norm"), ("srht", "none")],
)
def test_subspace_momentum(projection, second, reset):
    rank, interval, lr, decay, steps = 2, 3, 0.1, 0.2, 10
    on_longer = projection in ("topk", "uniform")

    def drawn(t, shape):
        random = np.random.default_rng(t + sum(shape))
        if projection == "uniform":
            return random.permutation(max(shape))[:rank]
        tall = shape[0] >= shape[1]
        return random.normal(size=(rank, shape[1]) if tall else (shape[0], rank))

    def bases(t, g):
        tall = g.shape[0] >= g.shape[1]
        if projection == "svd":
            u, _, vt = np.linalg.svd(g, full_matrices=False)
            rows, columns = positive(vt[:rank]), positive(u[:, :rank].T).T
        elif projection == "srht":
            rows = columns = drawn(t - 1, g.shape)
        else:
            across = int(tall)
            order = np.argsort(-np.linalg.norm(g, axis=across))[:rank]
            at = order if projection == "topk" else drawn(t - 1, g.shape)
            rows = columns = np.eye(max(g.shape))[at]
            columns = columns.T
        right = tall != on_longer
        return (np.eye(g.shape[0]), rows) if right else (columns, np.eye(g.shape[1]))

    def rule(t, g, x, memory):
        n = average(memory, "m", B1, g) if g.ndim != 2 else None
        if g.ndim == 2:
            due = t == 1 or t % interval == 0
            if due:
                memory["left"], memory["right"] = bases(t, g)
            left, right = memory["left"], memory["right"]
            if due and t > 1 and reset == "before":
                memory["m"] = 0.0
            low = left.T @ g @ right.T
            m = average(memory, "m", B1, low)
            if due and t > 1 and reset == "after":
                memory["m"] = 0.0
            n = left @ (m - low) @ right + g
        if second == "none":
            u = n
        else:
            s = g * g
            if second == "subset_norm" and g.ndim == 2:
                s = np.sum(s, axis=int(g.shape[0] >= g.shape[1]), keepdims=True)
            v = average(memory, "v", B2, s)
            u = n / (np.sqrt(v) + EPS) * np.sqrt(1 - B2**t) / (1 - B1**t)
        return (x - lr * u) * (1 - lr * decay)

    def sampler(key, count, params):
        def of(leaf):
            if leaf.ndim != 2:
                return leaf
            return jnp.asarray(np.stack([drawn(t, leaf.shape) for t in range(steps)]))[count]

        return jax.tree.map(of, params)

    params, grads = tree(0, **SHAPES), gradients(steps, **SHAPES)
    opt = subspace_momentum(
        lr,
        rank,
        projection,
        interval,
        second,
        b1=B1,
        b2=B2,
        eps=EPS,
        reset_momentum=reset,
        weight_decay=decay,
        sampler=sampler,
    )
    assert_close(run(opt, params, grads), transcribed(rule, params, grads), rtol=1e-8)


@pytest.mark.parametrize("size", [4, 6])
def test_hadamard_vectors(size):
    """Entries of one magnitude; orthonormal where the side is a power of two."""
    opt = low_rank(flow(lambda g: g), random_basis(2, "left", kind="hadamard"))
    g = {"w": np.eye(size)}
    (moved,) = run(opt, {"w": np.zeros((size, size))}, [g])
    p = moved["w"]
    assert np.linalg.matrix_rank(p, tol=1e-9) == 2
    np.testing.assert_allclose(np.diagonal(p), 2 / (4 if size == 4 else 8))
    assert (size != 4) or np.allclose(p @ p, p)
