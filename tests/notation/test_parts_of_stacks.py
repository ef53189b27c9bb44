"""Stacks come apart as they were put together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.transforms.notation.grids import Grid
from gradchain.transforms.notation.places import hidden, sharing_places
from gradchain.transforms.notation.stacks import stacked, unstacked


@pytest.mark.parametrize("count", [12, 17])
def test_each_part_is_cut_where_it_lies(count):
    """Scalars, vectors, matrices and more, of a full grid and of one that is not, in one step."""
    kinds = {(): "int8", (3,): "bool", (2, 3): "float32", (3, 1): "int32", (2, 3, 2): "complex64"}
    rng = np.random.default_rng(0)
    columns = [
        [rng.integers(0, 99, shape).astype(dtype) for _ in range(count)]
        for shape, dtype in kinds.items()
    ]

    @jax.jit
    def apart(columns):
        with sharing_places():
            return unstacked(*map(stacked, columns))

    for found, expected in zip(apart(columns), columns, strict=True):
        for part, leaf in zip(found, expected, strict=True):
            assert part.dtype == leaf.dtype
            np.testing.assert_array_equal(part, leaf)


@pytest.mark.parametrize(("count", "sides"), [(180, (12, 15)), (17, (5, 4)), (26, (2, 13))])
def test_a_grid_is_nearly_square(count, sides):
    assert Grid(count, (8, 8)).sides == sides


def test_places_are_shared_within_a_step():
    def step():
        with sharing_places():
            many, few = hidden((0, 8, 16)), hidden((0, 8))
            assert all(x is y for x, y in zip(many, few, strict=False))
            return jnp.stack(many)

    assert jax.jit(step)().tolist() == [0, 8, 16]
