"""Reading signals from outside; nothing is computed for what nobody observes."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flows import PARAMS, close, gradient, run
from gradchain import chain, flow, named, observe, observed, tap
from gradchain.optimizers import adamw, lookahead, weight_prediction
from gradchain.transforms import (
    FlowError,
    either,
    ema,
    every,
    global_norm,
    lift,
    step_count,
    trace,
    when,
)


def tapped():
    def step(g):
        tap("norm", global_norm(lift(jnp.sin)(g)))
        m = g >> named("mu", ema(0.9))
        return tap("momentum", m)

    return flow(step, name="tapped")


def plain():
    return flow(lambda g: g >> named("mu", ema(0.9)), name="tapped")


def jaxpr(opt):
    return str(jax.make_jaxpr(opt.update)(PARAMS, opt.init(PARAMS), PARAMS))


def test_nothing_is_computed_or_stored_for_taps_that_nobody_observes():
    assert jaxpr(tapped()) == jaxpr(plain())
    assert jaxpr(chain(tapped(), optax.scale(2.0))) == jaxpr(chain(plain(), optax.scale(2.0)))
    assert jax.tree.structure(tapped().init(PARAMS)) == jax.tree.structure(plain().init(PARAMS))


def test_observing_changes_no_update():
    close(run(observe(tapped(), "norm", "momentum"))[0], run(tapped())[0])


def test_a_tap():
    _, state = run(observe(tapped(), "norm"), steps=2)
    expected = jnp.sqrt(sum(jnp.sum(jnp.sin(x) ** 2) for x in jax.tree.leaves(gradient(2))))
    assert float(observed(state)["norm"]) == pytest.approx(float(expected), rel=1e-6)


def test_all_taps_without_a_name():
    _, state = run(observe(chain(optax.clip(9.0), tapped())), steps=1)
    assert set(observed(state)) == {"norm", "momentum"}


def test_before_the_first_step_everything_is_zero_in_its_shape():
    seen = observed(observe(tapped()).init(PARAMS))
    close(seen["momentum"], jax.tree.map(jnp.zeros_like, PARAMS))
    assert seen["norm"].shape == ()


def test_a_state_by_name_gives_its_newest_value():
    opt = adamw(0.1)
    _, state = run(observe(opt, "mu", "scale_by_adam.nu"), steps=2)
    seen = observed(state)
    close(seen["mu"], state.scale_by_adam.mu)
    close(seen["scale_by_adam.nu"], state.scale_by_adam.nu)


def test_a_foreign_node_gives_what_leaves_it():
    _, state = run(observe(chain(optax.trace(0.9), optax.scale(2.0)), "trace"), steps=1)
    close(observed(state)["trace"], gradient(1))


def test_unknown_and_ambiguous_names():
    with pytest.raises(FlowError, match=r"tapped has no signal named 'nope'.*mu.*norm"):
        observe(tapped(), "nope")
    two = chain(adamw(0.1), named("second", adamw(0.1)))
    with pytest.raises(FlowError, match=r"several signals named 'mu': scale_by_adam.mu, second"):
        observe(two, "mu")
    observe(two, "second.scale_by_adam.mu")


def test_a_plain_optax_transformation():
    _, state = run(observe(optax.scale_by_rms(), "scale_by_rms"), steps=1)
    close(observed(state)["scale_by_rms"], run(optax.scale_by_rms(), steps=1)[0][0])


def test_an_observed_flow_inside_another_is_still_observed():
    watched = observe(tapped(), "norm")
    for around in (chain, optax.chain, lambda opt: optax.masked(opt, True)):
        opt = around(watched)
        _, state = run(opt, steps=1)
        assert set(observed(state)) == {"norm"}


def test_observing_twice_adds():
    _, state = run(observe(observe(tapped(), "norm"), "mu"), steps=1)
    assert set(observed(state)) == {"norm", "mu"}


class TestInside:
    """What runs as a whole inside another transformation."""

    def held(self):
        def inner():
            def step(g):
                tap("doubled", 2 * g)
                return g >> named("mu", trace(0.5))

            return flow(step)

        return chain(named("held", every(2, chain(inner(), optax.scale(3.0)))))

    def test_states_and_taps_inside_a_held_flow(self):
        opt = self.held()
        watched = observe(opt, "held.doubled", "held.inner.mu")
        outs, state = run(watched, steps=2)
        close(outs, run(opt, steps=2)[0])
        close(observed(state)["held.doubled"], jax.tree.map(lambda x: 2 * x, gradient(1)))
        close(observed(state)["held.inner.mu"], gradient(1))

    def test_short_names_and_all_taps_reach_inside(self):
        _, state = run(observe(self.held(), "mu"), steps=1)
        close(observed(state)["mu"], gradient(1))
        _, state = run(observe(self.held()), steps=1)
        assert set(observed(state)) == {"held.doubled"}

    def test_inside_and_outside_together_and_again(self):
        opt = observe(observe(self.held(), "held", "held.doubled"), "mu")
        outs, state = run(opt, steps=3)
        assert set(observed(state)) == {"held", "held.doubled", "mu"}
        close(observed(state)["held"], outs[2])

    def test_an_observed_held_flow_is_copied_into_another(self):
        opt = chain(optax.clip(9.0), observe(self.held(), "mu"))
        _, state = run(opt, steps=1)
        assert set(observed(state)) == {"mu"}

    def test_nothing_is_computed_unless_asked_for(self):
        inner = flow(lambda g: g >> named("mu", trace(0.5)), name="inner")
        bare = chain(named("held", every(2, chain(inner, optax.scale(3.0)))))
        assert jaxpr(self.held()) == jaxpr(bare)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: lookahead(inner, sync_period=2, pullback_momentum="pullback"),
        weight_prediction,
        lambda inner: flow(lambda g: g >> either(step_count() < 9, inner, optax.identity())),
    ],
    ids=["pulled_back", "shown_other_params", "one_of_two"],
)
def test_every_node_that_runs_a_flow_is_transparent(wrap):
    """The norm that the inner flow sees is read through whatever runs it."""
    _, state = run(observe(wrap(tapped()), "norm"), steps=1)
    expected = optax.tree.norm(jax.tree.map(jnp.sin, gradient(1)))
    close(observed(state)["norm"], expected)


def test_a_tap_of_what_keeps_no_state_is_found_where_it_runs_now_and_then():
    inner = flow(lambda g: tap("doubled", 2 * g) / 2)
    rests = flow(lambda g: g >> when(step_count() < 9, inner, otherwise=0.0))
    _, state = run(observe(rests, "doubled"), steps=1)
    close(observed(state)["doubled"], jax.tree.map(lambda x: 2 * x, gradient(1)))
