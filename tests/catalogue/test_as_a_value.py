"""An optimizer is a plain value: it is built without a device, from any kind of key."""

import functools
import inspect
import os
import subprocess
import sys
from pathlib import Path

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.catalogue import METHODS
from samples import sample
from subjects import NAMES, same, signature_of, small_tree, step_of

RANDOM = [n for n in NAMES if "key" in inspect.signature(METHODS[n].factory).parameters]
RANDOM_WHEN = {"sania": {"preconditioner": "hessian"}}
"""Arguments without which a method draws nothing."""

BUILD_ALL = """
import jax
from gradchain.catalogue import METHODS
for method in METHODS.values():
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
        assert same(build(key=key).init(params), expected)
    for key in (*equal, jax.random.key(3, impl="rbg")):
        opt = build(key=key)
        with jax.legacy_prng_key("error"):
            state = jax.eval_shape(opt.init, params)
            new_params, new_state = jax.eval_shape(step_of(opt), params, state)
        assert signature_of(new_params) == signature_of(params)
        assert signature_of(new_state) == signature_of(state)
    for wrong in (1.5, "seed", jnp.zeros((2, 2), jnp.uint32)):
        with pytest.raises(ValueError, match="key"):
            build(key=wrong)


@pytest.mark.parametrize("name", RANDOM)
def test_a_key_may_be_traced(name):
    """Many seeds at once under vmap, and an optimizer that is built inside jit leaks no tracer."""
    params = small_tree()

    def state_of(seed):
        return sample(name, key=seed).init(params)

    with jax.checking_leaks():
        shapes = jax.eval_shape(jax.vmap(state_of), jnp.arange(3))
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(shapes))
