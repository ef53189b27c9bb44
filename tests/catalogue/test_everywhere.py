"""The step of every method lowers for the accelerators, and obeys JAX's strict settings."""

import inspect

import jax
import jax.numpy as jnp
import optax
import pytest
from gradchain.catalogue import METHODS
from gradchain.transforms import reset_every
from jax import export
from samples import sample
from shared import ORDINARY, trained
from subjects import NAMES, extras_for, gradients, signature_of, small_tree, strict

every_method = pytest.mark.parametrize("name", NAMES)


def at_ease(closure):
    """A closure that mixes what it is given, as a loss over leaves of two dtypes does."""

    def under_the_usual_settings(*args):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return closure(*args)

    return under_the_usual_settings


def strict_update(opt, params, grads=None, extras=None):
    """Traces `init` and one update under the strict settings; the inputs are made without."""
    grads = gradients(params) if grads is None else grads
    extras = extras_for(opt, params) if extras is None else extras
    extras = {key: at_ease(x) if callable(x) else x for key, x in extras.items()}
    with strict():
        state = jax.eval_shape(opt.init, params)
        updates, _ = jax.eval_shape(
            lambda g, s, p: opt.update(g, s, p, **extras), grads, state, params
        )
    return updates


@every_method
def test_strict_promotion(name):
    """Over leaves of two dtypes; the odd trees train under it in the contract's tests."""
    with jax.enable_x64(True):
        params = {**small_tree(), "wide": jnp.ones((3, 2), jnp.float64)}
        assert signature_of(strict_update(sample(name), params)) == signature_of(params)


@pytest.mark.parametrize("name", ["galore", "coap", "soap"])
def test_strict_promotion_where_a_state_starts_anew(name):
    """What is held of a leaf in bfloat16 may be wider than the start, or narrower."""
    params = {"narrow": jnp.ones((20, 9), jnp.bfloat16), "wide": jnp.ones((20, 9))}
    found = strict_update(reset_every(3, sample(name)), params)
    assert signature_of(found) == signature_of(params)


PARTS_OF_OPTAX_THAT_FAIL = {
    "adam": lambda: optax.adam(0.1),
    "a cosine schedule": lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 10)),
    "MultiSteps": lambda: optax.MultiSteps(optax.sgd(0.1), 2),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(0.1),
}
"""What of Optax fails by itself under strict promotion: in a flow it cannot but fail, too."""


@pytest.mark.parametrize("part", PARTS_OF_OPTAX_THAT_FAIL)
def test_parts_of_optax_fail_by_themselves(part):
    opt = optax.with_extra_args_support(PARTS_OF_OPTAX_THAT_FAIL[part]())
    with pytest.raises(Exception, match="promotion"):
        strict_update(opt, small_tree(), extras={})


@every_method
def test_lowers_for_accelerators(name):
    """For CUDA and TPU, which needs neither, and for the CPU; `jax.export` writes and reads it."""
    one = trained(name)
    given, platforms = (one.params, one.state, one.params, ORDINARY), ("cpu", "cuda", "tpu")
    lowered = export.export(one.scaled_step, platforms=platforms)(*jax.eval_shape(lambda: given))
    exported = export.deserialize(lowered.serialize())
    assert exported.platforms == platforms
    assert exported.in_tree == jax.tree.structure((given, {}))
    assert exported.out_tree == jax.tree.structure((one.params, one.state))


COMPILED: list[str] = []


@jax.monitoring.register_event_duration_secs_listener
def note_compilation(event, seconds, **_):
    if event.endswith("backend_compile_duration"):
        COMPILED.append(event)


@pytest.mark.xdist_group("operation by operation")  # which all methods compile alike
@every_method
def test_without_jit_no_nan_is_made_and_nothing_compiled_anew(name):
    """Operation by operation, zero gradients under `jax_debug_nans`; compiled at first."""
    opt = sample(name)
    params = {"w": jnp.ones((4, 3)), "zero": jnp.zeros((4, 3)), "b": jnp.ones(3)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    extras = extras_for(opt, params)
    state = opt.init(params)
    # where a coin falls, both its sides are met first, and the second refresh of a period of ten
    warm_up = 12 if "key" in inspect.signature(METHODS[name].factory).parameters else 3
    with jax.debug_nans(True):
        for _ in range(warm_up):
            _, state = opt.update(zeros, state, params, **extras)
        before = len(COMPILED)
        for _ in range(2):
            _, state = opt.update(zeros, state, params, **extras)
    assert len(COMPILED) == before
