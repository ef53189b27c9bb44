"""What holds of the arguments of every method: names, types, schedules, storage, Optax's names."""

import functools
import importlib
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

import chex
import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.catalogue import METHODS, SCHEDULES
from gradchain.transforms.notation.arguments import argument_of
from gradchain.transforms.notation.arguments import arguments_of as types_of
from gradchain.transforms.notation.domains import Interval
from numeric import numeric
from samples import arguments_of, method_named, sample
from subjects import NAMES, extras_for, gradients, small_tree
from turns import in_turn

every_method = pytest.mark.parametrize("name", NAMES)
LOW = jnp.bfloat16
UNIONS = (None, Union, types.UnionType)


def direction_of(name):
    """The direction `scale_by_<name>` beside a factory, None where there is none."""
    module = importlib.import_module(method_named(name).factory.__module__)
    return getattr(module, f"scale_by_{name}", None)


@pytest.mark.parametrize("name", [name for name in NAMES if direction_of(name)])
def test_direction_and_factory_agree(name):
    """What both take has one default and one type, or one range where a length depends on it."""
    factory, direction = method_named(name).factory, direction_of(name)
    ours, parts = (inspect.signature(f).parameters for f in (factory, direction))
    for argument in set(ours) & set(parts) - {"learning_rate"}:  # a default in the factory only
        assert ours[argument].default == parts[argument].default, argument
        if ours[argument].annotation != parts[argument].annotation:
            ranges = [
                [d for d in types_of(f)[argument].domains if isinstance(d, Interval)]
                for f in (factory, direction)
            ]
            assert ranges[0], argument
            assert ranges[0] == ranges[1], argument


ANYTHING = {
    ("aggregate_by_gramian", "hyperparameters"): "handed on by name to the function that is given",
    ("calibrated", "arguments"): "handed on by name to the factory that is given",
}
"""Arguments that may be anything, and why."""


def factories():
    """Those of methods and schedules, and the primitives whose arguments are checked."""
    yield from (entry.factory for entry in (*METHODS.values(), *SCHEDULES.values()))
    for name, module in list(sys.modules.items()):
        if name.startswith("gradchain.transforms."):
            yield from (f for f in vars(module).values() if hasattr(f, "synonyms"))


def test_arguments_say_what_they_may_be():
    loose = {
        (factory.__name__, argument)
        for factory in factories()
        for argument, p in inspect.signature(factory).parameters.items()
        if Any in (p.annotation, *get_args(p.annotation)) and get_origin(p.annotation) in UNIONS
    }
    assert loose == set(ANYTHING)


@pytest.mark.parametrize(
    ("annotation", "allowed", "refused"),
    [
        (gradchain.transforms.Size | Callable[[int], int], (2, len), (0, 1.5)),
        (Callable[[int], int] | None, (len, None), (2,)),
        (Any | Callable[[Any], Any], (len, {"a": 1}, 2), ()),
    ],
)
def test_a_function_is_taken_beside_what_else_is(annotation, allowed, refused):
    kind = argument_of("argument", annotation)
    for value in allowed:
        kind.check("method", value)
    for value in refused:
        with pytest.raises(ValueError, match=r"method: argument="):
            kind.check("method", value)


def ends_of(kind):
    """The last number of an interval, and one below 0; 0 is where tests/at_rest.py puts all."""
    for domain in kind.domains:
        if isinstance(domain, Interval) and not domain.integer:
            yield from (x for x in (domain.high, -0.25) if x < np.inf and x in domain)


def test_factories_take_what_their_arguments_say_that_they_may_be():
    """What is refused further down is refused by the name of another function."""
    for name, entry in METHODS.items():
        for n, kind in types_of(entry.factory).items():
            for x in ends_of(kind):
                build = functools.partial(entry.factory, **arguments_of(name, **{n: x}))
                unless_refused(build, f"{n}=1 sums up, which bias_correction cannot correct")


def constant(x):
    """A schedule, which is given the number of a step and nothing else, such as a param."""

    def schedule(step):
        assert jnp.shape(step) == ()
        assert jnp.issubdtype(jnp.result_type(step), jnp.integer)
        return x + 0.0 * step

    return schedule


def assert_numbers_may_change(name, shapes):
    """All at once: the program is found, and its shapes are those of the numbers.

    A method that reads its rate at another step refuses a plain array, which does not tell it.
    """
    numbers = numeric(name)
    expected = jax.eval_shape(lambda: shapes({}))
    schedules = jax.tree.map(constant, numbers)
    assert jax.eval_shape(lambda: shapes(schedules)) == expected
    arrays = jax.tree.map(jnp.float32, numbers)
    found = unless_refused(lambda: jax.eval_shape(shapes, arrays), "reads its rate at another step")
    assert found in (None, expected)


@every_method
def test_every_number_may_be_a_schedule_or_an_array(name):
    method, arguments = method_named(name), arguments_of(name)
    params = small_tree()

    def shapes(given):
        opt = method.factory(**{**arguments, **given})
        state = opt.init(params)
        extras = extras_for(opt, params)
        return opt.update(gradients(params), state, params, **extras)[0]

    assert_numbers_may_change(name, shapes)


AGGREGATORS = sorted(name for name, entry in METHODS.items() if entry.kind == "aggregator")


@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_number_of_an_aggregator_may_be_a_schedule_or_an_array(name):
    method, arguments = method_named(name), arguments_of(name)
    params = small_tree()
    several = jax.tree.map(lambda g: jnp.stack([g, 1 - g, 2 * g]), gradients(params))

    def shapes(given):
        rule = method.factory(**{**arguments, **given})
        return rule.update(several, rule.init(params), params)[0]

    assert_numbers_may_change(name, shapes)


RATED = [name for name in NAMES if "learning_rate" in numeric(name)]


@pytest.mark.parametrize("name", RATED)
def test_an_injected_schedule_equals_the_plain_one(name):
    assert_close(injected_by(gradchain, name), with_a_schedule(name))


@in_turn(RATED, 0, of=4)
def test_a_schedule_that_optax_injects_equals_the_plain_one(name):
    """Or it is refused by name."""
    found = unless_refused(lambda: injected_by(optax, name), "gradchain.inject_hyperparams")
    if found is not None:
        assert_close(found, with_a_schedule(name))


def scheduled_arguments(name):
    rate = numeric(name)["learning_rate"]
    return {**arguments_of(name), "learning_rate": optax.linear_schedule(rate, 0.5 * rate, 2)}


def injected_by(library, name):
    """The params after three steps, of a library's injection of all numbers."""
    factory, arguments = method_named(name).factory, scheduled_arguments(name)
    functions = {n for n, value in arguments.items() if callable(value)} - {"learning_rate"}
    return trained_on(library.inject_hyperparams(factory, functions)(**arguments), name)


@functools.lru_cache(maxsize=1)
def with_a_schedule(name):
    """The params after three steps, as both tests of a method compare them."""
    return trained_on(method_named(name).factory(**scheduled_arguments(name)), name)


def trained_on(opt, name):
    """After three steps, in double precision, of an optimizer that needs what the method does."""
    step = step_with_the_needs_of(method_named(name).factory(**arguments_of(name)), opt)

    @jax.jit
    def run(params):
        three = jax.lax.scan(
            lambda carry, _: (step(*carry), None), (params, opt.init(params)), length=3
        )
        return three[0][0]

    with jax.enable_x64(True):
        return run(jax.tree.map(lambda x: np.asarray(x, np.float64), small_tree()))


def assert_close(found, expected):
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-9)


def unless_refused(run, why):
    """What it returns; None where it ends in an error that says why."""
    try:
        return run()
    except ValueError as error:
        if why not in str(error):
            raise
        return None


def step_with_the_needs_of(plain, opt):
    """`(params, state) -> (params, state)` of `opt`, which needs what `plain` needs."""

    def step(params, state):
        updates, state = opt.update(gradients(params), state, params, **extras_for(plain, params))
        return optax.apply_updates(params, updates), state

    return step


STORED = [
    name
    for name in NAMES
    if {"mu_dtype", "nu_dtype"} & set(inspect.signature(method_named(name).factory).parameters)
]


@pytest.mark.parametrize("name", STORED)
def test_moments_are_stored_as_told(name):
    """The state shrinks, no more than the moments do; updates stay in the dtype of the params."""
    method, arguments = method_named(name), arguments_of(name)
    taken = inspect.signature(method.factory).parameters
    told = {n: LOW for n in ("mu_dtype", "nu_dtype") if n in taken}
    params = small_tree()
    usual = jax.eval_shape(method.factory(**arguments).init, params)
    opt = method.factory(**arguments, **told)
    state = jax.eval_shape(opt.init, params)
    low = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == LOW]
    assert low
    assert not any(leaf.dtype == LOW for leaf in jax.tree.leaves(usual))
    updates, new = jax.eval_shape(
        lambda s, p: opt.update(gradients(p), s, p, **extras_for(opt, p)), state, params
    )
    dtypes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert dtypes(new) == dtypes(state)
    assert dtypes(updates) == dtypes(jax.eval_shape(lambda: params))


OF_THE_BASE = frozenset({"clip_by_global_norm", "coordinate_clipping", "perpgrad", "xgrad"}) | {
    "fedhyper_global",
    "flooding",
}
"""Wrappers whose annotations do not say that what they wrap has a state."""


def has_own_moments(name):
    """Whether a momentum is kept that is not that of a method inside it."""
    hints = inspect.signature(method_named(name).factory).parameters.values()
    if name in OF_THE_BASE or any("GradientTransformation" in str(h.annotation) for h in hints):
        return False
    state = jax.eval_shape(sample(name).init, small_tree())
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    return any(f".{moment}[" in path for path in paths for moment in ("mu", "trace", "m1"))


def test_all_momenta_can_be_stored_as_told():
    assert [name for name in NAMES if name not in STORED and has_own_moments(name)] == []


def test_adam_with_low_moments_takes_four_bytes_and_moves():
    """b2 = 0.999 in bfloat16, rounded to nearest, would not move; the run is the same each time."""
    opt = gradchain.optimizers.adam(0.1, mu_dtype=LOW, nu_dtype=LOW)
    params = jnp.zeros(4096)
    assert gradchain.describe(opt, params).bytes_per_parameter == pytest.approx(4, abs=0.01)
    update = jax.jit(opt.update)
    state = opt.init(params)
    for _ in range(300):
        _, state = update(jnp.ones(4096), state, params)
    nu = np.asarray(optax.tree.get(state, "nu"), np.float32)
    assert nu.mean() == pytest.approx(1 - 0.999**300, rel=0.01)
    again = opt.init(params)
    for _ in range(300):
        _, again = update(jnp.ones(4096), again, params)
    assert jnp.array_equal(optax.tree.get(again, "nu"), optax.tree.get(state, "nu"))


def optax_factory(name):
    """Optax's factory of the same name, None where there is none."""
    return getattr(optax, name, None) or getattr(optax.contrib, name, None)


SAME_NAME = [name for name in NAMES if optax_factory(name) and name != "lookahead"]


@pytest.mark.parametrize("name", SAME_NAME)
def test_optax_by_its_own_names(name):
    """All of Optax's arguments by its names: the same trajectory, or an error that tells ours."""
    theirs = optax_factory(name)
    parameters = inspect.signature(theirs).parameters
    small = {"learning_rate": 0.01, "base_optimizer": optax.sgd(0.01), "max_norm": 1.0}
    given = {
        n: small.get(n, p.default) for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD
    }
    given |= {n: 4 for n in ("rank", "update_proj_gap") if n in given}
    expected_opt = optax.with_extra_args_support(theirs(**given))
    factory = method_named(name).factory
    try:
        opt = factory(**given)
    except TypeError as error:
        refused = str(error)
        assert "is not taken here" in refused
        told = {n for n in given if f"{n} is not taken" in refused}
        assert told
        return
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype(jnp.float64), small_tree())
        del params["s"]  # optax.sm3 takes no scalars

        def run(opt, params):
            step, state = jax.jit(step_with_the_needs_of(factory(**given), opt)), opt.init(params)
            for _ in range(3):
                params, state = step(params, state)
            return params

        found, expected = run(opt, params), run(expected_opt, params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-6, 1e-9), found, expected)
