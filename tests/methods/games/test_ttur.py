"""TTUR: two optimizers, driven by one tree of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers
from trajectories import assert_close, draws, falling, run

LABELS = {"w": "disc", "b": "gen", "s": "gen"}


def test_each_player_is_its_own_optimizer():
    """Rests freeze moments, counts and schedules: as if the resting steps had not been."""
    params, grads = draws()
    opt = optimizers.ttur(
        *({"disc": 0.3, "gen": falling}, LABELS),
        inner_kwargs={"b1": 0.5},
        update_every={"gen": 3},
    )
    got = run(opt, params, grads)
    disc = run(optax.adam(0.3, 0.5), {"w": params["w"]}, [{"w": g["w"]} for g in grads])
    assert_close([{"w": x["w"]} for x in got], disc)
    mine = {k: params[k] for k in "bs"}
    own = run(optax.adam(falling, 0.5), mine, [{k: g[k] for k in "bs"} for g in grads[2::3]])
    held = [mine, mine, *(x for x in own for _ in range(3))][: len(grads)]
    assert_close([{k: x[k] for k in "bs"} for x in got], held)


@pytest.mark.parametrize("inner", [optax.sgd, "sgd"])
def test_inner_may_be_any_factory_and_labels_any_form(inner):
    params = {"a": {"x": jnp.ones(2), "y": jnp.ones(())}, "b": jnp.ones(3)}
    prefix = {"a": "player one", "b": "two"}
    rates = {"player one": 0.1, "two": 0.2}
    for labels in (prefix, lambda params: prefix):
        opt = optimizers.ttur(rates, labels, inner)
        updates, _ = opt.update(params, opt.init(params), params)
        np.testing.assert_allclose(updates["a"]["x"], -0.1, rtol=1e-6)
        np.testing.assert_allclose(updates["a"]["y"], -0.1, rtol=1e-6)
        np.testing.assert_allclose(updates["b"], -0.2, rtol=1e-6)


def test_the_state_of_a_player_has_its_leaves_only():
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(4), "s": jnp.ones(())}
    state = optimizers.ttur({"disc": 0.1, "gen": 0.1}, LABELS).init(params)
    for player, size in ((state.disc, 12), (state.gen, 10)):
        moments = [x for x in jax.tree.leaves(player) if jnp.issubdtype(x.dtype, jnp.floating)]
        assert sum(x.size for x in moments) == size


def test_labels_and_periods_without_a_rate_are_refused():
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match="critic"):
        optimizers.ttur({"disc": 0.1}, {"w": "disc"}, update_every={"critic": 2})
    opt = optimizers.ttur({"disc": 0.1}, {"w": "critic"})
    with pytest.raises(ValueError, match="critic"):
        opt.update(params, opt.init(params), params)
    with pytest.raises(ValueError, match="unknown optimizer"):
        optimizers.ttur({"disc": 0.1}, {"w": "disc"}, "adma")
