"""Optax transformations, and anybody's, stand anywhere in a flow."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flows import PARAMS, close, run
from gradchain import chain, flow, named
from gradchain.transforms import ema, every, global_norm

FOREIGN = {
    "adam": lambda: optax.scale_by_adam(),
    "rms": lambda: optax.scale_by_rms(),
    "trace": lambda: optax.trace(0.9),
    "clip": lambda: optax.clip_by_global_norm(0.5),
    "chain": lambda: optax.chain(optax.clip(0.1), optax.scale_by_adam()),
    "masked": lambda: optax.masked(optax.scale_by_rms(), {"a": True, "b": False}),
    "schedule": lambda: optax.scale_by_schedule(lambda t: 1.0 / (t + 1)),
    "decay": lambda: optax.add_decayed_weights(0.1),
    "inject": lambda: optax.inject_hyperparams(optax.adamw)(learning_rate=0.1),
    "multi": lambda: optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
    "partition": lambda: optax.partition(
        {"x": optax.sgd(0.1), "y": optax.adam(0.1)}, {"a": "x", "b": "y"}
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_node_is_the_transformation_itself(name):
    expected, _ = run(FOREIGN[name]())
    close(run(flow(lambda g: g >> FOREIGN[name]()))[0], expected)
    close(run(chain(FOREIGN[name]()))[0], expected)
    close(run(chain(chain(FOREIGN[name]()), optax.identity()))[0], expected)


def test_in_the_middle_at_both_ends_and_twice():
    def step(g):
        g = g >> optax.clip_by_global_norm(1.0)
        u = 2 * g >> optax.scale_by_adam()
        return (u + (g >> optax.trace(0.5))) >> optax.scale(-0.1)

    opt = flow(step)
    clip, adam = optax.clip_by_global_norm(1.0), optax.scale_by_adam()
    expected, _ = run(optax.chain(clip, optax.scale(2.0), adam, optax.scale(-0.1)))
    traced, _ = run(optax.chain(clip, optax.trace(0.5), optax.scale(-0.1)))
    close(run(opt)[0], jax.tree.map(jnp.add, expected, traced), rtol=1e-5)


def test_ours_inside_theirs():
    ours = chain(ema(0.9), optax.scale(2.0))
    close(run(optax.chain(optax.scale(3.0), ours))[0], run(chain(optax.scale(3.0), ours))[0])


def test_a_users_pair_of_functions():
    def init(params):
        return {"seen": jnp.zeros((), jnp.int32)}

    def update(updates, state, params=None):
        return updates, {"seen": state["seen"] + 1}

    opt = flow(lambda g: g >> named("counter", optax.GradientTransformation(init, update)))
    _, state = run(opt, steps=3)
    assert int(state.counter["seen"]) == 3


def test_extra_arguments_reach_foreign_nodes():
    opt = chain(optax.polyak_sgd(1.0))
    close(run(opt, value=2.0)[0], run(optax.polyak_sgd(1.0), value=2.0)[0])


def test_a_foreign_node_of_another_shape():
    """A projected signal is initialised on its own shape, not on the params."""
    from gradchain.transforms import lift

    halve = lift(lambda x: x.reshape(-1)[: x.size // 2], "halve")

    def step(g):
        low = halve(g) >> named("low", optax.scale_by_adam())
        return g * global_norm(low)

    _, state = run(flow(step))
    assert jax.tree.map(jnp.shape, state.low.mu) == {"a": (1,), "b": {"c": (2,)}}


def test_stateless_foreign_nodes_leave_no_trace():
    assert chain(optax.clip(1.0), ema(0.9)).init(PARAMS)._fields == ("ema",)
    assert chain(optax.clip(1.0)).init(PARAMS) == optax.EmptyState()


def test_a_foreign_node_held_between_steps():
    outs, _ = run(flow(lambda g: g >> every(3, optax.scale_by_adam())), steps=4)
    close(outs[1], outs[0])
    close(outs[2], outs[0])
    assert float(jnp.abs(outs[3]["a"] - outs[0]["a"]).max()) > 1e-3


def test_it_is_handed_what_optax_would_hand_it():
    """The extra inputs as `update` was given them, and nothing of ours beside."""
    seen = []

    def spy(updates, state, params=None, **extra):
        seen.append((params, extra))
        return updates, state

    def handed(chained):
        opt = chained(
            ema(0.5), optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), spy)
        )
        seen.clear()
        opt.update(PARAMS, opt.init(PARAMS), PARAMS, value=1.0, mine="yes")
        return seen[-1]

    close(handed(chain)[0], handed(optax.chain)[0])
    assert handed(chain)[1] == handed(optax.chain)[1] == {"value": 1.0, "mine": "yes"}
    held = handed(lambda *parts: chain(every(2, chain(*parts))))
    assert held[1] == {"value": 1.0, "mine": "yes"}


def test_a_users_update_with_named_inputs():
    def update(updates, state, params, *, value):
        return jax.tree.map(lambda u: u * value, updates), state

    own = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    for opt in (chain(own), chain(every(1, own)), chain(every(3, own))):
        updates, _ = opt.update(PARAMS, opt.init(PARAMS), PARAMS, value=2.0)
        close(updates, jax.tree.map(lambda p: 2 * p, PARAMS))


def loss(params):
    return sum(jnp.sum((leaf - 0.3) ** 4) for leaf in jax.tree.leaves(params))


LINE_SEARCHES = {
    "backtracking": lambda: [optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15)],
    "zoom": lambda: [optax.sgd(1.0), optax.scale_by_zoom_linesearch(15)],
    "lbfgs": lambda: [optax.lbfgs()],
    "reduce_on_plateau": lambda: [optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)],
}


@pytest.mark.parametrize("name", LINE_SEARCHES)
def test_line_searches(name):
    def trained(opt):
        params, state = PARAMS, opt.init(PARAMS)

        @jax.jit
        def step(params, state):
            value, grad = jax.value_and_grad(loss)(params)
            extra = {"value": value, "grad": grad, "value_fn": loss}
            updates, state = opt.update(grad, state, params, **extra)
            return optax.apply_updates(params, updates), state

        for _ in range(3):
            params, state = step(params, state)
        return params

    close(trained(chain(*LINE_SEARCHES[name]())), trained(optax.chain(*LINE_SEARCHES[name]())))
