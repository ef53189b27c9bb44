"""Arguments of memory methods that recorded runs leave at rest, transcribed in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from at_rest import (
    DECAY,
    GRADS,
    RATE,
    START,
    STEPS,
    adam_of,
    assert_decay_enters,
    draw,
    stepping,
    walk,
)
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf

pytestmark = pytest.mark.usefixtures("x64")


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
        "hesso": {**PRUNED, "target_sparsity": 0.5, "momentum": 0.9, "dampening": 0.4},
        "hesso_cric": {**CRIC, "momentum": 0.9, "dampening": 0.4},
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
EXTRA = {"hesso_cric": {"value": jnp.asarray(1.0)}}
CASES = [(how, name) for how, names in ENTERS.items() for name in names]


@pytest.mark.parametrize(("how", "name"), CASES)
def test_where_the_decay_enters(how, name):
    assert_decay_enters(how, name, ENTERS[how][name], **EXTRA.get(name, {}))


def test_dampening_as_in_torch():
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


def test_subsets_of_vectors():
    def rule(x, gs):
        v, out = np.zeros(2), []
        for g in gs:
            v = 0.95 * v + 0.05 * np.sum(g.reshape(2, 3) ** 2, axis=1)
            x = x - RATE * g / (np.repeat(np.sqrt(v), 3) + 0.02)
            out.append(x)
        return out

    start, grads = draw(0, (), {"b": (6,)}), [draw(t, (), {"b": (6,)}) for t in range(1, 4)]
    opt = o.subset_norm(
        RATE, subset_size=4, subset_1d=True, b1=0.0, b2=0.95, eps=0.02, bias_correction=False
    )
    assert_close(walk(opt, start, grads), by_leaf(rule, start, grads))


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


@pytest.mark.parametrize("ahead", [0.0, 0.9])
def test_momentum_of_sparse_training(ahead):
    mask = {k: np.abs(v) > 0.3 for k, v in START.items()}

    def path(x, gs, kept):
        m, out = 0.0, []
        for g in gs:
            m = 0.9 * m + g
            x = kept * (x - RATE * (g + ahead * m if ahead else m))
            out.append(x)
        return out

    kept = {k: mask[k] if x.ndim > 1 else np.ones_like(x) for k, x in START.items()}
    paths = {k: path(START[k], [g[k] for g in GRADS], kept[k]) for k in START}
    opt = o.sparse_momentum(RATE, **FAR, nesterov=bool(ahead), init_mask=mask)
    assert_close(walk(opt), [{k: paths[k][t] for k in paths} for t in range(STEPS)])


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


def test_a_basis_is_pulled_towards_orthonormality():
    """Its own steps lengthen it, the penalty shortens it."""
    lam, gamma = 0.7, 5
    start = {"w": draw(0)["w"] @ np.ones((3, 1)) @ np.ones((1, 3))}  # 4 by 3, of rank 1
    grads = [{"w": draw(t)["w"]} for t in range(1, 7)]
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


def test_a_large_eps_of_micro_adam():
    opt = o.micro_adam(RATE, 9, 1.0, b2=0.95, eps=0.3, value_dtype=None)
    assert_close(walk(opt), by_leaf(stepping, START, GRADS), 1e-9)
