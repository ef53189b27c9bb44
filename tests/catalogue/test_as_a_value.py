"""An optimizer is a plain value: it is built without a device, from any kind of key."""

import functools
import inspect
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compilation
import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from gradchain import eval_params
from gradchain.catalogue import METHODS
from samples import sample
from subjects import NAMES, extras_for, gradients, same, signature_of, small_tree, step_of
from turns import in_turn

RANDOM = [n for n in NAMES if "key" in inspect.signature(METHODS[n].factory).parameters]
RANDOM.remove("forward_gradient_local")  # where its guess is given, as in the tests, it draws none
RANDOM_WHEN = {
    "grass": {"selection": "uniform_nr"},
    "sania": {"preconditioner": "hessian"},
    "subspace_momentum": {"projection": "srht"},
}
"""Arguments without which a method draws nothing."""

BUILD_ALL = """
import jax
from gradchain.catalogue import METHODS
for method in METHODS.values():
    if method.kind != "measurement":  # which is made on the spot
        method.for_small_model()
jax.config.update("jax_num_cpu_devices", 3)  # an error as soon as a backend exists
print(len(METHODS))
"""


def test_building_every_method_touches_no_device():
    """So that a program can build its optimizer before `jax.distributed.initialize()`."""
    path = os.pathsep.join([str(Path(gradchain.__path__[0]).parent), *sys.path])
    flags = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", BUILD_ALL],
        env={**flags, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str(len(METHODS)), done.stderr


@pytest.mark.parametrize("name", RANDOM)
def test_every_kind_of_key(name):
    """Seeds and keys of any kind, also where JAX forbids raw keys; equal ones make equal states."""
    build = functools.partial(sample, name, **RANDOM_WHEN.get(name, {}))
    params = small_tree()
    expected = build(key=3).init(params)
    assert not same(expected, build(key=4).init(params))
    typed = jax.random.key(3)
    equal = (np.int64(3), jnp.asarray(3), typed, jax.random.key_data(typed))
    for key in equal:
        with jax.legacy_prng_key("error"):
            assert same(build(key=key).init(params), expected)
    for key in (typed, jax.random.key(3, impl="rbg")):
        opt = build(key=key)
        with jax.legacy_prng_key("error"):
            state = jax.eval_shape(opt.init, params)
            new_params, new_state = jax.eval_shape(step_of(opt), params, state)
        assert signature_of(new_params) == signature_of(params)
        assert signature_of(new_state) == signature_of(state)
    for wrong in (1.5, "seed", jnp.zeros((2, 2), jnp.uint32)):
        with pytest.raises(ValueError, match="key"):
            build(key=wrong)


def test_a_key_may_be_traced():
    """Many seeds at once under vmap, and an optimizer that is built inside jit leaks no tracer.

    All methods in one trace, because the search for leaks goes through all objects that there are.
    """
    compilation.hide_what_stands()
    params = small_tree()

    def states_of(seed):
        return {name: sample(name, key=seed).init(params) for name in RANDOM}

    with jax.checking_leaks():
        shapes = jax.eval_shape(jax.vmap(states_of), jnp.arange(3))
    for name, state in shapes.items():
        assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(state)), name


@in_turn(NAMES, 0, of=2)
def test_leaves_that_are_no_arrays_pass_through(name):
    """As Equinox has them: their gradient is None, and closures see them where they were."""
    opt = sample(name)
    arrays, others = small_tree(), {"activation": jnp.tanh, "label": "model"}
    missing = dict.fromkeys(others)

    def seen(fn):
        def checked(tree, *args):
            if isinstance(tree, dict) and "w" in tree:
                assert tree.items() >= others.items()
                tree = {key: tree[key] for key in arrays}
            found = fn(tree, *args)
            is_field = isinstance(found, dict) and found.keys() == arrays.keys()
            return {**found, **missing} if is_field else found

        if isinstance(fn, dict) and fn.keys() == arrays.keys():
            return {**fn, **missing}
        return checked if callable(fn) else fn

    def step(arrays, state):
        extras = {key: seen(value) for key, value in extras_for(opt, arrays).items()}
        grads = {**gradients(arrays), **missing}
        return opt.update(grads, state, {**arrays, **others}, **extras)

    state = opt.init({**arrays, **others})
    assert signature_of(state) == signature_of(opt.init({**arrays, **missing}))
    updates, new_state = jax.eval_shape(step, arrays, state)
    assert signature_of(updates) == signature_of({**arrays, **missing})
    assert signature_of(new_state) == signature_of(state)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Module:
    """Params as a module that can be called, as those of Equinox; a mask of them can be, too."""

    w: Any
    u: Any
    b: Any
    s: Any

    def __call__(self, x):
        return x @ self.w


MASKED = [n for n in NAMES if "mask" in inspect.signature(METHODS[n].factory).parameters]


@in_turn(MASKED, 0, of=3)
def test_masks_of_every_tree_type(name):
    """A module that is callable, a dict for an `nnx.State` and the other way round."""
    plain = small_tree()
    flags = {"w": True, "u": False, "b": True, "s": True}
    containers = {"dict": dict, "module": lambda tree: Module(**tree), "state": nnx.State}
    decays = "weight_decay" in inspect.signature(METHODS[name].factory).parameters
    build = functools.partial(sample, name, **({"weight_decay": 0.1} if decays else {}))
    wanted = len(jax.tree.leaves(build(mask=flags).init(plain)))
    for params_in, mask_in in (("module", "module"), ("state", "dict"), ("dict", "state")):
        params, mask = containers[params_in](plain), containers[mask_in](flags)
        opt = build(mask=mask)
        state = jax.eval_shape(opt.init, params)
        assert len(jax.tree.leaves(state)) == wanted
        if mask_in != "state":
            new_params, _ = jax.eval_shape(step_of(opt), params, state)
            assert signature_of(new_params) == signature_of(params)
    for wrong, message in (({"w": True}, "mask.*leaf b"), ({**flags, "x": True}, "mask.*has x")):
        opt = build(mask=wrong)
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(lambda p, opt=opt: step_of(opt)(p, opt.init(p)), plain)


@in_turn(NAMES, 1, of=2)
def test_parameter_groups(name):
    """In a group of `gradchain.partition` and `gradchain.masked`, closures see the whole tree."""
    params = small_tree()
    labels = {"w": "own", "u": "other", "b": "own", "s": "other"}
    own = {key: label == "own" for key, label in labels.items()}

    def whole(fn):
        def checked(tree, *args):
            assert not isinstance(tree, dict) or not set(own) - set(tree)
            assert all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(tree, is_leaf=is_masked))
            return fn(tree, *args)

        return checked if callable(fn) else fn

    groups = gradchain.partition({"own": sample(name), "other": optax.adam(0.1)}, labels)
    for opt in (groups, gradchain.masked(sample(name), own)):

        def step(params, state, opt=opt):
            extras = {k: whole(v) for k, v in extras_for(sample(name), params).items()}
            return opt.update(gradients(params), state, params, **extras)

        state = opt.init(params)
        updates, new_state = jax.eval_shape(step, params, state)
        assert signature_of(updates) == signature_of(params)
        assert signature_of(new_state) == signature_of(state)
        assert signature_of(eval_params(state, params)) == signature_of(params)


def is_masked(node):
    return isinstance(node, optax.MaskedNode)
