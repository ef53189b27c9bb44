"""Params that carry annotations of their sharding, as Flax's `with_partitioning` makes them."""

import jax
import pytest
from flax import linen, nnx
from samples import sample
from subjects import NAMES, signature_of, small_tree, step_of
from turns import in_turn

AXES = {"w": ("embed", "mlp"), "u": ("mlp", "embed"), "b": ("mlp",), "s": ()}


def is_partitioned(node):
    return isinstance(node, linen.Partitioned)


@in_turn(NAMES, 0, of=2)
def test_linen_boxes(name):
    """A state has the part of a param's annotation that its shape has."""
    opt = sample(name)
    boxed = {key: linen.Partitioned(x, AXES[key]) for key, x in small_tree().items()}
    state = jax.eval_shape(opt.init, boxed)
    new_params, new_state = jax.eval_shape(step_of(opt), boxed, state)
    assert signature_of(new_params) == signature_of(boxed)
    assert signature_of(new_state) == signature_of(state)
    for node in jax.tree.leaves(state, is_leaf=is_partitioned):
        if is_partitioned(node):
            assert len(node.names) == node.value.ndim
            assert set(node.names) <= {"embed", "mlp", None}


class Annotated(nnx.Module):
    def __init__(self):
        kernel = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("embed", "mlp"))
        bias = nnx.with_partitioning(nnx.initializers.zeros_init(), ("mlp",))
        self.dense = nnx.Linear(4, 6, kernel_init=kernel, bias_init=bias, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", ["adam", "adafactor", "galore", "novograd", "shampoo", "k_fac"])
def test_nnx_variables(name):
    """On a mesh, where NNX lays out every variable by its annotation."""
    axes = (jax.sharding.AxisType.Auto,) * 2
    with jax.set_mesh(jax.make_mesh((2, 2), ("embed", "mlp"), axis_types=axes)):
        params = nnx.state(Annotated(), nnx.Param)
        opt = sample(name)
        state = opt.init(params)
        new_params, new_state = jax.eval_shape(step_of(opt), params, state)
    assert signature_of(new_params) == signature_of(params)
    assert signature_of(new_state) == signature_of(state)
    variables = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, nnx.Variable))
    for node in variables:
        if isinstance(node, nnx.Variable):
            assert len(node.get_metadata()["out_sharding"]) <= node.get_value().ndim
