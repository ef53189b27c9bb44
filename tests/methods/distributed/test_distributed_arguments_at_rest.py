"""Arguments of distributed methods that recorded runs leave at rest, transcribed in NumPy."""

import numpy as np
import optax
import pytest
from at_rest import (
    DIRECTIONS,
    GRADS,
    RATE,
    START,
    assert_decay_enters,
    of_the_loss,
    quartic,
    recorded,
    slope,
    walk,
)
from gradchain import optimizers as o
from trajectories import assert_close, by_leaf

pytestmark = pytest.mark.usefixtures("x64")


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


def test_a_skipping_worker_at_a_rate_of_zero():
    """A warm-up may start there, and nobody may ever meet."""
    for rate, p in ((0.0, 1.0), (RATE, 0.0)):
        opt = o.proxskip_vip(rate, p=p)
        found = walk(opt)[-1]
        wanted = {k: START[k] - rate * sum(g[k] for g in GRADS) for k in START}
        assert_close([found], [wanted])


def test_slopes_of_just_one_byte_from_far_away():
    x, wanted = START, []
    for z in DIRECTIONS:
        c = slope(x, z, 0.3, loss=quartic)
        x = {k: x[k] - 0.01 * c * z[k] for k in x}
        wanted.append(x)
    opt = o.just_one_byte(
        0.01, 0.3, one_byte=False,
        perturbation_fn=lambda t, worker, sample, params: recorded(None, t + 1, params),
    )  # fmt: skip
    assert_close(of_the_loss(opt, quartic), wanted, 1e-9)


def test_the_decay_of_econtrol_is_outside_its_memories():
    assert_decay_enters("beside it", "econtrol", {"k": 3, "eta": 0.3})
