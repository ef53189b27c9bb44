"""What is asked of all parts of a stack at once is right for each of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.transforms.notation.roots import dot, norm
from gradchain.transforms.notation.stackwise import CHEAP_TO_READ_TWICE, stackwise

SCALES = (1.0, 1e-3, 1e30, 0.0, 1e-30, 3e38)


def both(x, y):
    return norm(x), dot(x, y)


@pytest.mark.parametrize("scales", [SCALES, (1.0,) * len(SCALES)])
def test_one_part_beyond_the_format_leaves_the_others_right(scales):
    x, y = np.random.default_rng(0).uniform(-1, 1, (2, len(scales), 128, 128)).astype(np.float32)
    stacks = x * np.float32(scales)[:, None, None], y / 4096
    assert stacks[0].size > CHEAP_TO_READ_TWICE
    wide = [np.float64(x).reshape(len(scales), -1) for x in stacks]
    right = np.linalg.norm(wide[0], axis=1), np.sum(wide[0] * wide[1], axis=1)
    number = right[0] < np.finfo(np.float32).max
    for found, of in zip(jax.jit(stackwise(both, len(scales)))(*stacks), right, strict=True):
        np.testing.assert_allclose(found[number], of[number], rtol=2e-4)
    slopes = jax.jit(jax.grad(lambda x: stackwise(both, len(scales))(x, stacks[1])[0].sum()))(
        stacks[0]
    )
    expected = wide[0] / np.maximum(right[0], 1e-300)[:, None]
    np.testing.assert_allclose(
        slopes.reshape(expected.shape)[number], expected[number], rtol=1e-4, atol=1e-7
    )


def test_what_all_parts_agree_in_is_a_branch():
    def of(count):
        shape = jax.ShapeDtypeStruct((count, 64, 64), jnp.float32)
        return str(jax.make_jaxpr(stackwise(norm, count))(shape))

    assert "cond" in of(32)
    assert "cond" not in of(8)


def test_a_device_by_itself_looks_at_its_own_stack():
    x = np.random.default_rng(0).normal(size=(2, 32, 64, 64)).astype(np.float32)
    x[1, 5] *= 1e30
    mesh = jax.make_mesh((2,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.P("device")
    lengths = jax.shard_map(
        lambda x: stackwise(norm, 32)(x[0])[None], mesh=mesh, in_specs=spec, out_specs=spec
    )
    np.testing.assert_allclose(
        jax.jit(lengths)(x), np.sqrt((x.astype(float) ** 2).sum((2, 3))), 1e-5
    )
