"""GaLore, FRUGAL and the combinator under them; Adafactor."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.optimizers import adafactor, frugal, galore, scale_by_adam
from gradchain.transforms import every, flow, low_rank, svd_basis
from gradchain.transforms.subspaces import random_basis, random_coordinates
from trajectories import assert_close, average, gradients, run, transcribed, tree

SHAPES = {"b": (3,), "e": (4, 4), "u": (3, 6), "w": (5, 4)}
B1, B2, EPS = 0.7, 0.9, 1e-3


def positive(rows):
    largest = rows[np.arange(len(rows)), np.argmax(abs(rows), axis=1)]
    return rows * np.sign(largest)[:, None]


def adam(k, g, memory, after):
    m, v = average(memory, "m", B1, g), average(memory, "v", B2, g * g)
    c1, c2 = 1 - B1**k, 1 - B2**k
    return m / c1 / (np.sqrt(v / c2) + EPS if after else (np.sqrt(v) + EPS) / np.sqrt(c2))


def restart(memory):
    for name in ("m", "v"):
        memory.pop(name, None)


@pytest.mark.parametrize("projection", ["std", "reverse_std", "left", "right", "full"])
def test_galore(projection):
    rank, interval, lr, decay = 2, 3, 0.1, 0.2

    def rule(t, g, x, memory):
        if g.ndim != 2 or min(g.shape) <= rank:
            moved = x - lr * adam(t, g, memory, after=False)
            return moved * (1 - lr * decay)
        if (t - 1) % interval == 0:
            u, _, vt = np.linalg.svd(g, full_matrices=False)
            tall = g.shape[0] >= g.shape[1]
            right = {"std": tall, "reverse_std": not tall, "left": False}.get(projection, True)
            left = not right or projection == "full"
            memory["left"] = positive(u[:, :rank].T).T if left else np.eye(g.shape[0])
            memory["right"] = positive(vt[:rank]) if right else np.eye(g.shape[1])
        low = memory["left"].T @ g @ memory["right"].T
        back = memory["left"] @ adam(t, low, memory, after=False) @ memory["right"]
        return (x - lr * 0.5 * back) * (1 - lr * decay)

    params, grads = tree(0, **SHAPES), gradients(8, **SHAPES)
    opt = galore(lr, rank, interval, 0.5, B1, B2, EPS, decay, projection)
    assert_close(run(opt, params, grads), transcribed(rule, params, grads), rtol=1e-8)


def test_galore_state_is_low_rank():
    opt = galore(0.1, rank=2)
    state = opt.init({"w": jnp.zeros((50, 8))})
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 2 * 50 * 2 + 2 * 8 + 1


CHOICES = {"columns": 1, "rows": 0, "randk": None}


def indices(count, shape, axis, density):
    size = shape[axis] if axis is not None else np.prod(shape)
    return np.random.default_rng(int(count) + size).permutation(size)[: int(size * density)]


def directions(count, shape, density):
    """Orthonormal rows, or columns where a matrix has more columns than rows."""
    random = np.random.default_rng(int(count) + sum(shape))
    r = round(density * min(shape))
    columns = np.linalg.qr(random.normal(size=(min(shape), r)))[0]
    return columns if shape[0] < shape[1] else columns.T


@pytest.mark.parametrize("rule_of_rest", ["sign_sgd", "sgd", "no"])
@pytest.mark.parametrize("projection", ["columns", "rows", "randk", "svd", "random"])
@pytest.mark.parametrize("reset", [True, False])
def test_frugal(projection, rule_of_rest, reset):
    density, interval, lr, decay = 0.6, 3, 0.1, 0.2
    steps = 8

    def rule(t, g, x, memory):
        x = x * (1 - lr * decay)
        if g.ndim != 2:
            return x - lr * adam(t, g, memory, after=True)
        due = (t - 1) % interval == 0
        if due and reset:
            restart(memory)
            memory["k"] = 0
        k = memory["k"] = memory.get("k", 0) + 1
        if projection in ("svd", "random"):
            if due:
                u, _, vt = np.linalg.svd(g, full_matrices=False)
                wide = g.shape[0] < g.shape[1]
                r = round(density * min(g.shape))
                rows, columns = positive(vt[:r]), positive(u[:, :r].T).T
                if projection == "random":
                    rows = columns = directions(t - 1, g.shape, density)
                memory["left"] = columns if wide else np.eye(g.shape[0])
                memory["right"] = np.eye(g.shape[1]) if wide else rows
            low = memory["left"].T @ g @ memory["right"].T
            up = memory["left"] @ adam(k, low, memory, after=True) @ memory["right"]
            rest = g - memory["left"] @ low @ memory["right"]
        else:
            axis = CHOICES[projection]
            if due:
                memory["mask"] = np.zeros(g.shape)
                chosen = indices(t - 1, g.shape, axis, density)
                if axis is None:
                    memory["mask"].reshape(-1)[chosen] = 1
                else:
                    memory["mask"][(slice(None),) * axis + (chosen,)] = 1
                memory["order"] = chosen
            mask = memory["mask"]
            up, rest = frugal_coordinates(k, g, mask, memory, axis)
        rest = {"sign_sgd": np.sign(rest), "sgd": rest, "no": 0}[rule_of_rest]
        return x - lr * 0.5 * (up + 0.3 * rest)

    def frugal_coordinates(k, g, mask, memory, axis):
        low = np.take(g, memory["order"], axis=axis)
        d = adam(k, low, memory, after=True)
        up = np.zeros_like(g)
        if axis is None:
            up.reshape(-1)[memory["order"]] = d
        else:
            up[(slice(None),) * axis + (memory["order"],)] = d
        return up, g * (1 - mask)

    def sampler(key, count, params):
        def drawn(t, shape):
            if projection == "random":
                return directions(t, shape, density)
            return indices(t, shape, CHOICES[projection], density)

        def of(leaf):
            if leaf.ndim != 2:
                return leaf
            table = np.stack([drawn(t, leaf.shape) for t in range(steps)])
            return jnp.asarray(table)[count]

        return jax.tree.map(of, params)

    params, grads = tree(0, **SHAPES), gradients(steps, **SHAPES)
    opt = frugal(
        lr,
        density,
        interval,
        projection,
        state_free_rule=rule_of_rest,
        state_free_scale=0.3,
        projected_scale=0.5,
        reset_state=reset,
        b1=B1,
        b2=B2,
        eps=EPS,
        weight_decay=decay,
        sampler=None if projection == "svd" else sampler,
    )
    assert_close(run(opt, params, grads), transcribed(rule, params, grads), rtol=1e-8)


ACTIVE = {
    "ascending": ["ab", "cd", "ea", "bc"],
    "descending": ["ed", "cb", "ae", "dc"],
    "mirror": ["ae", "bd", "ae", "bd"],
}


@pytest.mark.parametrize("order", sorted(ACTIVE))
@pytest.mark.parametrize("base", ["adamw", "lion", "sgd"])
def test_frugal_blocks_take_turns(order, base):
    shapes = dict.fromkeys("abcde", (2, 2))
    params, grads = tree(0, **shapes), gradients(8, **shapes)
    memories = {name: {} for name in shapes}
    wanted, x = [], dict(params)
    for t, g in enumerate(grads, start=1):
        active, k = ACTIVE[order][(t - 1) // 2], (t - 1) % 2 + 1
        for name, memory in memories.items():
            if k == 1:
                restart(memory)
            if name not in active:
                u = np.sign(g[name])
            elif base == "adamw":
                u = adam(k, g[name], memory, after=True)
            elif base == "lion":
                u = np.sign(B1 * memory.get("m", 0) + (1 - B1) * g[name])
                average(memory, "m", B2, g[name])
            else:
                u = g[name]
            x = {**x, name: x[name] - 0.1 * u}
        wanted.append(x)
    opt = frugal(0.1, 0.4, 2, "blocks", order, b1=B1, b2=B2, eps=EPS, weight_decay=0.0, base=base)
    assert_close(run(opt, params, grads), wanted)


def test_frugal_random_blocks_are_the_right_number_and_change():
    shapes = dict.fromkeys("abcdef", (2, 2))
    params = tree(0, **shapes)
    grads = [{name: np.full((2, 2), 3.0) for name in shapes}] * 12
    opt = frugal(1.0, 0.5, 1, "blocks", state_free_rule="no", weight_decay=0.0, base="sgd")
    moved = [params, *run(opt, params, grads)]
    active = [
        frozenset(name for name in shapes if not np.array_equal(a[name], b[name]))
        for a, b in itertools.pairwise(moved)
    ]
    assert {len(names) for names in active} == {3}
    assert len(set(active)) > 4


def test_mirror_needs_an_even_number_of_blocks():
    opt = frugal(0.1, 0.5, projection="blocks", block_order="mirror")
    with pytest.raises(ValueError, match="even"):
        opt.init({name: jnp.zeros((2, 2)) for name in "ab"})


def test_full_rank_leaves_exactly_nothing_over():
    opt = frugal(1.0, 1.0, projection="svd", base="sgd", weight_decay=0.0)
    g = tree(3, w=(5, 4))
    assert_close(run(opt, tree(0, w=(5, 4)), [g]), [{"w": tree(0, w=(5, 4))["w"] - g["w"]}])


@pytest.mark.parametrize("shape", [(5, 4), (4, 5)])
def test_random_bases_are_orthonormal_and_change(shape):
    inner = flow(lambda g: g)
    opt = low_rank(inner, every(2, random_basis(2)))
    g = tree(1, w=shape)
    out = run(opt, {"w": np.zeros(shape)}, [g] * 4)
    steps = np.diff(np.stack([np.zeros(shape), *(x["w"] for x in out)]), axis=0)
    projectors = [np.linalg.lstsq(g["w"].T, s.T, rcond=None)[0] for s in steps]
    assert np.allclose(steps[0], steps[1])
    assert not np.allclose(steps[0], steps[2])
    for s in steps:
        assert np.linalg.matrix_rank(s, tol=1e-9) == 2
        assert np.isclose(np.sum(s * g["w"]), np.sum(s * s))
    assert len(projectors) == 4


def test_unprojected_leaves_are_not_scaled_and_a_predicate_selects():
    inner = flow(lambda g: g)
    only_w = lambda leaf: leaf.ndim == 2 and leaf.shape[0] == 5  # noqa: E731
    opt = low_rank(inner, svd_basis(4), scale=0.5, select=only_w)
    g = tree(1, **SHAPES)
    zeros = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    (moved,) = run(opt, zeros, [g])
    assert_close([moved], [{**g, "w": g["w"] / 2}])


def test_coordinates_must_not_be_out_of_range():
    with pytest.raises(ValueError, match="density"):
        random_coordinates(1.5)


def test_a_reset_reaches_foreign_transformations():
    zeros = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    grads = [tree(seed, **SHAPES) for seed in range(5)]

    def through(inner):
        return run(low_rank(inner, every(2, svd_basis(2)), moments="reset"), zeros, grads)

    ours, foreign = through(scale_by_adam()), through(optax.scale_by_adam())
    assert_close(foreign, ours)
    kept = run(low_rank(optax.scale_by_adam(), every(2, svd_basis(2))), zeros, grads)
    assert not np.allclose(kept[-1]["w"], ours[-1]["w"])


ADAFACTOR_SHAPES = {"b": (5,), "c": (3, 4, 5), "d": (2, 5, 2, 5), "s": (), "w": (6, 4)}


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize(
    "rest",
    [
        {"learning_rate": 0.1, "b1": 0.6, "weight_decay": 0.2},
        {"warmup_init": True, "clip_threshold": None, "weight_decay": 0.2, "b1": None},
        {"decay_offset": -2, "scale_weight_decay": False, "weight_decay": 0.2, "b1": 0.6},
    ],
)
def test_adafactor(scale, factored, rest):
    options = {"clip_threshold": 0.8, "scale_weight_decay": True, "decay_offset": 0, **rest}

    def rule(t, g, x, memory):
        b2 = 1 - (t - options["decay_offset"]) ** -0.7
        q = g * g + 1e-6
        order = np.argsort(g.shape, kind="stable")
        if factored and g.ndim >= 2 and g.shape[order[-2]] >= 4:
            d0, d1 = order[-1], order[-2]
            r = average(memory, "r", b2, q.mean(axis=d0, keepdims=True))
            c = average(memory, "c", b2, q.mean(axis=d1, keepdims=True))
            u = g * (r / r.mean(axis=d1, keepdims=True)) ** -0.5 * c**-0.5
        else:
            u = g / np.sqrt(average(memory, "v", b2, q))
        if options["clip_threshold"] is not None:
            u = u / max(1, np.sqrt(np.mean(u * u)) / options["clip_threshold"])
        rho = options.get("learning_rate")
        if rho is None:
            rho = min(1e-6 * t if options.get("warmup_init") else 1e-2, t**-0.5)
        alpha = rho * max(0.05, np.sqrt(np.mean(x * x))) if scale else rho
        u = alpha * u
        if options["b1"] is not None:
            u = average(memory, "m", options["b1"], u)
        decay = options["weight_decay"] * (alpha if options["scale_weight_decay"] else 1)
        return x - u - decay * x

    params, grads = tree(0, **ADAFACTOR_SHAPES), gradients(5, **ADAFACTOR_SHAPES)
    opt = adafactor(
        decay_rate=0.7,
        eps=1e-6,
        min_scale=0.05,
        factored=factored,
        min_dim_size_to_factor=4,
        multiply_by_parameter_scale=scale,
        **options,
    )
    assert_close(run(opt, params, grads), transcribed(rule, params, grads))
