"""Adam in muP."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers
from gradchain.transforms.step_size import (
    mup_init_scale,
    mup_readout_multiplier,
    mup_width_multipliers,
)
from trajectories import assert_close, draws, falling, rate_at, run

# In the layout (out, in): the model is 4 wide, then 2 and 3 times as wide in its two hidden layers.
SHAPES = {"embed": (8, 3), "hidden": (12, 8), "readout": (2, 12), "bias": (8,), "gain": ()}
BASE = {"embed": (4, 3), "hidden": (4, 4), "readout": (2, 4), "bias": (4,), "gain": ()}
# kind, width multiplier, and whether the gradient shrinks with the width
LEAVES = {
    "embed": ("vector", 2.0, True),
    "hidden": ("matrix", 2.0, True),
    "readout": ("vector", 3.0, False),
    "bias": ("vector", 2.0, True),
    "gain": ("scalar", 1.0, True),
}
MASK = {k: k != "bias" for k in SHAPES}


def mup_adam(params, grads, lr, wd, decoupled, scale_weight_decay, scale_eps, leaves=LEAVES):
    b1, b2, eps = 0.8, 0.7, 1e-2
    runs = {}
    for k, x in params.items():
        kind, mult, shrinks = leaves[k]
        width = mult if kind == "matrix" else 1.0
        decay = (wd * width if scale_weight_decay else wd) if MASK[k] else 0.0
        e = eps / mult if scale_eps and shrinks else eps
        m, v, runs[k] = 0 * x, 0 * x, []
        for t, g in enumerate((g[k] for g in grads), 1):
            rate = rate_at(lr, t) / width
            if decoupled:
                x = x * (1 - rate * decay)
            else:
                g = g + decay * x
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            x = x - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + e)
            runs[k].append(x)
    return [{k: r[t] for k, r in runs.items()} for t in range(len(grads))]


@pytest.mark.parametrize(
    ("decoupled", "scale_weight_decay", "scale_eps"),
    [(False, True, True), (False, False, False), (True, True, False), (True, False, True)],
)
def test_follows_the_transcription(decoupled, scale_weight_decay, scale_eps):
    params, grads = draws(shapes=SHAPES, steps=4)
    settings = (decoupled, scale_weight_decay, scale_eps)
    opt = optimizers.mup_adam(
        *(falling, BASE, 0.8, 0.7, 1e-2, 0.3, *settings),
        mask=MASK,
    )
    assert_close(run(opt, params, grads), mup_adam(params, grads, falling, 0.3, *settings))


def test_kernels_of_flax_have_the_fan_in_first():
    """The transposed model with fan_in_axis=-2 takes the transposed steps."""
    params, grads = draws(shapes=SHAPES, steps=3)
    settings = {"b1": 0.8, "b2": 0.7, "eps": 1e-2, "weight_decay": 0.3, "scale_eps": True}
    torch = run(optimizers.mup_adam(0.1, BASE, **settings), params, grads)
    flip = lambda tree: {k: np.transpose(x) for k, x in tree.items()}  # noqa: E731
    base = {k: s[::-1] for k, s in BASE.items()}
    opt = optimizers.mup_adam(0.1, base, **settings, fan_in_axis=-2)
    flax = run(opt, flip(params), [flip(g) for g in grads])
    for k in SHAPES:
        np.testing.assert_allclose(flax[-1][k], torch[-1][k].T, rtol=1e-12)


def test_is_adam_where_nothing_has_grown():
    params, grads = draws(shapes=SHAPES, steps=3)
    got = run(optimizers.mup_adam(0.1, SHAPES, scale_eps=True), params, grads)
    wanted = run(optax.adam(0.1), params, grads)
    assert_close(got, wanted)


def test_multipliers_and_init_scales():
    params = {k: jnp.zeros(s) for k, s in SHAPES.items()}
    found = mup_width_multipliers(params, BASE)
    assert found == {k: v[:2] for k, v in LEAVES.items()}
    assert mup_width_multipliers(jax.eval_shape(lambda: params), lambda _: BASE) == found
    assert mup_width_multipliers({"w": jnp.zeros((12, 8))}, {"w": (4, 4)}, -2)["w"][1] == 3.0
    # The fan-in of a convolution (out, in, height, width) is the last dimension that grows.
    assert mup_width_multipliers({"w": jnp.zeros((6, 4, 3, 3))}, {"w": (2, 2, 3, 3)})["w"][1] == 2.0
    scales = mup_init_scale(params, BASE)
    assert scales == {k: 2**-0.5 if k == "hidden" else 1.0 for k in SHAPES}
    assert mup_readout_multiplier(4.0) == 0.25


@pytest.mark.parametrize(("shape", "base"), [((4, 4, 4), (2, 2, 2)), ((4, 4), (2,))])
def test_impossible_base_shapes_are_refused(shape, base):
    with pytest.raises(ValueError, match="base"):
        mup_width_multipliers({"w": jnp.zeros(shape)}, {"w": base})
