"""What must hold of every schedule: jit, vmap, grad, large counts, catalogue."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import schedules as s
from gradchain.catalogue import SCHEDULES

LARGE = 2**24
# name -> (value -> schedule), each of about twenty steps
MADE = {
    "linear_decay": lambda v: s.linear_decay(v, 20, warmup_steps=4),
    "linear_decay_theory": lambda v: s.linear_decay(v, 20, theory_offset=True),
    "rex": lambda v: s.rex(v, 20),
    **{
        f"wsd_{shape}": lambda v, shape=shape: s.wsd(
            v, 20, warmup_steps=4, decay_steps=10, decay_shape=shape
        )
        for shape in s.DECAY_SHAPES
    },
    "wsd_exponential": lambda v: s.wsd(v, 20, 4, 10, end_value=0.01, decay_shape="exponential"),
    "wsd_half_life": lambda v: s.wsd(v, 20, 4, 10, decay_shape="half_life", half_life=2.0),
    "cosine_power_annealing": lambda v: s.cosine_power_annealing(v, 20, 0.0, warmup_steps=3),
    "ademamix_alpha_schedule": lambda v: s.ademamix_alpha_schedule(v, 20),
    "ademamix_b3_schedule": lambda v: s.ademamix_b3_schedule(0.99, v, 20),
    "ranger21_schedule": lambda v: s.ranger21_schedule(v, 20),
    "step_decay": lambda v: s.step_decay(v, [5, 10]),
    "stage_decay": lambda v: s.stage_decay(v, 20, 3),
    "exponential_to": lambda v: s.exponential_to(v, 20),
    "cosine_decay": lambda v: s.cosine_decay(v, 20),
    "one_cycle": lambda v: s.one_cycle(20, v),
    "one_cycle_three_phase": lambda v: s.one_cycle(20, v, anneal="linear", three_phase=True),
    "one_cycle_momentum": lambda v: s.one_cycle_momentum(20, base_momentum=v),
    "spam_rewarmup": lambda v: s.spam_rewarmup(10, 4, v),
    "sparsity_schedule": lambda v: s.sparsity_schedule(
        v, 20, update_interval=2, power=jnp.asarray(3.0)
    ),
    **{
        f"last_iterate_{kind}": lambda v, kind=kind: s.last_iterate_schedule(
            kind, eta=v, total_steps=20, smoothness=0.1
        )
        for kind in ("sqrt", "constant", "linear")
    },
    **{
        f"last_iterate_{kind}": lambda v, kind=kind: s.last_iterate_schedule(
            kind, total_steps=20, smoothness=0.1, mu=v
        )
        for kind in ("strong", "strong2", "strong_known")
    },
    "as_schedule": lambda v: s.as_schedule(v * np.linspace(1, 0.1, 20)),
    "cooldown": lambda v: s.cooldown(v, 10, 10),
    "warmup": lambda v: s.warmup(s.cosine_decay(v, 16), 4),
    "sampled": lambda v: s.sampled(s.rex(v, 20), 5),
    "sampled_at": lambda v: s.sampled(s.rex(v, 20), boundaries=[6, 12, 18]),
    "cyclic": lambda v: s.cyclic(s.rex(v, 8), 8, start=4),
    "join": lambda v: s.join([s.rex(v, 8), s.rex(v, 12)], [8]),
}
EVERY = pytest.mark.parametrize("name", MADE)
# the values of a table are data, not hyper-parameters
OF_NUMBERS = pytest.mark.parametrize("name", [name for name in MADE if name != "as_schedule"])
STEPS = np.arange(-1, 26).clip(0)


@EVERY
def test_any_kind_of_count_gives_the_same(name):
    schedule = MADE[name](0.3)
    expected = np.array([schedule(int(step)) for step in STEPS])
    assert np.isfinite(expected).all()
    assert len(set(expected.round(6))) > 1 or name == "last_iterate_constant"
    counts = [np.int64, np.int32, np.uint8, np.float32, jnp.int32, jnp.uint32, jnp.float32]
    for kind in counts:
        np.testing.assert_allclose(schedule(kind(STEPS)), expected, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(jax.jit(schedule)(STEPS), expected, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(
        jax.vmap(schedule)(jnp.asarray(STEPS)), expected, rtol=1e-5, atol=1e-8
    )


@OF_NUMBERS
def test_values_may_be_traced(name):
    values = jnp.array([0.2, 0.5])
    at = jax.jit(jax.vmap(lambda value: MADE[name](value)(STEPS)))(values)
    for value, row in zip((0.2, 0.5), at, strict=True):
        np.testing.assert_allclose(row, MADE[name](value)(STEPS), rtol=1e-4, atol=1e-7)


@OF_NUMBERS
def test_derivatives_are_finite(name):
    by_value = jax.vmap(jax.grad(lambda value, step: MADE[name](value)(step)), (None, 0))
    slopes = by_value(0.3, jnp.asarray(STEPS))
    assert jnp.isfinite(slopes).all()
    assert jnp.any(slopes != 0)
    by_count = jax.vmap(jax.grad(lambda step: 1.0 * MADE[name](0.3)(step)))
    assert jnp.isfinite(by_count(jnp.asarray(STEPS, jnp.float32))).all()


@EVERY
def test_precision_is_the_default_one(name):
    with jax.enable_x64(True):
        assert MADE[name](0.3)(3).dtype == jnp.float64
    assert MADE[name](0.3)(3).dtype == jnp.float32


@pytest.mark.parametrize("count", [int, np.int64, jnp.int32])
def test_single_steps_are_told_apart_after_many(count):
    far = [
        s.linear_decay(1.0, LARGE + 100, warmup_steps=LARGE),
        s.wsd(1.0, LARGE + 100, decay_steps=100),
        s.wsd(1.0, LARGE + 100, decay_steps=100, end_value=0.1, decay_shape="exponential"),
        s.cooldown(1.0, LARGE, 1, half_life=50, decay_shape="half_life"),
        s.warmup(s.rex(1.0, 100), LARGE),
        s.join([optax.constant_schedule(1.0), s.cosine_decay(1.0, 100)], [LARGE]),
        s.cyclic(s.rex(1.0, 100), LARGE),
        s.last_iterate_schedule("strong_known", total_steps=2 * LARGE, mu=1.0),
        s.ranger21_schedule(1.0, LARGE + 100, warmdown_start=LARGE / (LARGE + 99.5)),
        s.sparsity_schedule(0.5, 2 * LARGE, start_fraction=0.5, end_fraction=0.5 + 2**-18),
    ]
    for schedule in far:
        values = [float(schedule(count(LARGE + step))) for step in range(2, 40)]
        assert len(set(values)) == len(values)
    steps = s.step_decay(1.0, [LARGE + 1])
    assert float(steps(count(LARGE))) == 1.0
    assert float(steps(count(LARGE + 1))) < 0.2
    cycle = s.one_cycle(4 * LARGE, 1.0, pct_start=0.25 + 2**-26, anneal="linear")
    assert float(cycle(count(LARGE))) == 1.0


@pytest.mark.parametrize("length", [20, 41, 49, 107])
@pytest.mark.parametrize("x64", [False, True])
def test_both_ends_are_exact_when_compiled(length, x64):
    with jax.enable_x64(x64):
        for shape in s.DECAY_SHAPES:
            schedule = jax.jit(s.cooldown(0.3, 0, length, 0.1, shape))
            assert schedule(0) == jnp.asarray(0.3)
            assert schedule(length) == jnp.asarray(0.1)
        assert jax.jit(s.ademamix_alpha_schedule(5.0, length))(0) == 0.0


def test_the_last_steps_of_a_long_decay_are_told_apart():
    long = 2**26
    for schedule in (s.linear_decay(1.0, long), s.rex(1.0, long), s.cosine_decay(1.0, long)):
        values = [float(schedule(long - step)) for step in range(5)]
        assert values[0] == 0.0
        assert sorted(set(values)) == values


@pytest.mark.parametrize("x64", [False, True])
def test_runs_longer_than_int32(x64):
    total = 3 * 10**9
    last = 2**31 - 1
    with jax.enable_x64(x64):
        for schedule in (
            s.linear_decay(1.0, total, warmup_steps=2**31 + 5),
            s.wsd(1.0, total, decay_steps=0.5),
            s.ranger21_schedule(1.0, total),
            s.one_cycle(total, 1.0),
            s.step_decay(1.0, [5, total]),
            s.stage_decay(1.0, total, 4),
            s.sampled(s.rex(1.0, total), 10**9),
            s.cyclic(s.rex(1.0, total), total),
            s.sparsity_schedule(0.5, total, update_interval=100),
            s.cosine_power_annealing(1.0, total),
            s.join([s.rex(1.0, total), s.rex(0.5, 9)], [total]),
        ):
            traced = jax.jit(schedule)(jnp.int32(last))
            np.testing.assert_allclose(traced, schedule(last), rtol=1e-5)
            assert np.isfinite(schedule(total + 7))
    assert float(s.linear_decay(1.0, total)(total)) == 0.0


def test_a_schedule_drives_an_optimizer():
    optimizer = optax.sgd(s.linear_decay(1.0, 4))
    params, moved = jnp.array(0.0), []
    state = optimizer.init(params)
    for _ in range(5):
        updates, state = jax.jit(optimizer.update)(jnp.array(-1.0), state, params)
        moved.append(float(updates))
    np.testing.assert_allclose(moved, [1.0, 0.75, 0.5, 0.25, 0.0])


BUILT = {name: entry for name, entry in SCHEDULES.items() if entry.build is not None}


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("total_steps", [10, 100])
def test_catalogue_builds_runs_of_any_length(name, total_steps):
    rates = np.asarray(BUILT[name].build(0.3, total_steps)(np.arange(total_steps)))
    assert np.isfinite(rates).all()
    assert 0 <= rates.min() < rates.max() <= 0.3 * (1 + 1e-6)
    if total_steps == 100:
        assert rates.max() > 0.29


def test_every_public_function_is_in_the_catalogue():
    public = {name: getattr(s, name) for name in s.__all__}
    functions = {name: f for name, f in public.items() if inspect.isfunction(f)}
    assert {name: entry.factory for name, entry in SCHEDULES.items()} == functions
    assert {entry.kind for entry in SCHEDULES.values() if entry.build} == {"schedule"}
