"""Names of states are public: checkpoints and tools see them, wherever in a chain a part stands."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flows import PARAMS, close, gradient, run
from gradchain import chain, flow, named, restore_by_name
from gradchain.optimizers import adamw, cautious, lion, prodigy, sam, sgd
from gradchain.transforms import (
    FlowError,
    delay,
    either,
    ema,
    masked,
    reset_when,
    scale_by_learning_rate,
    square,
    step_count,
    trace,
    when,
)
from gradchain.transforms.control import at_params


def paths(state):
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    found = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return sorted({path.split(".a")[0].split(".b.")[0] for path in found})


def test_states_are_named_after_the_primitive_and_numbered():
    opt = flow(lambda g: (g >> ema(0.9)) + (g >> ema(0.99)) + (g >> trace(0.5)))
    assert opt.init(PARAMS)._fields == ("ema", "ema_2", "trace")


def test_explicit_names():
    opt = flow(lambda g: (g >> named("fast", ema(0.5))) + (g >> named("slow", ema(0.9))))
    assert opt.init(PARAMS)._fields == ("fast", "slow")


@pytest.mark.parametrize("name", ["a b", "1st", "_hidden", ""])
def test_names_must_be_identifiers(name):
    with pytest.raises(FlowError, match="identifier"):
        named(name, ema(0.9))


def test_two_states_of_one_explicit_name_are_refused():
    opt = flow(lambda g: (g >> named("mu", ema(0.5))) + (g >> named("mu", ema(0.9))))
    with pytest.raises(FlowError, match="two states are named 'mu'"):
        opt.init(PARAMS)


@pytest.mark.parametrize("name", ["count", "observed"])
def test_reserved_names_are_refused(name):
    with pytest.raises(FlowError, match="reserved"):
        flow(lambda g: g >> named(name, ema(0.5))).init(PARAMS)


def test_a_shared_node_is_stored_and_evaluated_once():
    calls = []

    def counting(x):
        calls.append(x)
        return x * 2

    from gradchain.transforms import lift

    def step(g):
        m = lift(counting)(g) >> ema(0.9)
        return m + m * m - square(m)

    opt = flow(step)
    assert opt.init({"a": PARAMS["a"]})._fields == ("ema",)
    calls.clear()
    params = {"a": PARAMS["a"]}
    opt.update(params, opt.init(params))
    tracing = [x for x in calls if isinstance(x, jax.core.Tracer)]
    assert len(calls) - len(tracing) == 1


def test_the_same_transformation_sent_twice_has_two_states():
    m = ema(0.9)
    assert flow(lambda g: (g >> m) + (2 * g >> m)).init(PARAMS)._fields == ("ema", "ema_2")


def test_a_lone_anonymous_state_takes_the_name_of_its_transformation():
    assert flow(lambda g: g >> ema(0.9)).init(PARAMS)._fields == ("ema",)


def test_a_lone_state_with_a_name_keeps_it_below_that_of_its_transformation():
    def scale_by_mine():
        def step(g):
            past = delay(g, name="mu")
            return past << 0.5 * past + g

        return flow(step)

    assert paths(chain(scale_by_mine()).init(PARAMS)) == ["scale_by_mine.mu"]
    assert paths(chain(named("x", scale_by_mine())).init(PARAMS)) == ["x.mu"]


def test_two_states_make_a_group():
    def pair():
        return flow(lambda g: (g >> named("m", ema(0.9))) + (g >> ema(0.5)))

    assert paths(chain(pair(), pair()).init(PARAMS)) == [
        "pair.ema",
        "pair.m",
        "pair_2.ema",
        "pair_2.m",
    ]


def test_names_do_not_depend_on_the_position_in_a_chain():
    alone = adamw(0.1, weight_decay=0.01)
    clipped = chain(optax.clip_by_global_norm(1.0), adamw(0.1, weight_decay=0.01))
    twice = chain(optax.zero_nans(), chain(optax.clip(1.0), chain(adamw(0.1, weight_decay=0.01))))
    assert set(paths(alone.init(PARAMS))) <= set(paths(twice.init(PARAMS)))
    assert paths(clipped.init(PARAMS)) == paths(alone.init(PARAMS))


def test_names_do_not_depend_on_a_part_that_keeps_state():
    """Unless one of them is that part's: then the method's stand below its own."""
    for opt in (prodigy(), adamw(0.1)):
        for parts in ((ema(0.9), opt), (opt, ema(0.9))):
            assert set(paths(chain(*parts).init(PARAMS))) == {"ema", *paths(opt.init(PARAMS))}
    one = chain(trace(0.5), sgd(0.1, momentum=0.9))
    assert paths(one.init(PARAMS)) == ["scale_by_sgd.trace", "trace"]
    again = flow(lambda g: g >> named("both", chain(ema(0.9), prodigy())))
    names = {f"both.{name}" for name in paths(prodigy().init(PARAMS)) if name != "count"}
    assert set(paths(again.init(PARAMS))) == {"count", "both.ema", *names}


def saved_and_first(old, new, params=PARAMS):
    return run(old, steps=2)[1], new.init(params)


def test_what_is_gained_or_lost_is_named():
    opt, longer = adamw(0.1), chain(ema(0.9, name="smooth"), adamw(0.1))
    saved, first = saved_and_first(opt, longer)
    with pytest.raises(FlowError, match=r"the state has smooth, the checkpoint not; .*added=\["):
        restore_by_name(saved, first)
    gained = restore_by_name(saved, first, added=["smooth"])
    assert int(gained.count) == 2
    close(gained.scale_by_adam, saved.scale_by_adam)
    with pytest.raises(FlowError, match=r"the checkpoint has smooth, the state not; .*removed=\["):
        restore_by_name(gained, opt.init(PARAMS))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            adamw(0.1),
            lion(0.1),
            "another method's: it has .*scale_by_adam; the state has scale_by_l",
        ),
        (adamw(0.1), prodigy(), "method's: it has .*scale_by_adam; the state has .*estim_lr, exp_"),
        (adamw(0.1), chain(adamw(0.1), named("w", adamw(0.1))), "the state has w, the checkpoint"),
        (prodigy(), optax.chain(prodigy(), prodigy()), "may go on as .*0.* or .*1"),
    ],
)
def test_a_checkpoint_of_another_method_is_refused_by_name(old, new, says):
    with pytest.raises(FlowError, match=says):
        restore_by_name(*saved_and_first(old, new))


def test_the_state_of_a_method_has_its_name_wherever_it_is_wrapped():
    """Also where it is all that there is of another method's."""
    one = sam(sgd(0.1, momentum=0.9))
    saved, first = one.init(PARAMS), cautious(one).init(PARAMS)
    assert paths(saved) == ["sgd.scale_by_sgd.trace"]
    close(restore_by_name(saved, first).sam, saved)


def test_what_is_called_otherwise_is_named():
    """A method's only state is called like the method where it is wrapped."""
    opt = flow(lambda g: g >> optax.trace(0.9), name="mine")
    saved, first = saved_and_first(opt, cautious(opt))
    with pytest.raises(FlowError, match="it has trace; the state has mine"):
        restore_by_name(saved, first)
    close(restore_by_name(saved, first, renamed={"trace": "mine"}).mine, saved.trace)


def test_a_checkpoint_of_other_shapes_is_refused():
    other = jax.tree.map(lambda leaf: jnp.zeros((*leaf.shape, 2)), PARAMS)
    with pytest.raises(FlowError, match=r"mu\.a is float32.*, in the checkpoint float32"):
        restore_by_name(*saved_and_first(adamw(0.1), adamw(0.1), other))


def test_a_checkpoint_of_adamw_loads_into_a_chain_with_a_clip_in_front():
    alone = adamw(0.1, weight_decay=0.01)
    _, saved = run(alone, steps=3)
    clipped = chain(optax.clip_by_global_norm(1e9), adamw(0.1, weight_decay=0.01))
    leaves, _ = jax.tree.flatten(saved)
    restored = jax.tree.unflatten(jax.tree.structure(clipped.init(PARAMS)), leaves)
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    g = gradient(4)
    close(
        clipped.update(g, saved, PARAMS)[0],
        alone.update(g, saved, PARAMS)[0],
    )


def test_optax_tree_tools_find_the_states_without_ambiguity():
    opt = chain(optax.clip(1.0), adamw(0.1))
    _, state = run(opt, steps=2)
    assert int(optax.tree.get(state, "count")) == 2
    for name in ("mu", "nu"):
        assert jax.tree.structure(optax.tree.get(state, name)) == jax.tree.structure(PARAMS)
    reset = optax.tree.set(state, mu=jax.tree.map(jnp.zeros_like, PARAMS))
    assert not jnp.any(optax.tree.get(reset, "mu")["a"])


def test_one_count_for_the_whole_flow():
    opt = chain(adamw(0.1), scale_by_learning_rate(optax.linear_schedule(1.0, 0.0, 10)))
    assert len(optax.tree.get_all_with_path(opt.init(PARAMS), "count")) == 1


def test_states_compare_pickle_and_print():
    import pickle

    _, state = run(adamw(0.1), steps=1)
    again = pickle.loads(pickle.dumps(state))
    assert type(again) is type(state)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert "mu=" in repr(state)


def halved(g):
    return g >> ema(0.5)


def test_a_flow_is_named_after_its_function():
    """After the factory around it only where the function is `step` or a lambda."""

    def scale_by_mine():
        def rotation(g):
            return g >> trace(0.5)

        def step(g):
            return (g >> flow(rotation)) + (g >> flow(lambda g: g >> ema(0.5)))

        return flow(step)

    opt = scale_by_mine()
    assert repr(opt) == "scale_by_mine()"
    assert opt.init(PARAMS)._fields == ("rotation", "scale_by_mine")
    assert repr(flow(halved)) == "halved()"
    assert repr(flow(halved, name="other")) == "other()"


def test_a_name_is_given_where_the_node_is_made():
    """Every factory of ours takes `name=`, and what reads other signals does, too."""

    def step(g):
        m = g >> ema(0.5, name="mu")
        held = g >> when(step_count() > 1, ema(0.9), name="held")
        other = g >> named("other", either(step_count() > 1, ema(0.9), trace(0.1)))
        fresh = g >> reset_when(step_count() == 2, ema(0.9), name="fresh")
        return m + held + other + fresh + (g >> at_params(g, optax.trace(0.1), name="shown"))

    state = flow(step).init(PARAMS)
    assert state._fields == ("count", "mu", "held", "other", "fresh", "shown")
    same_state = flow(lambda g: g >> named("mu", ema(0.5))).init(PARAMS)
    assert jax.tree.structure(flow(lambda g: g >> ema(0.5, name="mu")).init(PARAMS)) == (
        jax.tree.structure(same_state)
    )
    assert chain(adamw(0.1, name="mine")).init(PARAMS)._fields == ("count", "mine")
    pair = chain(ema(0.5), trace(0.5), name="pair")
    assert flow(lambda g: g >> pair).init(PARAMS).pair._fields == ("ema", "trace")
    half = masked(ema(0.5), {"a": True, "b": False}, name="half")
    assert flow(lambda g: g >> half).init(PARAMS)._fields == ("half",)
    with pytest.raises(FlowError, match="identifier"):
        ema(0.5, name="not a name")
