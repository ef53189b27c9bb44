"""Factorisations are spread over a mesh: each device does its share, the results stay the same."""

import re

import chex
import jax
import jax.numpy as jnp
import pytest
from gradchain.optimizers import distributed_shampoo, k_fac, muon, psgd_kron, shampoo, soap
from gradchain.transforms.kronecker import newton_root, newton_schulz_root, spread_batch
from gradchain.transforms.notation.sharding import resharded

LEAVES = [f"layer{i}" for i in range(10)]
PARAMS = {
    name: {"kernel": jax.random.normal(jax.random.key(i), (6, 6))} for i, name in enumerate(LEAVES)
}
ROWS = {name: jax.random.normal(jax.random.key(90 + i), (5, 6)) for i, name in enumerate(LEAVES)}
METHODS = {
    "shampoo": lambda: shampoo(0.1),
    "distributed_shampoo": lambda: distributed_shampoo(0.1, target_ndim=2, eps=1e-4),
    "k_fac": lambda: k_fac(0.1, eigen=True),
}


def update_of(opt):
    extra = {"layer_inputs": ROWS, "layer_cotangents": ROWS}
    return lambda state: opt.update(PARAMS, state, PARAMS, **extra)


def factorised(opt):
    """Shapes of the batches of eigenvalues that the program of one step computes.

    A CPU computes one matrix of the batch after the other, in a branch of its own.
    """
    program = str(jax.make_jaxpr(update_of(opt))(opt.init(PARAMS)))
    return re.findall(r":f32\[(\d+,\d+)\](?:\{[^}]*\})? = eigh", program)


@pytest.mark.parametrize("name", METHODS)
def test_each_device_does_its_share(name):
    opt = METHODS[name]()
    alone = factorised(opt)
    expected = jax.jit(update_of(opt))(opt.init(PARAMS))[0]
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        shares = factorised(opt)
        spread = jax.jit(update_of(opt))(opt.init(PARAMS))[0]
    assert alone == ["20,6"]
    assert shares == ["3,6"]  # padded to 24
    chex.assert_trees_all_close(
        jax.device_get(spread), jax.device_get(expected), rtol=1e-4, atol=1e-6
    )
    assert jnp.isfinite(jax.tree.leaves(expected)[0]).all()


@pytest.mark.parametrize("root", [newton_root, newton_schulz_root])
@jax.enable_x64(True)
def test_chunks_of_a_batch_change_nothing(root):
    a = jax.random.normal(jax.random.key(0), (41, 40, 40))
    a = a @ jnp.swapaxes(a, 1, 2) + jnp.eye(40)
    found, residuals = jax.jit(lambda a: root(a, 0.1, -0.25))(a)
    wanted, _ = jax.jit(lambda a: root.__wrapped__(a, 0.1, -0.25))(a)
    assert residuals.shape == (41,)
    chex.assert_trees_all_close(found, wanted, rtol=1e-9, atol=1e-12)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        many = jnp.concatenate([a, a, a])
        spread, _ = jax.jit(lambda a: spread_batch(lambda b: root(b, 0.1, -0.25), a))(many)
    chex.assert_trees_all_close(jax.device_get(spread)[41:82], wanted, rtol=1e-9, atol=1e-12)


SPREAD = {
    "shampoo": lambda: shampoo(0.1, momentum=0.9),
    "distributed_shampoo": lambda: distributed_shampoo(0.1, target_ndim=2, eps=1e-4),
    "soap": lambda: soap(0.1, update_interval=2),
    "psgd_kron": lambda: psgd_kron(0.1, mode="whiten"),
}


@pytest.mark.parametrize("name", SPREAD)
def test_each_device_holds_its_share_of_a_stack(name):
    """Of eight matrices on a mesh of 4 x 2 one, with all that is kept of it."""
    opt = SPREAD[name]()
    kernels = {layer: PARAMS[layer]["kernel"] for layer in LEAVES[:8]}
    grads = [jax.tree.map(lambda x, i=i: jnp.sin(9 * x + i), kernels) for i in range(3)]

    def trained(params):
        state, step = opt.init(params), jax.jit(opt.update)
        before = jax.tree.map(jax.typeof, state)
        for g in grads:
            update, state = step(jax.tree.map(resharded, g, params), state, params)
            params = jax.tree.map(jnp.add, params, update)
        assert jax.tree.map(jax.typeof, state) == before
        return jax.device_get(params), state

    expected, _ = trained(kernels)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        found, state = trained(jax.device_put(kernels, jax.NamedSharding(mesh, jax.P("y"))))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
    stacks = [leaf for leaf in jax.tree.leaves(state) if leaf.shape[:1] == (8,)]
    assert stacks
    assert {leaf.addressable_shards[0].data.shape[0] for leaf in stacks} == {1}


def test_stacks_of_muon_are_spread_as_their_matrices_are():
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        spread = jax.NamedSharding(mesh, jax.P("x", "y"))
        params = jax.device_put({"w": jnp.ones((8, 4)), "v": jnp.zeros((8, 4))}, spread)
        state = muon(1e-2).init(params)
    stacks = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim == 3]
    assert [leaf.sharding.spec for leaf in stacks] == [jax.P(None, "x", "y")]
