"""Arguments of clipping methods that recorded runs leave at rest, transcribed in NumPy."""

import gradchain
import numpy as np
import optax
import pytest
from at_rest import GRADS, RATE, START, assert_transposes, walk
from gradchain import optimizers as o
from trajectories import assert_close

pytestmark = pytest.mark.usefixtures("x64")


def test_bounds_of_moments_that_are_clipped():
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


def test_units_along_the_other_axis():
    def clipped(axis):
        clip = gradchain.transforms.shape.adaptive_grad_clip(0.3, channel_axis=axis)
        return optax.chain(clip, optax.sgd(RATE))

    assert_transposes(clipped)
