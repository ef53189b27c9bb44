"""COAP beside a transcription, in matrices and kernels; its 8-bit states; Tucker decompositions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain import describe
from gradchain.optimizers import coap
from gradchain.transforms.store import dequantize_blockwise, quantize_blockwise
from gradchain.transforms.subspaces import partial_tucker
from trajectories import assert_close, average, gradients, run, transcribed, tree

SHAPES = {"b": (3,), "e": (4, 4), "u": (3, 6), "w": (5, 4)}
B1, B2, EPS, SCALE, DECAY, LR = 0.7, 0.9, 1e-3, 0.5, 0.2, 0.1
RANK, INTERVAL, FACTOR = 2, 2, 2
STEPS = 7


def positive(rows):
    largest = rows[np.arange(len(rows)), np.argmax(abs(rows), axis=1)]
    return rows * np.sign(largest)[:, None]


def sketch(x, omega):
    q, _ = np.linalg.qr(x @ omega)
    return positive(np.linalg.svd(q.T @ x, full_matrices=False)[2])


def up(factors, low):
    for axis, factor in factors.items():
        low = np.moveaxis(np.tensordot(factor, low, axes=(1, axis)), 0, axis)
    return low


def down(factors, x):
    return up({axis: factor.T for axis, factor in factors.items()}, x)


def moved(factors, g, m, rows_along):
    """A gradient step on J, by autodiff of its definition."""

    def product(factors, x, transposed):
        for axis, factor in factors.items():
            factor = factor.T if transposed else factor
            x = jnp.moveaxis(jnp.tensordot(factor, x, axes=(1, axis)), 0, axis)
        return x

    def loss(factors):
        again = product(factors, product(factors, g, True), False)
        back = product(factors, m, False)
        lengths = [jnp.maximum(jnp.linalg.norm(x, axis=rows_along), 1e-8) for x in (back, g)]
        cosines = jnp.sum(back * g, axis=rows_along) / lengths[0] / lengths[1]
        return jnp.mean((again - g) ** 2) * (1 - jnp.mean(cosines))

    with jax.enable_x64(True):
        slopes = jax.grad(loss)({axis: jnp.asarray(f) for axis, f in factors.items()})
    return {
        axis: f
        - 0.3 * np.asarray(slopes[axis]) * min(1, 0.05 / (np.linalg.norm(slopes[axis]) + 1e-6))
        for axis, f in factors.items()
    }


def hooi(x, ranks):
    """A partial Tucker decomposition with many sweeps: where the library's have converged to."""

    def leading(y, axis, rank):
        u = np.linalg.svd(np.moveaxis(y, axis, 0).reshape(y.shape[axis], -1))[0]
        return positive(u[:, :rank].T).T

    factors = {axis: leading(x, axis, rank) for axis, rank in ranks.items()}
    errors = []
    for count in range(100):
        for axis, rank in ranks.items():
            others = {a: f for a, f in factors.items() if a != axis}
            factors[axis] = leading(down(others, x), axis, rank)
        core = np.linalg.norm(down(factors, x)) / np.linalg.norm(x)
        errors.append(np.sqrt(abs(1 - core**2)))
        if count > 1 and abs(errors[-2] - errors[-1]) < 1e-4:
            break
    return factors


def omega_of(shape):
    return np.random.default_rng(sum(shape)).normal(size=(min(shape), RANK))


def sampler(key, count, params):
    return jax.tree.map(
        lambda x: jnp.asarray(omega_of(x.shape) if x.ndim == 2 else np.zeros(0)), params
    )


def follow(t, g, memory, restore, states):
    """The subspace of step t, as a factor for each axis."""
    i = t - 1
    if g.ndim == 2:
        tall = g.shape[0] >= g.shape[1]
        axis, rows_along = int(tall), 1
        x = g if tall else g.T
        find = lambda omega: {axis: sketch(x, omega).T}  # noqa: E731
    else:
        rows_along = 2
        ranks = {3: 2, 2: 2} if g.shape[1] > 1 else {3: 1}
        find = lambda _: hooi(g, ranks)  # noqa: E731
    if i % INTERVAL:
        return
    old = memory.get("p")
    if i == 0:
        memory["p"] = find(omega_of(g.shape) if g.ndim == 2 else None)
    elif i % (INTERVAL * FACTOR) == 0:
        memory["p"] = find(old[axis] if g.ndim == 2 else None)
    else:
        memory["p"] = moved(old, g, memory["m"], rows_along)
    if restore and old is not None:
        for name, is_square in states.items():
            turned = down(
                memory["p"], up(old, np.sqrt(memory[name]) if is_square else memory[name])
            )
            memory[name] = turned**2 if is_square else turned


def is_projected(g):
    return g.ndim == 4 or (g.ndim == 2 and min(g.shape) > RANK)


@pytest.mark.parametrize(("restore", "kernels"), [(True, True), (True, False), (False, False)])
def test_coap_with_adam(restore, kernels):
    shapes = {"k": (2, 3, 5, 4), "n": (3, 1, 5, 4)} if kernels else SHAPES

    def rule(t, g, x, memory):
        low = g
        if is_projected(g):
            follow(t, g, memory, restore, {"m": False, "v": True})
            low = down(memory["p"], g)
        m, v = average(memory, "m", B1, low), average(memory, "v", B2, low * low)
        u = m / (np.sqrt(v) + EPS) * np.sqrt(1 - B2**t) / (1 - B1**t)
        if is_projected(g):
            u = SCALE * up(memory["p"], u)
        return (x - LR * u) * (1 - LR * DECAY)

    params, grads = tree(0, **shapes), gradients(STEPS, **shapes)
    # the square root of the ratio is what kernels are divided by: 5 // 2 and 4 // 2
    ranks = {"rank_ratio": 4.0} if kernels else {"rank": RANK}
    opt = coap(
        LR,
        **ranks,
        update_interval=INTERVAL,
        reproject_factor=FACTOR,
        restore_state=restore,
        scale=SCALE,
        b1=B1,
        b2=B2,
        eps=EPS,
        weight_decay=DECAY,
        projection_lr=0.3,
        projection_clip=0.05,
        project=(lambda leaf: leaf.ndim == 4) if kernels else None,
        sampler=sampler,
    )
    assert_close(run(opt, params, grads), transcribed(rule, params, grads), rtol=1e-6)


@pytest.mark.parametrize("rescales", [True, False])
def test_coap_with_adafactor(rescales):
    def rule(t, g, x, memory):
        low = g
        if is_projected(g):
            follow(t, g, memory, True, {"m": False})
            low = down(memory["p"], g)
        b2 = 1 - t**-0.7
        q = low * low + 1e-6
        if low.ndim == 2:
            order = np.argsort(low.shape, kind="stable")
            r = average(memory, "r", b2, q.mean(axis=order[-1], keepdims=True))
            c = average(memory, "c", b2, q.mean(axis=order[-2], keepdims=True))
            u = low * (r / r.mean(axis=order[-2], keepdims=True)) ** -0.5 * c**-0.5
        else:
            u = low / np.sqrt(average(memory, "v", b2, q))
        u = u / max(1, np.sqrt(np.mean(u * u)) / 0.8)
        alpha = LR * max(1.0, np.sqrt(np.mean(x * x))) if rescales else LR
        m = average(memory, "m", B1, alpha * u)
        m = SCALE * up(memory["p"], m) if is_projected(g) else m
        return x - DECAY * alpha * x - m

    params, grads = tree(0, **SHAPES), gradients(STEPS, **SHAPES)
    opt = coap(
        LR,
        RANK,
        update_interval=INTERVAL,
        reproject_factor=FACTOR,
        restore_state=True,
        scale=SCALE,
        base="adafactor",
        b1=B1,
        eps=1e-6,
        weight_decay=DECAY,
        projection_lr=0.3,
        projection_clip=0.05,
        clip_threshold=0.8,
        decay_rate=0.7,
        min_scale=1.0,
        multiply_by_parameter_scale=rescales,
        sampler=sampler,
    )
    assert_close(run(opt, params, grads), transcribed(rule, params, grads), rtol=1e-6)


def test_coap_in_eight_bits():
    """Both moments are kept as the quantiser gives them back; P and the rest are not."""
    shapes = {"w": (40, 30)}

    def kept(x):
        codes, largest = quantize_blockwise(jnp.asarray(x), 64, True)
        return np.asarray(dequantize_blockwise(codes, largest, x.shape, 64, True))

    def rule(t, g, x, memory):
        follow(t, g, memory, False, {})
        low = down(memory["p"], g)
        m, v = average(memory, "m", B1, low), average(memory, "v", B2, low * low)
        u = m / (np.sqrt(v) + EPS) * np.sqrt(1 - B2**t) / (1 - B1**t)
        memory["m"], memory["v"] = kept(m), kept(v)
        return x - LR * SCALE * up(memory["p"], u)

    params, grads = tree(0, **shapes), gradients(5, **shapes)
    opt = coap(
        LR,
        RANK,
        update_interval=INTERVAL,
        reproject_factor=FACTOR,
        scale=SCALE,
        b1=B1,
        b2=B2,
        eps=EPS,
        projection_lr=0.3,
        projection_clip=0.05,
        eight_bit=True,
        block_size=64,
        sampler=sampler,
    )
    # Codes are chosen in float32, where the nearest may be another one by rounding.
    assert_close(run(opt, params, grads), transcribed(rule, params, grads), rtol=1e-4)
    state = describe(opt, {"w": jnp.zeros((40, 30), jnp.float32)}).state_bytes
    blocks = -(-40 * RANK // 64)
    count, key = 4, 8
    assert state == 2 * (40 * RANK + 4 * blocks) + 4 * RANK * 30 + count + key


def test_what_cannot_be_projected_is_refused():
    with pytest.raises(ValueError, match="rank"):
        coap(0.1)
    with pytest.raises(ValueError, match=r"rank=4 .*\(5, 3\)"):
        coap(0.1, 4, project=lambda leaf: True).init({"w": jnp.zeros((5, 3))})
    with pytest.raises(ValueError, match="rank_ratio"):
        coap(0.1, 1, project=lambda leaf: True).init({"k": jnp.zeros((3, 3, 4, 4))})


def test_tucker_bases_of_an_exact_tensor_leave_nothing_out():
    random = np.random.default_rng(0)
    core = random.normal(size=(2, 3, 4, 2))
    factors = random.normal(size=(6, 2)), random.normal(size=(7, 4))
    x = np.einsum("abcd,xa,yc->xbyd", core, *factors)
    with jax.enable_x64(True):
        found = partial_tucker(jnp.asarray(x), (0, 2), (2, 4))
        assert np.abs(found.residual(jnp.asarray(x))).max() < 1e-12
        for p in found.factors:
            assert np.allclose(p.T @ p, np.eye(p.shape[1]))


def test_without_a_momentum_the_bases_follow_the_last_gradient():
    params, grads = tree(0, w=(5, 3)), gradients(7, w=(5, 3))
    settings = {"rank": 2, "update_interval": 2, "reproject_factor": 2}
    got, wanted = (run(coap(0.1, b1=b1, **settings), params, grads) for b1 in (0.0, 1e-300))
    assert_close(got, wanted)
