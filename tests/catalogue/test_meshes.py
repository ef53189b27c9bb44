"""Params spread over a mesh: same steps, no accidental copies, no needless communication."""

import chex
import jax
import jax.numpy as jnp
import pytest
from collectives import COLLECTIVES, STATE_BYTES, on_automatic_axes, on_mesh
from gradchain.catalogue import METHODS
from samples import sample
from shared import trained
from subjects import NAMES, step_of
from turns import in_turn

BY_ROUNDING = {"soap"}
"""Half an ulp of a gradient of lower rank than its leaf turns the eigenvectors of 0, and the steps
along them by a rate, on one device too. Where the compiler chooses who adds up, it does so."""


def as_on_one_device(name, params):
    # a difference of losses over a small step multiplies the rounding of their sums
    rtol, atol = (2e-4, 2e-5) if METHODS[name].family == "zeroth_order" else (1e-5, 1e-6)
    one = trained(name).params
    chex.assert_trees_all_close(jax.device_get(params), one, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", NAMES)
def test_a_mesh_changes_no_result_and_copies_nothing(name):
    """Over eight devices: the steps of one device, with the communication that is pinned.

    A method without a row communicates nothing, and keeps what is shaped like a param as that
    param is kept.
    """
    found = on_mesh(name)
    assert found.types_after == found.types_before
    as_on_one_device(name, found.params)
    assert found.collectives == COLLECTIVES.get(name, {})
    if name in STATE_BYTES:
        assert found.state_bytes <= STATE_BYTES[name]
    else:
        assert not found.copied


@in_turn(NAMES, 5, of=16)
def test_a_state_lies_on_automatic_axes_where_it_stays(name):
    """From `init` on: a device holds as much before a step as after it, which compiles once.

    The steps are those of one device.
    """
    found = on_automatic_axes(name)
    if name not in BY_ROUNDING:
        as_on_one_device(name, found.params)
    assert found.bytes_after == found.bytes_before
    assert found.compilations == 1


def test_no_leaf_is_spread_further_though_the_compiler_would():
    """Not by a message made of all leaves; two of one type lie each where it did.

    So do those of one name in two runs of a method that are steps of one program.
    """
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    opt = sample("econtrol")
    both = jax.jit(lambda *runs: [step_of(opt)(*run) for run in runs])
    specs = [
        {"w": jax.P(("x", "y")), "b": jax.P("x"), "c": jax.P()},
        {"w": jax.P(), "b": jax.P(), "c": jax.P("y")},
    ]
    runs = []
    for lying in specs:
        params = {"w": jnp.ones((8, 4)), "b": jnp.ones(8), "c": jnp.ones(8)}
        params = jax.device_put(params, {k: jax.NamedSharding(mesh, s) for k, s in lying.items()})
        runs.append((params, opt.init(params)))
    found = both(*runs)
    assert [{k: p.sharding.spec for k, p in params.items()} for params, _ in found] == specs
    both(*found)
    assert both._cache_size() == 1


def test_the_table_has_no_row_too_many():
    assert {*COLLECTIVES, *STATE_BYTES} <= set(NAMES)
