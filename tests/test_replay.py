"""The replay harness itself: it accepts an independent implementation and refuses a wrong one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import replay

# Published functions of optax that follow a record's rule under the same argument names.
INDEPENDENT = {
    "adam__defaults": optax.adam,
    "adamax__defaults": optax.adamax,
    "amsgrad__optax_corrected_max": optax.amsgrad,
    "clip_by_global_norm__optax": optax.clip_by_global_norm,
    "lamb__defaults": optax.lamb,
    "lars__defaults": optax.lars,
    "lion__nondefault_decay": optax.lion,
    "momo__default": optax.contrib.momo,
    "stochastic_heavy_ball__drops": lambda learning_rate, momentum: optax.chain(
        optax.scale_by_learning_rate(learning_rate), optax.trace(momentum)
    ),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_accepts_an_independent_implementation(name):
    replay.check(replay.load(f"{name}.npz"), INDEPENDENT[name])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda learning_rate: optax.adam(learning_rate, eps=1e-5),
        lambda learning_rate: optax.adam(learning_rate, b2=0.9991),
        lambda learning_rate: optax.adam(learning_rate * (1 + 1e-5)),
        lambda learning_rate: optax.set_to_zero(),
    ],
    ids=["eps", "b2", "rate", "no step"],
)
def test_refuses_a_wrong_rule(wrong):
    with pytest.raises(AssertionError, match="departs from torch"):
        replay.check(replay.load("adam__defaults.npz"), wrong)


def test_refuses_nan():
    def broken(learning_rate):
        return optax.stateless(lambda g, p: jax.tree.map(lambda x: x * jnp.nan, g))

    with pytest.raises(AssertionError, match="departs from"):
        replay.check(replay.load("adam__defaults.npz"), broken)


def test_objective_is_differentiated_at_the_parameters():
    record = replay.load("sophia_h__defaults.npz")
    seen = replay.replay(record, lambda **_: optax.sgd(0.1))["params"]
    w = np.asarray(record.series["params"]["w"][0])
    a, b, c = (record.constants[f"problem/{k}"]["w"] for k in "abc")
    for now in seen["w"]:
        w = w - 0.1 * (a * w + b * w**3 + c)
        np.testing.assert_allclose(now, w, rtol=1e-12)


def test_every_record_is_of_a_kind_that_can_be_replayed():
    for path in replay.REFERENCES.glob("*.npz"):
        assert replay.load(path).kind in replay.KINDS, path.name


def test_the_recorded_run_moves_every_leaf_that_is_fed_a_gradient():
    # A tolerance relative to the parameters would say little about a leaf that hardly moved.
    for path in replay.REFERENCES.glob("*.npz"):
        record = replay.load(path)
        if record.kind in ("schedule", "scales", "transform"):
            continue
        entries = jax.tree.leaves(record.series.get("params"))
        leaves = [leaf for leaf in entries if len(leaf) > 1]  # one entry is where a run begins
        moved = [np.max(np.abs(leaf - leaf[0])) > 1e-6 for leaf in leaves]
        assert all(moved) or (any(moved) and one_leaf_at_a_time(leaves)), path.name


def one_leaf_at_a_time(leaves):
    """No step moves two: a method that chooses its leaf may leave others where they are."""
    steps = [[np.any(now != then) for then, now in itertools.pairwise(leaf)] for leaf in leaves]
    return max(map(sum, zip(*steps, strict=True))) == 1
