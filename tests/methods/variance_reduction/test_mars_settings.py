"""MARS and its forms."""

import numpy as np
import optax
import pytest
from gradchain.optimizers import (
    mars,
    mars_shampoo,
)
from trajectories import assert_close, gradients, run, tree


@pytest.mark.parametrize(("torch_axis", "flax_axis"), [(0, 1), (-2, -1)])
def test_mars_shampoo_of_flax_kernels(torch_axis, flax_axis):
    torch_way = mars_shampoo(0.1, output_axis=torch_axis)
    flax_way = mars_shampoo(0.1, output_axis=flax_axis)
    params, grads = tree(0, w=(5, 3)), gradients(3, w=(5, 3))
    turn = lambda tree: {"w": tree["w"].T}  # noqa: E731
    turned = run(flax_way, turn(params), [turn(g) for g in grads])
    assert_close([turn(x) for x in turned], run(torch_way, params, grads))


def test_mars_wraps_anything():
    params, grads = tree(), gradients(4)
    plain = run(optax.sgd(0.1), params, grads)
    assert_close(run(mars(optax.sgd(0.1), gamma=0.0, max_norm=None), params, grads), plain)
    assert not np.allclose(run(mars(optax.sgd(0.1)), params, grads)[-1]["w"], plain[-1]["w"])
