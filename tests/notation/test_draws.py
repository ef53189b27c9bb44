"""Draws in one row and without loops are those of `jax.random`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.transforms.notation import draws
from gradchain.transforms.notation.stacks import SMALL


@pytest.mark.parametrize("name", ["normal", "uniform", "rademacher", "exponential"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32, jnp.float64])
def test_they_are_the_same_numbers(name, dtype):
    key = jax.random.key(3)
    for shape in ((), (0, 3), (2, 3, 5)):
        with jax.enable_x64(dtype == jnp.float64):
            expected = getattr(jax.random, name)(key, shape, dtype)
            found = getattr(draws, name)(key, shape, dtype)
        assert found.dtype == dtype
        assert (np.asarray(found) == np.asarray(expected)).all()


def _draws_of(key, source):
    many = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(3))
    return [
        jax.random.key_data(many if source is jax.random else draws.folded(key, jnp.arange(3))),
        jax.random.key_data(source.split(source.fold_in(key, 7), 5)),
        jax.random.bits(source.fold_in(key, 7), (3,)),
        source.permutation(key, 40),
        source.bernoulli(key, 0.5, (40,)),
    ]


@pytest.mark.parametrize(
    ("generator", "by_entry"), [("threefry2x32", True), ("threefry2x32", False), ("rbg", True)]
)
def test_keys_are_the_same_of_every_generator(generator, by_entry):
    key = jax.random.key(3, impl=generator)
    with jax.threefry_partitionable(by_entry):
        for found, expected in zip(*(_draws_of(key, x) for x in (draws, jax.random)), strict=True):
            assert found.dtype == expected.dtype
            assert jnp.array_equal(found, expected)


def test_bits_are_made_without_a_loop():
    def program(source):
        drawn = jax.jit(lambda key: source.normal(source.fold_in(key, 1), (8, 8)))
        return drawn.lower(jax.random.key(0)).compile().as_text()

    assert " while(" in program(jax.random)
    assert " while(" not in program(draws)


@pytest.mark.parametrize(
    ("shape", "is_row"), [((8, 8), True), ((SMALL, 2), True), ((SMALL // 32, draws.WIDE), False)]
)
def test_what_is_small_or_narrow_has_one_axis(shape, is_row):
    program = str(jax.make_jaxpr(lambda key: draws.uniform(key, shape))(jax.random.key(0)))
    assert (f"u32[{','.join(map(str, shape))}]" not in program) == is_row
