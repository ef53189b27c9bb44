"""Captured inputs and cotangents are those of the layers: they give the gradient and the Fisher."""

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from gradchain.layers import (
    Layer,
    linen_layer_gradients,
    linen_layers,
    nnx_layer_gradients,
    nnx_layers,
)


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


IMAGES = np.random.default_rng(0).normal(size=(5, 7, 6, 2))
LABELS = np.arange(5) % 3


def captured(loss, params):
    """The capture, compiled as one: it is slow operation by operation."""
    return jax.jit(lambda params: linen_layer_gradients(loss, params))(params)


def mean_loss(logits):
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(LABELS)), LABELS])


class Step(nn.Module):
    """One of several equal layers."""

    @nn.compact
    def __call__(self, x, _):
        return jnp.tanh(nn.Dense(x.shape[-1], param_dtype=float)(x)), None


class Linen(nn.Module):
    """Convolutions with strides, dilation and odd paddings; shared and scanned dense layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 2), strides=(2, 1), padding="CIRCULAR", param_dtype=float)(x)
        x = nn.Conv(
            2,
            (2, 2),
            kernel_dilation=(1, 2),
            padding=[(0, 1), (1, 0)],
            use_bias=False,
            param_dtype=float,
        )(x)
        x = nn.Dense(4, param_dtype=float)(x)  # any number of leading axes
        shared = nn.Dense(4, param_dtype=float)
        x = shared(jnp.tanh(shared(x))).mean(axis=(1, 2))
        scanned = nn.scan(
            nn.remat(Step), variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = scanned(name="blocks")(x, None)
        return nn.Dense(3, use_bias=False, param_dtype=float)(x)


class Block(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 4, param_dtype=float, rngs=rngs)

    def __call__(self, x):
        return jnp.tanh(self.dense(x))


class Nnx(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(
            2, 3, (3, 2), strides=(2, 1), padding="SAME", param_dtype=float, rngs=rngs
        )
        self.shared = nnx.Linear(3, 3, param_dtype=float, rngs=rngs)
        self.again = self.shared
        self.wide = nnx.Linear(3, 4, param_dtype=float, rngs=rngs)
        self.blocks = nnx.vmap(Block, in_axes=0, out_axes=0)(rngs.fork(split=3))
        self.heads = nnx.List([nnx.Linear(4, 3, use_bias=False, param_dtype=float, rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
        x = self.again(jnp.tanh(self.shared(self.conv(x)))).mean(axis=(1, 2))
        x = self.norm(self.wide(x).astype(jnp.float32)).astype(float)

        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(block, x):
            return block(x)

        return self.heads[0](run(self.blocks, x))


def check_gradients(found, grads, names):
    """A^T D and the column sums of D are the gradients of kernel and bias."""
    for name, stacked in names.items():
        inputs, cotangents, grad = found.layer_inputs, found.layer_cotangents, grads
        for part in name.split("/"):
            key = int(part) if part.isdigit() else part
            inputs, cotangents, grad = inputs[key], cotangents[key], grad[key]
        a = inputs.reshape(*inputs.shape[:stacked], -1, inputs.shape[-1])
        d = cotangents.reshape(*cotangents.shape[:stacked], -1, cotangents.shape[-1])
        kernel = np.asarray(grad["kernel"])
        product = (jnp.swapaxes(a, -1, -2) @ d).reshape(kernel.shape)
        np.testing.assert_allclose(product, kernel, rtol=1e-9, atol=1e-13)
        if "bias" in grad:
            np.testing.assert_allclose(d.sum(axis=-2), np.asarray(grad["bias"]), atol=1e-13)


LINEN_LAYERS = {
    "Conv_0": 0,
    "Conv_1": 0,
    "Dense_0": 0,
    "Dense_1": 0,
    "Dense_2": 0,
    "blocks/Dense_0": 1,
}


def linen_case():
    model = Linen()
    params = model.init(jax.random.key(0), IMAGES)["params"]
    return params, lambda params: mean_loss(model.apply({"params": params}, IMAGES))


def test_linen_convolutions_shared_and_scanned_layers():
    params, loss = linen_case()
    found = captured(loss, params)
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(found.value, value, rtol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), found.grads, grads)
    check_gradients(found, grads, LINEN_LAYERS)
    layers = linen_layers(loss, jax.eval_shape(lambda: params))
    assert layers == {
        name: Layer(stacked, 1, name.startswith("Conv")) for name, stacked in LINEN_LAYERS.items()
    }


def test_nnx_convolutions_shared_and_scanned_layers():
    model = Nnx(nnx.Rngs(0))
    graph, state = nnx.split(model)
    twin = nnx.merge(graph, jax.tree.map(jnp.copy, state))

    def loss(model):
        return mean_loss(model(IMAGES))

    found = nnx.jit(lambda model: nnx_layer_gradients(model, loss))(model)
    value, grads = nnx.value_and_grad(loss)(twin)
    np.testing.assert_allclose(found.value, value, rtol=1e-6)
    assert jax.tree.structure(found.grads) == jax.tree.structure(grads)
    for ours, theirs in zip(jax.tree.leaves(found.grads), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    # The running statistics of the batch normalisation moved as they do without the capture.
    assert float(jnp.abs(model.norm.mean[...]).max()) > 0
    np.testing.assert_allclose(model.norm.mean[...], twin.norm.mean[...], rtol=1e-6)
    layers = nnx_layers(model, loss)
    shared = next(name for name in layers if name in ("shared", "again"))
    names = {"conv": 0, "wide": 0, "blocks/dense": 1, "heads/0": 0, shared: 0}
    check_gradients(found, nnx.to_pure_dict(found.grads), names)
    assert layers["blocks/dense"] == Layer(1, 1, False)
    assert layers["conv"] == Layer(0, 1, True)
    assert type(model.conv) is nnx.Conv


def test_fisher_blocks_of_a_convolution_and_a_dense_layer():
    """Per-example gradients from the capture give the exact empirical Fisher of every layer."""

    class Small(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = jnp.tanh(nn.Conv(2, (2, 2), param_dtype=float, name="conv")(x))
            return nn.Dense(3, param_dtype=float, name="head")(x.reshape(*x.shape[:-3], -1))

    model = Small()
    images = IMAGES[:, :3, :3]
    params = model.init(jax.random.key(0), images)["params"]
    found = captured(lambda p: mean_loss(model.apply({"params": p}, images)), params)

    def one(params, image, label):
        return -jax.nn.log_softmax(model.apply({"params": params}, image))[label]

    each = jax.jit(jax.vmap(jax.grad(one), (None, 0, 0)))(params, images, LABELS)
    n = len(images)
    for name in ("conv", "head"):
        a = found.layer_inputs[name].reshape(n, -1, found.layer_inputs[name].shape[-1])
        d = found.layer_cotangents[name].reshape(n, -1, found.layer_cotangents[name].shape[-1])
        ours = n * jnp.einsum("nti,nto->nio", a, d).reshape(n, -1)
        exact = each[name]["kernel"].reshape(n, -1)
        np.testing.assert_allclose(ours.T @ ours / n, exact.T @ exact / n, rtol=1e-9, atol=1e-14)


def test_kronecker_factors_are_the_gauss_newton_block_of_one_example():
    """For one example and a squared loss, A^T A (x) J^T J is the Gauss-Newton block, exactly."""
    model = nn.Dense(3, param_dtype=float)
    x = IMAGES[:1, 0, 0]
    params = model.init(jax.random.key(0), x)["params"]

    def outputs(params):
        return jnp.tanh(model.apply({"params": params}, x))[0]

    found = [captured(lambda p, i=i: outputs(p)[i], params) for i in range(3)]
    a = found[0].layer_inputs
    kronecker = sum(jnp.kron(a.T @ a, d.T @ d) for d in (one.layer_cotangents for one in found))
    jacobian = jax.jacobian(outputs)(params)["kernel"].reshape(3, -1)
    np.testing.assert_allclose(kronecker, jacobian.T @ jacobian, rtol=1e-10, atol=1e-14)


def test_examples_that_are_mapped_are_rows():
    """A model of single examples under vmap gives what the batched model gives."""
    model = nn.Conv(3, (3, 2), strides=(2, 1), padding="CIRCULAR", param_dtype=float)
    params = model.init(jax.random.key(0), IMAGES)["params"]

    def batched(params):
        return jnp.mean(model.apply({"params": params}, IMAGES) ** 2)

    def mapped(params):
        each = jax.vmap(lambda image: jnp.mean(model.apply({"params": params}, image) ** 2))
        return jnp.mean(each(jnp.asarray(IMAGES)))

    one, other = (captured(loss, params) for loss in (batched, mapped))
    np.testing.assert_allclose(one.layer_inputs, other.layer_inputs)
    np.testing.assert_allclose(one.layer_cotangents, other.layer_cotangents, rtol=1e-9)


def test_a_cell_shared_over_time_has_a_row_per_step():
    cell = nn.RNN(nn.SimpleCell(3, param_dtype=float))
    sequences = IMAGES[:, :, :, 0]
    params = cell.init(jax.random.key(0), sequences)["params"]

    def loss(params):
        return jnp.mean(cell.apply({"params": params}, sequences) ** 2)

    found = captured(loss, params)
    assert found.layer_inputs["cell"]["i"].shape == (7, 5, 6)
    check_gradients(found, jax.jit(jax.grad(loss))(params), {"cell/h": 0, "cell/i": 0})


def test_attention_with_several_output_axes():
    model = nn.MultiHeadDotProductAttention(num_heads=2, param_dtype=float)
    tokens = IMAGES[:, :, :4, 0]
    params = model.init(jax.random.key(0), tokens)["params"]

    def loss(params):
        return jnp.mean(model.apply({"params": params}, tokens) ** 2)

    found = captured(loss, params)
    layers = linen_layers(loss, params)
    assert layers == {
        **dict.fromkeys(("query", "key", "value"), Layer(0, 2, False)),
        "out": Layer(0, 1, False),
    }
    check_gradients(found, found.grads, {"out": 0})
    opt = gradchain.optimizers.k_fac(0.1, damping=0.1, layers=layers)
    updates, _ = jax.jit(opt.update)(found.grads, opt.init(params), params, **found.extra)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize("kind", ["transposed", "grouped"])
def test_layers_that_are_not_known_are_named(kind):
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            if kind == "grouped":
                return nn.Conv(4, (2, 2), feature_group_count=2, name="odd")(x)
            return nn.ConvTranspose(2, (2, 2), name="odd")(x)

    outer = Outer()
    params = outer.init(jax.random.key(0), IMAGES)["params"]

    def loss(params):
        return outer.apply({"params": params}, IMAGES).mean()

    with pytest.raises(ValueError, match="odd"):
        linen_layer_gradients(loss, params)
    found = linen_layer_gradients(loss, params, skip=("odd",))
    assert found.layer_inputs == {"odd": None}
    assert linen_layers(loss, params, skip=("odd",)) == {"odd": None}


def test_a_layer_inside_a_branch_is_named():
    model = nn.Dense(2)
    params = model.init(jax.random.key(0), IMAGES)["params"]

    def loss(params):
        def used():
            return model.apply({"params": params}, IMAGES).mean()

        return jax.lax.cond(jnp.sum(params["bias"]) > 0, used, lambda: 0 * used())

    with pytest.raises(ValueError, match="cond"):
        linen_layer_gradients(loss, params)


def test_training_through_the_capture_in_nnx():
    model = Nnx(nnx.Rngs(0))

    def loss(model):
        return mean_loss(model(IMAGES))

    layers = nnx_layers(model, loss)
    k_fac = gradchain.optimizers.k_fac(0.05, damping=0.3, layers=layers)
    opt = nnx.Optimizer(model, k_fac, wrt=nnx.Param)

    @nnx.jit
    def step(model, opt):
        found = nnx_layer_gradients(model, loss)
        opt.update(model, found.grads, **found.extra)
        return found.value

    values = [float(step(model, opt)) for _ in range(12)]
    assert values[-1] < 0.7 * values[0]
