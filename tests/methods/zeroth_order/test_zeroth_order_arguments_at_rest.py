"""Arguments of zeroth order methods that recorded runs leave at rest, transcribed in NumPy."""

from statistics import NormalDist

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from at_rest import (
    DECAY,
    DIRECTIONS,
    START,
    STEPS,
    TABLE,
    draw,
    loss,
    of_the_loss,
    quartic,
    recorded,
    shifted,
    slope,
)
from gradchain import optimizers as o
from gradchain.transforms.zeroth_order import forward_mode_gradient, spsa_gradient
from trajectories import assert_close

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize(("name", "momentum"), [("mezo", 0.0), ("zo_sgd", 0.6)])
def test_momentum_and_decay_of_plain_descent(name, momentum, one_sided):
    x, m, wanted = START, dict.fromkeys(START, 0.0), []
    for z in DIRECTIONS:
        c = slope(x, z, 0.1, one_sided)
        m = {k: momentum * m[k] + c * z[k] for k in x}
        x = {k: x[k] - 0.01 * (m[k] + DECAY * x[k]) for k in x}
        wanted.append(x)
    settings = {"weight_decay": DECAY, "one_sided": one_sided}
    settings |= {"momentum": momentum} if momentum else {}
    assert_close(of_the_loss(getattr(o, name)(0.01, 0.1, sampler=recorded, **settings)), wanted)


BEHIND = {
    "mezo": [],
    "zo_sgd": [],
    "zo_sgd_momentum": [optax.trace(0.9, nesterov=True)],
    "zo_adam": [optax.scale_by_adam()],
    "zo_sign_sgd": [optax.scale_by_sign()],
}


@pytest.mark.parametrize("name", [*BEHIND, "forward_gradient"])
def test_methods_are_their_estimator_and_what_stands_behind_it(name):
    """Three samples of one seed, by one side, far enough away for its curvature to show."""
    given = {"n_samples": 3, "key": 5}
    if name in BEHIND:
        given |= {"perturbation_scale": 0.3, "one_sided": True}
    else:
        given |= {"normalize": True}
    estimate = (spsa_gradient if name in BEHIND else forward_mode_gradient)(**given)
    alike = gradchain.chain(estimate, *BEHIND.get(name, []), optax.scale(-0.01))
    own = {"zo_sign_sgd": {"elementwise": True}, "zo_sgd_momentum": {"nesterov": True}}
    found = of_the_loss(getattr(o, name)(0.01, **given, **own.get(name, {})), quartic)
    assert_close(found, of_the_loss(alike, quartic), 1e-9)


@pytest.mark.parametrize("one_sided", [False, True])
def test_signs_of_entries(one_sided):
    x, wanted, turned = START, [], []
    for z in DIRECTIONS:
        c = slope(x, z, 0.5, one_sided)
        turned.append(c * slope(x, z, 0.01) < 0)
        x = {k: x[k] - 0.01 * np.sign(c * z[k]) for k in x}
        wanted.append(x)
    opt = o.zo_sign_sgd(0.01, 0.5, elementwise=True, one_sided=one_sided, sampler=recorded)
    assert_close(of_the_loss(opt), wanted, 1e-9)
    assert any(turned) == one_sided


@pytest.mark.parametrize("make", [o.zo_sgd_momentum, o.zo_sparse])
def test_a_first_step_goes_by_one_side(make):
    def step(one_sided):
        opt = make(0.01, perturbation_scale=0.1, one_sided=one_sided, sampler=recorded)
        return opt.update(None, opt.init(START), START, value_fn=loss)[0]

    one, two = step(True), step(False)
    z = {k: DIRECTIONS[0][k] * (two[k] != 0) for k in START}
    share = slope(START, z, 0.1, one_sided=True) / slope(START, z, 0.1)
    assert not np.isclose(share, 1)
    assert_close([one], [{k: share * two[k] for k in z}], 1e-9)


def test_a_conservative_step_by_one_side():
    x, wanted, chosen = START, [], set()
    for z in DIRECTIONS:
        c = slope(x, z, 0.2, one_sided=True)
        stay, ahead, back = (loss(shifted(x, z, s * 0.01 * c)) for s in (0, -1, 1))
        if ahead > stay:
            sign = 0 if stay < back else 1
        else:
            sign = -1 if ahead < back else 1
        chosen.add(sign)
        x = shifted(x, z, sign * 0.01 * c)
        wanted.append(x)
    opt = o.zo_sgd_conservative(0.01, 0.2, one_sided=True, sampler=recorded)
    assert_close(of_the_loss(opt), wanted, 1e-9)
    assert len(chosen) > 1


def test_entries_below_a_normal_draw():
    """The authors' masks leave out the share Phi(sparsity); one slope is all that is left."""
    n, sparsity = 20_000, 0.3
    opt = o.zo_sparse(
        0.1, 1.0, sparsity, sampler=lambda key, count, x: jnp.ones_like(x), normal_threshold=True
    )
    x = jnp.zeros(n)
    u = np.asarray(opt.update(None, opt.init(x), x, value_fn=jnp.sum)[0])
    kept = u != 0
    np.testing.assert_allclose(u, -0.1 * kept.sum() * kept, rtol=1e-12)
    assert abs(1 - kept.mean() - NormalDist().cdf(sparsity)) < 0.01


def coupled(params):
    """Where a step in one block changes the slopes of the others."""
    return loss(params) + sum(x.sum() for x in params.values()) ** 2 / 50


@pytest.mark.parametrize("one_sided", [False, True])
def test_blocks_one_after_the_other(one_sided):
    x, wanted = START, []
    for z in DIRECTIONS:
        for block in sorted(x):
            own = {k: z[k] * (k == block) for k in x}
            c = slope(x, own, 0.1, one_sided, coupled)
            x = {k: x[k] - 0.01 * c * own[k] for k in x}
        wanted.append(x)
    opt = o.zo_block_coordinate(0.01, 0.1, one_sided=one_sided, sampler=recorded)
    assert_close(of_the_loss(opt, coupled), wanted, 1e-9)


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
        c = slope(x, {k: mix * z_c[k] + (1 - mix) * z_h[k] for k in x}, 0.1, loss=quartic)
        x = {k: x[k] - 0.01 * (c * m[k] / np.sqrt(v[k] + eps) + DECAY * x[k]) for k in x}
        h = {k: np.sign(c) * m[k] for k in x}
        wanted.append(x)
    opt = o.zo_adamu(
        0.01, 0.1, a, b1, b2, eps, mix, DECAY,
        sampler=lambda key, count, p: jax.tree.map(lambda x: x[count], tables),
    )  # fmt: skip
    assert_close(of_the_loss(opt, quartic), wanted, 1e-9)


def test_a_large_eps_of_slopes():
    """Adam of what one random direction shows of the gradient, with a decay beside it."""
    x, m, v, wanted = START, dict.fromkeys(START, 0.0), dict.fromkeys(START, 0.0), []
    for t, z in enumerate(DIRECTIONS, 1):
        c = slope(x, z, 0.1, one_sided=True)
        m = {k: 0.9 * m[k] + 0.1 * c * z[k] for k in x}
        v = {k: 0.95 * v[k] + 0.05 * (c * z[k]) ** 2 for k in x}
        u = {k: m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.95**t)) + 0.3) for k in x}
        x = {k: x[k] - 0.01 * (u[k] + DECAY * x[k]) for k in x}
        wanted.append(x)
    settings = {"one_sided": True, "weight_decay": DECAY, "sampler": recorded}
    opt = o.zo_adam(0.01, 0.1, b2=0.95, eps=0.3, **settings)
    assert_close(of_the_loss(opt), wanted, 1e-9)
