"""What the methods tagged "sparse" promise: what is pruned is zero, and stays so."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain.catalogue import METHODS
from samples import sample
from subjects import loss_of, seed_of

SPARSE = sorted(name for name, entry in METHODS.items() if "sparse" in entry.tags)

STEPS = 40


def trajectory(name):
    """Params and state after each of some steps from noisy gradients."""
    opt = optax.with_extra_args_support(sample(name))
    rng = np.random.default_rng(seed_of(name))
    shapes = {"w": (8, 4), "u": (6, 5), "b": (4,), "s": ()}
    start = {k: jnp.asarray(rng.normal(size=shape), jnp.float32) for k, shape in shapes.items()}
    noise = {k: jnp.asarray(rng.normal(size=(STEPS, *s)), jnp.float32) for k, s in shapes.items()}

    def step(carry, noise_now):
        params, state = carry
        value, grads = jax.value_and_grad(loss_of)(params)
        grads = jax.tree.map(jnp.add, grads, noise_now)
        updates, state = opt.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state)

    return jax.jit(lambda: jax.lax.scan(step, (start, opt.init(start)), noise)[1])()


def pruned_entries(state, params):
    """By leaf, the entries that the state says are pruned, at each step."""
    masks = optax.tree_utils.tree_get(state, "mask")
    if masks is not None:
        return {name: np.asarray(masks[name]) == 0 for name in ("w", "u")}
    rows = optax.tree_utils.tree_get(state, "pruned")
    if isinstance(rows, dict):
        return {name: np.asarray(rows[name]) != 0 for name in ("w", "u")}
    if rows is None:
        rows, count, ended_at = (
            np.asarray(optax.tree_utils.tree_get(state, name))
            for name in ("redundant", "count", "ended_at")
        )
        rows = rows * (count > ended_at + 4)[:, None]
    # `rows_of_matrices`: the sets are in the order of the tree
    parts = {"u": np.asarray(rows)[:, :6], "w": np.asarray(rows)[:, 6:]}
    return {k: np.broadcast_to(v[:, :, None] > 0, params[k].shape) for k, v in parts.items()}


@pytest.mark.parametrize("name", SPARSE)
def test_what_is_pruned_is_zero(name):
    """Exactly, at every step; and something is pruned in the end, not everything."""
    params, state = trajectory(name)
    if name == "hspg":  # what is zero is pruned, there is nothing else to remember
        zero = {k: np.asarray(params[k]) == 0 for k in ("w", "u")}
        masks = {k: np.concatenate([np.zeros_like(z[:1]), z[:-1]]) for k, z in zero.items()}
    else:
        masks = pruned_entries(state, params)
    for key, mask in masks.items():
        assert not np.any(np.asarray(params[key])[mask]), key
    share = np.concatenate([mask[-1].ravel() for mask in masks.values()]).mean()
    if name != "hspg":
        assert 0.3 < share < 0.7
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
