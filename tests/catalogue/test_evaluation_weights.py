"""The weights to evaluate are found in any container, for every method that has some.

What an update writes there is the same in any container; that is tried elsewhere.
"""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import accumulate, eval_params
from gradchain.catalogue import METHODS
from samples import sample
from subjects import NAMES, small_tree

AVERAGED = [name for name in NAMES if "evaluation-weights" in METHODS[name].tags]
PARTS = ("weights", "scale", "params_scale")


def stacked_up(opt):
    """In a mask, in two groups, in micro-batches of either kind, in a chain."""
    masked = gradchain.masked(opt, lambda p: jax.tree.map(lambda _: True, p))
    labels = lambda p: {k: "large" if x.ndim == 2 else "small" for k, x in p.items()}  # noqa: E731
    grouped = gradchain.partition({"large": masked, "small": masked}, labels)
    steps = optax.MultiSteps(accumulate(grouped, 1), 1).gradient_transformation()
    return gradchain.chain(optax.identity(), steps)


def is_mark(node):
    return getattr(node, "_fields", None) == PARTS


def in_training(mark):
    """Weights of 3, of which the half, and a quarter of the params, are those to evaluate."""
    if not is_mark(mark):
        return mark
    weights, *scales = (
        jax.tree.map(lambda leaf, x=x: jnp.full_like(leaf, x), part)
        for part, x in zip(mark, (3.0, 0.5, 0.25), strict=True)
    )
    return mark._make([weights, *scales])


@pytest.mark.parametrize("name", AVERAGED)
def test_evaluation_weights_are_found_in_any_container(name):
    params = small_tree()
    state = stacked_up(sample(name)).init(params)
    found = eval_params(jax.tree.map(in_training, state, is_leaf=is_mark), params)
    for key, leaf in params.items():
        np.testing.assert_allclose(found[key], 1.5 + leaf / 4, rtol=1e-6)
