"""Codes give the whole gradient from any workers that suffice, and refuse the others."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradchain.transforms.coding import (
    assigned_parts,
    cyclic_code,
    decode,
    decode_weights,
    encode,
    repetition_code,
)
from workers import AXIS, WORLDS

CODES = {
    "cyclic": cyclic_code(5, 2),
    "another key": cyclic_code(6, 3, jax.random.key(4)),
    "nobody is late": cyclic_code(3, 0),
    "repetition": repetition_code(6, 2),
}


@pytest.mark.parametrize("name", CODES)
def test_any_workers_that_suffice_give_the_whole_gradient(name):
    code = CODES[name]
    n, stragglers = len(code), int((code[0] != 0).sum()) - 1
    parts = {"w": np.random.default_rng(1).normal(size=(n, 4, 2)), "b": np.arange(1.0, n + 1)}
    rows = [assigned_parts(code, i) for i in range(n)]
    assert all(len(row) == stragglers + 1 for row in rows)
    with jax.enable_x64(True):
        sent = [
            encode(jax.tree.map(lambda x, row=row: x[row], parts), code[i, row])
            for i, row in enumerate(rows)
        ]
        stacked = jax.tree.map(lambda *x: np.stack(x), *sent)
        for late in itertools.combinations(range(n), stragglers):
            answered = ~np.isin(np.arange(n), late)
            broken = jax.tree.map(lambda x, late=late: _with_nan(x, late), stacked)
            found = decode(broken, decode_weights(code, answered))
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y.sum(0), 1e-7), found, parts)


def _with_nan(stacked, places):
    return np.asarray(
        [np.full_like(x, np.nan) if i in places else x for i, x in enumerate(stacked)]
    )


def test_along_an_axis_one_compiled_step_serves_all_stragglers():
    code = repetition_code(4, 1)
    parts = jnp.arange(12.0).reshape(4, 3)
    own = {"grads": jnp.stack([parts[assigned_parts(code, i)] for i in range(4)]),
           "row": jnp.ones((4, 2))}  # fmt: skip

    def train(own, weights):
        return decode(encode(own["grads"], own["row"]), weights, AXIS)

    for world in WORLDS.values():
        for late in (0, 3):
            weights = decode_weights(code, np.arange(4) != late)
            np.testing.assert_allclose(world(train, own, weights), parts.sum(0), 1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cyclic_code(3, 3), "num_stragglers=3 must be below num_workers=3"),
        (lambda: cyclic_code(0, 0), "cyclic_code: num_workers=0"),
        (lambda: repetition_code(5, 1), "must be a multiple of num_stragglers"),
        (lambda: decode_weights(repetition_code(4, 1), [1, 1, 0, 0]), "the 2 survivors of 4"),
        (lambda: decode_weights(cyclic_code(3, 1), [True, True]), "for each of the 3 workers"),
        (lambda: jax.jit(lambda s: decode_weights(np.eye(2), s))(jnp.ones(2)), "outside jit"),
        (lambda: encode(jnp.ones((2, 3)), [1.0]), "a coefficient for each"),
        (lambda: decode(jnp.ones((2, 3)), [1.0]), "one for each worker"),
        (lambda: decode(jnp.ones(3), [1.0], "nowhere"), "'nowhere' is no axis"),
    ],
)
def test_what_cannot_be_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
