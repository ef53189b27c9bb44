"""The installed Optax's own suites, run on every method of the catalogue.

Their test bodies ship in Optax's wheel. They decide by the optimizer's name who is given a loss or
a closure, so each method runs under the name of an Optax method with the same needs. What they ask
the tests of ours ask too, so of the six bodies that compile a method meets one, and all by hand.
"""

import functools
import importlib
import inspect
import os
import warnings
from unittest import mock

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl.testing import absltest
from samples import arguments_of, method_named, needs_of, sample
from subjects import NAMES
from turns import in_turn

# the suites are private modules: where they move, these tests must be
# mended, and nothing else; one of them sets XLA's options anew
with warnings.catch_warnings(), mock.patch.dict(os.environ):
    warnings.simplefilter("ignore")
    common = importlib.import_module("optax.contrib._common_test")
    sharding = importlib.import_module("optax._src.sharding_test")
    float64 = importlib.import_module("optax._src.float64_test")

KNOWN_INPUTS = {"params", "value", "value_fn"}
RUNNABLE = [name for name in NAMES if set(needs_of(name)) <= KNOWN_INPUTS]
WITHOUT_CLOSURE = [n for n in RUNNABLE if "value_fn" not in needs_of(n)]
ONLY_GRADIENTS = [n for n in RUNNABLE if "value" not in "".join(needs_of(n))]


def body_of(case, name):
    """The undecorated body of a parameterized test."""
    for function in vars(case).values():
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None and wrapped.__name__ == name:
            return wrapped
    raise LookupError(f"{case.__name__} has no test {name}: the installed Optax has changed")


def respelled(method):
    """The factory, whose updates take the closure under Optax's name for it."""

    def build(*args, **kwargs):
        opt = method.factory(*args, **kwargs)

        @functools.partial(jax.jit, static_argnames="obj_fn")  # one of the bodies steps eagerly
        def update(updates, state, params=None, *, obj_fn=None, **extra):
            if obj_fn is not None:
                extra["value_fn"] = obj_fn
            return opt.update(updates, state, params, **extra)

        return optax.GradientTransformationExtraArgs(opt.init, update)

    build.__signature__ = inspect.signature(method.factory)
    return build


def role_of(name):
    needs = needs_of(name)
    return "sophia" if "value_fn" in needs else "momo" if "value" in needs else "plain"


class JaxButFor:
    """JAX as a body sees it, with a `jit` of ours."""

    def __init__(self, jit):
        self.jit = jit

    def __getattr__(self, name):
        return getattr(jax, name)


def types_alone(function):
    """What it returns, all zero: bodies that ask for shapes and shardings need no program."""

    def zero(x):
        held = np.zeros(x.shape, x.dtype)
        return jnp.asarray(held) if x.sharding is None else jax.device_put(held, x.sharding.spec)

    return lambda *args, **more: jax.tree.map(zero, jax.eval_shape(function, *args, **more))


def compiled_once(function):
    """What is compiled is not compiled again, and of the rest the types are enough."""
    return function if hasattr(function, "lower") else types_alone(function)


class Asserting(absltest.TestCase):
    """What the bodies call on `self`; a skip is an error, so that nothing is skipped silently."""

    def skipTest(self, reason):  # noqa: N802
        raise AssertionError(f"Optax's suite skipped: {reason}")

    _assert_dtype_equals = float64.Float64Test._assert_dtype_equals


def run_common(name, test, **case):
    method = method_named(name)
    factory = respelled(method)
    with (
        mock.patch.object(common, "_get_opt_factory", return_value=factory),
        mock.patch.object(common._inject, "inject_hyperparams", gradchain.inject_hyperparams),
    ):
        body_of(common.ContribTest, test)(
            Asserting(),
            opt_name=role_of(name),
            opt_kwargs=arguments_of(name),
            wrapper_name=None,
            wrapper_kwargs=None,
            **case,
        )


@in_turn(RUNNABLE, 0, of=6)
def test_accepts_extra_arguments_and_does_not_recompile(name):
    run_common(name, "test_optimizers_accept_extra_args", wrap=False)


@in_turn(WITHOUT_CLOSURE, 1, of=6)
def test_injected(name):
    run_common(name, "test_optimizers_can_be_wrapped_in_inject_hyperparams")


@in_turn(RUNNABLE, 2, of=6)
def test_accumulates(name):
    run_common(name, "test_gradient_accumulation", dtype="bfloat16")


@in_turn(RUNNABLE, 3, of=6)
def test_state_is_stable(name):
    with mock.patch.object(common, "jax", JaxButFor(types_alone)):
        run_common(name, "test_state_shape_dtype_shard_stability", dtype=jnp.float16)


def takes_schedule(name):
    rate = inspect.signature(method_named(name).factory).parameters.get("learning_rate")
    return rate is not None and rate.annotation == optax.ScalarOrSchedule


@in_turn(filter(takes_schedule, RUNNABLE), 4, of=6)
def test_accepts_a_schedule(name):
    run_common(name, "test_optimizers_accept_learning_rate_schedule_if_type_annotated_as_such")


@pytest.mark.parametrize("name", ONLY_GRADIENTS)
def test_mixed_float64(name):
    traced = mock.patch.object(float64, "jax", JaxButFor(types_alone))
    with jax.enable_x64(True), mock.patch.object(jax.config, "update"), traced:
        body_of(float64.Float64Test, "test_mixed_dtype_input_outputs")(
            Asserting(), lambda: sample(name), {}
        )


SHARDING_TESTS = (
    "test_init_with_abstract_input",
    "test_state_sharding_type_init_match_update",
    "test_state_sharding_type_preserved_with_jit",
)


@in_turn(ONLY_GRADIENTS, 5, of=6)
def test_sharding(name):
    """On a mesh of eight simulated devices; their version guard compares strings, so patch it.

    In one test, because each body takes what the one before has compiled; one program for a step,
    because a program for each of its operations takes three times as long.
    """
    opt = sample(name)
    compiled = optax.GradientTransformationExtraArgs(opt.init, jax.jit(opt.update))
    newest = mock.patch.object(jax, "__version__", "9.9.9")
    with newest, mock.patch.object(sharding, "jax", JaxButFor(compiled_once)):
        for test in SHARDING_TESTS:
            body_of(sharding.ShardingTest, test)(Asserting(), compiled)
