"""Draws in one row are those of `jax.random`."""

import jax
import jax.numpy as jnp
import pytest
from gradchain.transforms.notation import draws
from gradchain.transforms.notation.stacks import SMALL


@pytest.mark.parametrize("name", ["normal", "uniform", "rademacher", "exponential"])
def test_they_are_the_same_numbers(name):
    key = jax.random.key(3)
    for shape in ((0, 3), (2, 3, 5)):
        expected = getattr(jax.random, name)(key, shape, jnp.float32)
        assert jnp.array_equal(getattr(draws, name)(key, shape, jnp.float32), expected)


@pytest.mark.parametrize(
    ("shape", "is_row"), [((8, 8), True), ((SMALL, 2), True), ((SMALL // 32, draws.WIDE), False)]
)
def test_what_is_small_or_narrow_has_one_axis(shape, is_row):
    program = str(jax.make_jaxpr(lambda key: draws.uniform(key, shape))(jax.random.key(0)))
    assert (f"u32[{','.join(map(str, shape))}]" not in program) == is_row
