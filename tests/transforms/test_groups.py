"""What `masked` and `partition` say when a mask, a label or a closure does not fit."""

import gradchain
import jax
import jax.numpy as jnp
import optax
import pytest
from gradchain.optimizers import sophia_h

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": {"c": jnp.array([[0.5]])}}


def loss(params):
    return jnp.sum(params["a"] ** 2) + jnp.sum(params["b"]["c"] ** 2)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"a": True}, "mask.*leaf b/c"),
        ({"a": True, "b": True, "d": True}, "mask.*has d"),
        ({"a": 1.5, "b": True}, "mask.*'a'.*1.5"),
        (lambda params: {"a": True}, "mask.*leaf b/c"),
    ],
)
def test_masks_that_do_not_fit(mask, message):
    with pytest.raises(ValueError, match=message):
        gradchain.masked(optax.adam(0.1), mask).init(PARAMS)


def test_a_label_without_a_transformation():
    opt = gradchain.partition({"slow": optax.adam(0.1)}, {"a": "slow", "b": "fast"})
    with pytest.raises(ValueError, match=r"'fast'.*'c'"):
        opt.init(PARAMS)


def test_closures_under_optax_point_to_ours():
    grads = jax.grad(loss)(PARAMS)
    labels = {"a": "own", "b": "other"}
    groups = {"own": sophia_h(0.1), "other": optax.sgd(0.1)}
    theirs, ours = optax.partition(groups, labels), gradchain.partition(groups, labels)
    with pytest.raises(ValueError, match=r"gradchain\.partition"):
        theirs.update(grads, theirs.init(PARAMS), PARAMS, value_fn=loss)
    updates, _ = ours.update(grads, ours.init(PARAMS), PARAMS, value_fn=loss)
    assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)


def test_reductions_run_over_the_group():
    """As under Optax: a group is clipped by its own norm."""
    groups = {"own": optax.clip_by_global_norm(1.0), "other": optax.identity()}
    labels = {"a": "own", "b": "other"}
    found = []
    for partition in (optax.partition, gradchain.partition):
        opt = partition(groups, labels)
        found.append(opt.update(PARAMS, opt.init(PARAMS), PARAMS)[0])
    assert jax.tree.all(jax.tree.map(jnp.allclose, *found))
