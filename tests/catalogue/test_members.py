"""One optimizer per device inside `jax.shard_map`, with the varying axes checked."""

import chex
import jax
import jax.numpy as jnp
import pytest
from samples import sample
from subjects import NAMES, signature_of, small_tree, step_of


def training(name, mesh):
    """Three steps of a member on every device: `init` and a scan of steps inside."""

    def train(stacked):
        params = jax.tree.map(lambda x: x[0], stacked)
        opt = sample(name)

        def body(carry, _):
            return step_of(opt)(*carry), None

        (params, _), _ = jax.lax.scan(body, (params, opt.init(params)), length=3)
        return jax.tree.map(lambda x: x[None], params)

    spec = jax.P("member")
    return jax.shard_map(train, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=True)


def four_starts():
    mesh = jax.make_mesh((4,), ("member",), axis_types=(jax.sharding.AxisType.Auto,))
    return mesh, jax.tree.map(lambda x: jnp.stack([x, x + 1, 0.5 * x, x - 1]), small_tree())


@pytest.mark.parametrize("name", NAMES)
def test_a_member_per_device(name):
    mesh, starts = four_starts()
    found = jax.eval_shape(training(name, mesh), starts)
    assert signature_of(found) == signature_of(starts)


@pytest.mark.parametrize("name", ["adam", "galore", "sophia_h"])
def test_members_train_as_they_would_alone(name):
    mesh, starts = four_starts()
    together = jax.jit(training(name, mesh))(starts)
    opt = sample(name)
    step = jax.jit(step_of(opt))
    for member in range(4):
        params = jax.tree.map(lambda x, member=member: x[member], starts)
        state = opt.init(params)
        for _ in range(3):
            params, state = step(params, state)
        mine = jax.tree.map(lambda x, member=member: x[member], together)
        chex.assert_trees_all_close(mine, params, rtol=2e-4, atol=2e-5)
