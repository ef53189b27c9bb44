"""Each schedule against its paper's formula in plain Python, and the traps on its card."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import schedules as s


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def close(actual, expected, rtol=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-15)


def over(schedule, steps):
    return [float(schedule(step)) for step in steps]


# linear decay


@pytest.mark.parametrize("warmup", [0, 4, 11])
@pytest.mark.parametrize("offset", [0, 1])
def test_linear_decay(warmup, offset):
    def rate(c):
        if c < warmup:
            return 0.01 + (0.3 - 0.01) * (c + offset) / warmup
        if c + offset >= 11:
            return 0.02
        return 0.3 + (0.02 - 0.3) * (c - warmup + offset) / (11 - warmup)

    schedule = s.linear_decay(0.3, 11, warmup, 0.01, 0.02, theory_offset=bool(offset))
    close(over(schedule, range(15)), [rate(c) for c in range(15)])


def test_linear_decay_theory_form_ends_one_step_earlier():
    assert over(s.linear_decay(1.0, 4), range(6)) == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert over(s.linear_decay(1.0, 4, theory_offset=True), range(5)) == [0.75, 0.5, 0.25, 0, 0]


def test_fractions_of_the_run_and_steps_are_not_confused():
    as_steps, as_fraction = s.linear_decay(1.0, 10, 1), s.linear_decay(1.0, 10, 1.0)
    assert float(as_steps(1)) == 1.0
    close(as_fraction(1), 0.1)
    close(over(s.wsd(1.0, 50, 0.1, 0.2), range(55)), over(s.wsd(1.0, 50, 5, 10), range(55)))
    # truncated: 0.29 * 100 is less than 29
    close(over(s.wsd(1.0, 100, 0.29), range(40)), over(s.wsd(1.0, 100, 28), range(40)))
    close(over(s.wsd(1.0, 100, decay_fraction=0.29), [72]), [1.0])
    assert float(s.wsd(1.0, 100, decay_fraction=0.29)(73)) < 1.0


# wsd and the decay shapes


def wsd_factor(shape, u, e):
    cosine = e + (1 - e) * (1 + math.cos(math.pi * u)) * 0.5
    line = e + (1 - e) * (1 - u)
    return {
        "linear": line,
        "cosine": cosine,
        "mirror_cosine": 2 * line - cosine,
        "square": e + (1 - e) * (1 - u**2),
        "1-sqrt": e + (1 - e) * (1 - math.sqrt(u)),
        "exponential": e**u,
    }[shape]


@pytest.mark.parametrize("shape", [*s.DECAY_SHAPES, "exponential"])
def test_wsd_shapes(shape):
    def rate(c):
        if c < 4:
            return 0.003 + (0.3 - 0.003) * c / 4
        return 0.3 * (wsd_factor(shape, min(max(c - 13, 0), 7) / 7, 0.1))

    schedule = s.wsd(
        0.3, 20, 4, decay_fraction=0.38, end_value=0.03, init_value=0.003, decay_shape=shape
    )
    close(over(schedule, range(24)), [rate(c) for c in range(24)])
    assert float(schedule(13)) == 0.3
    assert float(schedule(20)) == 0.03


def test_wsd_half_life_goes_on_after_the_end():
    schedule = s.wsd(1.0, 20, 2, 5, end_value=0.01, decay_shape="half_life", half_life=3.0)
    rates = [max(0.5 ** (max(c - 15, 0) / 3), 0.01) if c >= 2 else c / 2 for c in range(50)]
    close(over(schedule, range(50)), rates)
    assert float(schedule(24)) == 0.125
    rising = s.wsd(1.0, 20, 2, 5, end_value=2.0, decay_shape="half_life", half_life=3.0)
    close(over(rising, (0, 2, 14, 15, 40)), [0, 1, 1, 2, 2])


def test_wsd_takes_any_shape():
    own = s.wsd(1.0, 20, decay_steps=10, decay_shape=lambda done, left: left**3)
    close(over(own, (10, 15, 20)), [1.0, 0.125, 0.0])


def test_wsd_without_warmup_or_decay_and_with_a_long_warmup():
    close(over(s.wsd(0.5, 10, 0, 0), (0, 9, 10, 11)), [0.5, 0.5, 0.0, 0.0])
    close(over(s.wsd(1.0, 10, 8, 4), (4, 7, 8, 9)), [0.5, 0.875, 0.5, 0.25])


def test_cooldown_branches_off_a_run():
    whole, branch = (
        s.wsd(0.3, 20, 0, 5, decay_shape="1-sqrt"),
        s.cooldown(0.3, 15, 5, 0.0, "1-sqrt"),
    )
    close(over(branch, range(23)), over(whole, range(23)))


# rex


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_rex(beta):
    z = [1 - min(c, 9) / 9 for c in range(12)]
    expected = [0.01 + 0.29 * x / ((1 - beta) + beta * x) for x in z]
    schedule = s.rex(0.3, 9, end_value=0.01, beta=beta)
    close(over(schedule, range(12)), expected)
    assert over(schedule, (0, 9, 10)) == [0.3, 0.01, 0.01]


def test_sampling_reads_the_start_of_each_interval():
    profile = s.rex(1.0, 20)
    close(
        over(s.rex(1.0, 20, sampling_steps=6), range(25)),
        over(profile, [c - c % 6 for c in range(25)]),
    )
    at = s.sampled(profile, boundaries=s.milestones("30-60-90", 20))
    held = [max(b for b in (0, 6, 12, 18) if b <= c) for c in range(25)]
    close(over(at, range(25)), over(profile, held))


def test_milestones_are_exact():
    assert s.milestones("30-60-90", 10) == [3, 6, 9]
    assert s.milestones("29-58", 100) == [29, 58]
    assert s.milestones("33-66", 50) == [16, 33]


# cosine power annealing


def cosine_power(peak, total, end, power, warmup):
    epochs = np.arange(total) + 1 - warmup
    k = (1 + np.cos(np.pi * epochs / (total - warmup))) / 2
    q = k if power == 1 else power ** (k + 1)
    p = (q - q.min()) / (q.max() - q.min())
    if warmup:
        p[: warmup + 1] = np.arange(1, warmup + 2) / (warmup + 1)
    return end + (peak - end) * p


@pytest.mark.parametrize("power", [1.0, 2.0, 10.0])
@pytest.mark.parametrize("warmup", [0, 1, 5, 11])
def test_cosine_power_annealing(power, warmup):
    schedule = s.cosine_power_annealing(0.3, 17, 0.01, power, warmup)
    close(over(schedule, range(17)), cosine_power(0.3, 17, 0.01, power, warmup), rtol=1e-11)
    assert float(schedule(warmup)) == 0.3
    assert over(schedule, (16, 17, 40)) == [0.01] * 3


def test_cosine_power_near_one_loses_no_digits():
    near, one = (s.cosine_power_annealing(0.3, 17, 0.01, power) for power in (1 + 1e-13, 1.0))
    close(over(near, range(17)), over(one, range(17)), rtol=1e-11)


def test_cosine_power_of_one_step_and_of_warmup_alone():
    assert over(s.cosine_power_annealing(0.3, 1, 0.1), (0, 1)) == [0.3, 0.1]
    close(
        over(s.cosine_power_annealing(1.0, 3, 0.0, warmup_steps=3), range(4)), [0.25, 0.5, 0.75, 0]
    )


# AdEMAMix


@pytest.mark.parametrize("offset", [0, 1])
def test_ademamix_ramps(offset):
    def f(b):
        return math.log(0.5) / math.log(b) - 1

    def b3(c):
        u = (c + offset) / 8
        return 0.9999 if u >= 1 else 0.5 ** (1 / ((1 - u) * f(0.9) + u * f(0.9999) + 1))

    schedule = s.ademamix_b3_schedule(0.9999, 0.9, 8, offset)
    close(over(schedule, range(12)), [b3(c) for c in range(12)])
    alpha = s.ademamix_alpha_schedule(5.0, 8, 1.0, offset)
    close(over(alpha, range(12)), [1 + 4 * min((c + offset) / 8, 1) for c in range(12)])


def test_ademamix_edges():
    assert over(s.ademamix_b3_schedule(0.99, 0.9, 0), (0, 1)) == [0.99, 0.99]
    assert over(s.ademamix_alpha_schedule(5.0, 0), (0, 1)) == [5.0, 5.0]
    from_zero = over(s.ademamix_b3_schedule(0.99, 0.0, 4), range(5))
    close(from_zero, [0.0, *(0.99 ** (4 / c) for c in range(1, 4)), 0.99])
    assert abs(float(s.ademamix_b3_schedule(0.9999, 0.9, 10)(5)) - 0.9998) < 1e-5
    falling = over(s.half_life_interpolation(0.99, 0.9, 4), range(5))
    assert sorted(falling, reverse=True) == falling
    assert falling[1] < 0.99


def test_ademamix_decay_keeps_its_digits_in_float32():
    exact = float(s.ademamix_b3_schedule(0.999999, 0.9, 1000)(500))
    with jax.enable_x64(False):
        single = float(s.ademamix_b3_schedule(0.999999, 0.9, 1000)(500))
    assert abs(single - exact) < 6e-8


def test_ademamix_decay_leaves_its_start_at_once_in_a_long_run():
    """1 / ln b goes from -9.5 to -1e4: a step of 2^24 moves it, though 1 - 1/N is 1 in float32."""
    exact = [float(s.ademamix_b3_schedule(0.9999, 0.9, 2**24 + 5)(c)) for c in (1, 2, 50)]
    with jax.enable_x64(False):
        single = [float(s.ademamix_b3_schedule(0.9999, 0.9, 2**24 + 5)(c)) for c in (1, 2, 50)]
    np.testing.assert_allclose(single, exact, rtol=2e-7)


# Ranger21


def ranger21(c, peak, total, w, end, start=0.72, warmup=True, warmdown=True):
    t, S = c + 1, int(start * total)
    rate = peak * min(1, t / w) if warmup and t <= w else peak
    if warmdown and t >= S:
        u = min((t + 1 - S) / (total - S + 1), 1)
        rate = max(peak - (peak - end) * u, end)
    return rate


@pytest.mark.parametrize(
    ("arguments", "warmup"),
    [
        ({}, 11),
        ({"b2": 0.9}, 21),
        ({"b2": 0.9, "warmup_steps": 40}, 40),
        ({"warmup_steps": 0.5}, 25),
        ({"b2": 0.95, "warmup_fraction": 0.3}, 15),
    ],
)
def test_ranger21_warmup_rule(arguments, warmup):
    schedule = s.ranger21_schedule(0.01, 50, **arguments)
    close(over(schedule, range(55)), [ranger21(c, 0.01, 50, warmup, 3e-5) for c in range(55)])
    assert float(schedule(49)) == 3e-5


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("warmdown", [False, True])
def test_ranger21_parts_can_be_left_out(warmup, warmdown):
    schedule = s.ranger21_schedule(0.01, 50, warmup=warmup, warmdown=warmdown)
    expected = [ranger21(c, 0.01, 50, 11, 3e-5, 0.72, warmup, warmdown) for c in range(55)]
    close(over(schedule, range(55)), expected)


def test_ranger21_edges():
    close(over(s.ranger21_schedule(1.0, 5, warmdown_start=0.0, end_value=0.0), range(5)),
          [ranger21(c, 1.0, 5, 1, 0.0, 0.0) for c in range(5)])  # fmt: skip
    assert float(s.ranger21_schedule(1e-5, 50)(45)) == 3e-5
    assert s.untuned_warmup_steps(0.9) == 21


# baselines


def test_step_decay_drops_at_the_boundary():
    rates = over(s.step_decay(0.3, [3, 7], 0.5), range(9))
    close(rates, [0.3] * 3 + [0.15] * 4 + [0.075] * 2)
    assert over(s.step_decay(0.3, []), (0, 5)) == [0.3, 0.3]


def test_stage_decay_lengthens_the_last_stage():
    close(over(s.stage_decay(1.0, 11, 3, 10.0), range(14)), [1] * 3 + [0.1] * 3 + [0.01] * 8)


def test_exponential_to():
    close(
        over(s.exponential_to(0.3, 8, 0.05), range(20)), [0.3 * 0.05 ** (c / 8) for c in range(20)]
    )


def test_cosine_decay_is_that_of_optax():
    ours = s.cosine_decay(0.3, 8, 0.03)
    close(over(ours, range(12)), over(optax.cosine_decay_schedule(0.3, 8, alpha=0.1), range(12)))


def torch_one_cycle(c, total, pct, points, three_phase, anneal):
    """The loop of torch's OneCycleLR, in its own words."""
    ends = [float(pct * total) - 1, float(2 * pct * total) - 2, total - 1]
    ends = ends if three_phase else [ends[0], total - 1]
    start = 0.0
    for i, end in enumerate(ends):
        if c <= end or i == len(ends) - 1:
            u = min((c - start) / (end - start), 1)
            x, y = points[i], points[i + 1]
            return (
                y + (x - y) / 2 * (1 + math.cos(math.pi * u))
                if anneal == "cos"
                else x + (y - x) * u
            )
        start = end


ONE_CYCLES = [(23, 0.3), (20, 0.3), (20, 0.25), (9, 0.5)]


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize(
    ("total", "pct", "three_phase"),
    [
        *((total, pct, phases) for total, pct in ONE_CYCLES for phases in (False, True)),
        (20, 0.0, False),  # in three phases torch divides by zero
    ],
)
def test_one_cycle(anneal, three_phase, total, pct):
    rates = [0.3 / 25, 0.3, 0.3 / 25 / 1e4]
    momenta = [0.95, 0.85, 0.95]
    if three_phase:
        rates.insert(2, rates[0])
        momenta.append(0.95)
    for schedule, points in (
        (s.one_cycle(total, 0.3, pct, anneal=anneal, three_phase=three_phase), rates),
        (s.one_cycle_momentum(total, pct, anneal=anneal, three_phase=three_phase), momenta),
    ):
        expected = [
            torch_one_cycle(c, total, pct, points, three_phase, anneal) for c in range(total + 3)
        ]
        np.testing.assert_allclose(over(schedule, range(total + 3)), expected, rtol=1e-9)
        between = np.array([0.5, total / 2 + 0.25])
        expected = [torch_one_cycle(c, total, pct, points, three_phase, anneal) for c in between]
        np.testing.assert_allclose(over(schedule, between), expected, rtol=1e-9)


def test_one_cycle_of_one_step():
    assert np.isfinite(over(s.one_cycle(1, 1.0), range(3))).all()
    close(over(s.one_cycle(2, 1.0, 0.5), (0, 1)), [1.0, 4e-6])


class TorchPlateau:
    def __init__(self, rate, factor, patience, rtol, cooldown, min_value):
        self.rate, self.best, self.bad, self.cool = rate, math.inf, 0, 0
        self.settings = factor, patience, rtol, cooldown, min_value

    def step(self, m):
        factor, patience, rtol, cooldown, min_value = self.settings
        if m < self.best * (1 - rtol):
            self.best, self.bad = m, 0
        else:
            self.bad += 1
        if self.cool > 0:
            self.cool -= 1
            self.bad = 0
        if self.bad > patience:
            new = max(self.rate * factor, min_value)
            if self.rate - new > 1e-8:
                self.rate = new
            self.cool, self.bad = cooldown, 0
        return self.rate


@pytest.mark.parametrize(
    "settings", [(0.5, 0, 0.0, 0, 0.0), (0.5, 2, 0.01, 3, 0.03), (0.1, 1, 1e-4, 1, 0)]
)
def test_reduce_on_plateau(settings):
    metrics = np.random.default_rng(0).uniform(0.5, 1.5, 60) * np.linspace(1, 0.6, 60)
    metrics[5] = np.nan
    controller = s.reduce_on_plateau(1.0, *settings)
    reference, state, rates = TorchPlateau(1.0, *settings), controller.init(), []
    expected = [reference.step(metric) for metric in metrics]
    update = jax.jit(controller.update)
    for metric in metrics:
        state = update(state, metric)
        rates.append(float(state.value))
    close(rates, expected)
    assert len(set(rates)) > 2


def test_plateau_leaves_changes_below_1e_8_alone():
    controller = s.reduce_on_plateau(1.5e-8, factor=0.5, patience=0)
    state = controller.update(controller.update(controller.init(), 1.0), 1.0)
    assert float(state.value) == 1.5e-8


# SPAM


@pytest.mark.parametrize(("interval", "warmup"), [(12, 5), (12, 0), (6, 9), (1, 0), (12, 12)])
def test_spam_rewarmup(interval, warmup):
    def multiplier(c):
        k = (c - (interval - 1)) % interval
        if c < interval - 1 or k >= warmup:
            return 1.0
        return 1 - (1 - 0.05) * (1 + math.cos(math.pi * k / (warmup + 1))) / 2

    schedule = s.spam_rewarmup(interval, warmup, 0.05)
    close(over(schedule, range(40)), [multiplier(c) for c in range(40)])


# sparsity


def sparsity(c, final, total, start, end, interval, power, init):
    first, last = round(start * total), round(end * total)
    updates = [k for k in range(c + 1) if first <= k <= last and k % interval == 0]
    if not updates:
        return init
    u = min((updates[-1] + 1 - first) / (last - first), 1) if last > first else 1
    return final + (init - final) * (1 - u) ** power


@pytest.mark.parametrize("interval", [1, 2, 3, 7, 30])
@pytest.mark.parametrize(("total", "start", "end"), [(70, 0.25, 0.75), (50, 0.3, 0.3), (40, 0, 1)])
@pytest.mark.parametrize("power", [1, 3])
def test_sparsity(interval, total, start, end, power):
    schedule = s.sparsity_schedule(0.8, total, start, end, interval, power, 0.1)
    expected = [sparsity(c, 0.8, total, start, end, interval, power, 0.1) for c in range(total)]
    close(schedule(np.arange(total)), expected)
    first, last = round(start * total), round(end * total)
    updates = [bool(schedule.is_mask_update(c)) for c in range(total)]
    assert updates == [first <= c <= last and c % interval == 0 for c in range(total)]


def test_sparsity_rounds_half_to_even():
    assert [s.sparsity_schedule(0.5, n).start for n in (70, 50)] == [18, 12]


def test_an_interval_without_updates_prunes_nothing():
    schedule = s.sparsity_schedule(0.8, 20, 0.3, 0.4, update_interval=100)
    assert np.all(np.asarray(schedule(np.arange(20))) == 0)


@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize("init", [0.0, 0.2])
def test_sparsity_in_fractions_of_compute(power, init):
    total = 10_000
    schedule = s.sparsity_schedule(
        0.8, total, power=power, init_sparsity=init, fractions_of="compute"
    )
    spent = np.cumsum(1 - np.asarray(schedule(np.arange(total))))
    np.testing.assert_allclose(spent[schedule.start - 1] / spent[-1], 0.25, atol=3e-4)
    np.testing.assert_allclose(spent[schedule.end - 1] / spent[-1], 0.75, atol=3e-4)
    assert schedule.start < 0.25 * total
    assert schedule.end < 0.75 * total


def test_average_parameter_count():
    def halved(c):
        return jnp.where(c < 5, 0.0, 0.5)

    assert s.average_parameter_count(1000, halved, 10, unprunable=100) == 850.0


# last iterate


@pytest.mark.parametrize("L", [None, 2.0])
@pytest.mark.parametrize("T", [7, 8])
def test_last_iterate(L, T):
    cap, mu, k = (math.inf, 0.5, 0.0) if L is None else (1 / (2 * L), 0.5, L / 0.5)
    tau = math.ceil(T / 2)
    expected = {
        "sqrt": lambda t: min(cap, 3 / math.sqrt(t)),
        "constant": lambda t: min(cap, 3 / math.sqrt(T)),
        "linear": lambda t: min(cap, 3 * (T - t + 1) / T**1.5),
        "strong": lambda t: 1 / (mu * (t + 2 * k)),
        "strong2": lambda t: 2 / (mu * (t + 1 + 4 * k)),
        "strong_known": lambda t: (
            1 / (mu * (1 + 2 * k)) if t <= tau else 2 / (mu * (t - tau + 2 + 4 * k))
        ),
    }
    for kind, rate in expected.items():
        schedule = s.last_iterate_schedule(kind, 3.0, T, L, mu)
        close(over(schedule, range(T)), [rate(t) for t in range(1, T + 1)])


# refined schedule


def test_constant_norms_give_linear_decay():
    close(
        s.refined_schedule(np.full(9, 3.0), "adam", peak_value=0.2), 0.2 * np.arange(8, -1, -1) / 8
    )


@pytest.mark.parametrize("size", [2, 7, 30, 101])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("weighting", ["sgd", "adam"])
def test_refined_schedule(size, smoothing, weighting):
    norms = np.random.default_rng(size).lognormal(size=size)
    half = math.floor(int(smoothing * size) / 2)
    padded = np.pad(norms, (0, 2 * (2 * half + 1)), mode="reflect")
    padded = np.concatenate([np.full(half, norms[0]), padded])
    smooth = np.array([np.median(padded[t : t + 2 * half + 1]) for t in range(size)])
    weights = smooth ** {"sgd": -2, "adam": -1}[weighting]
    raw = np.array([weights[t] * weights[t + 1 :].sum() for t in range(size)])
    refined = s.refined_schedule(norms, weighting, smoothing, 0.3)
    close(refined, 0.3 * raw / raw.max())
    assert refined[-1] == 0.0


def test_the_end_is_mirrored_without_its_last_element():
    norms = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 4.0, 2.0]
    # the last window is (4, 2, 4): mirrored with the last element it would be (4, 2, 2)
    refined = s.refined_schedule(norms, "adam", smoothing=0.3)
    assert refined[-2] / refined[0] == pytest.approx(0.5 * 0.25 / (7 + 0.5 + 0.25))


@pytest.mark.parametrize("weighting", ["sgd", "adam"])
def test_refined_schedule_survives_broken_norms(weighting):
    norms = np.array([1.0, 0.0, 2.0, np.nan, 4.0, 0.0, np.inf, 3.0])
    refined = s.refined_schedule(norms, weighting, smoothing=0.0)
    assert np.isfinite(refined).all()
    assert refined.max() == 1.0
    filled = s.refined_schedule([1.0, 2.0, 3.0, 4.0], weighting, smoothing=0.0)
    close(s.refined_schedule([1.0, np.nan, 3.0, 4.0], weighting, smoothing=0.0), filled)
    tiny = s.refined_schedule(np.array([1.0, 2.0, 3.0]) * 1e-200, weighting, smoothing=0.0)
    close(tiny, s.refined_schedule([1.0, 2.0, 3.0], weighting, smoothing=0.0))
    close(s.refined_schedule(np.zeros(5), weighting), np.arange(4, -1, -1) / 4)


def test_tables_are_looked_up_and_stretched():
    table = [1.0, 3.0, 2.0, 0.5]
    close(over(s.as_schedule(table), range(6)), [1.0, 3.0, 2.0, 0.5, 0.5, 0.5])
    places = np.interp(np.linspace(0, 3, 10), np.arange(4), table)
    close(over(s.as_schedule(table, 10), range(10)), places)
    close(over(s.as_schedule(table, 2), range(3)), [1.0, 0.5, 0.5])
    assert over(s.as_schedule([2.0], 1), (0, 5)) == [2.0, 2.0]


@pytest.mark.parametrize("ord", [1, 2])
def test_recorder_keeps_norms_and_passes_updates_through(ord):
    recorder = s.record_grad_norms(3, ord)
    grads = {"a": jnp.array([3.0, -4.0], jnp.bfloat16), "b": jnp.array(12.0j), "c": None}
    state, update = recorder.init(grads), jax.jit(recorder.update)
    for _ in range(5):
        passed, state = update(grads, state)
    assert jax.tree.all(jax.tree.map(lambda x, y: jnp.all(x == y), passed, grads))
    close(state.norms, [{1: 19.0, 2: 13.0}[ord]] * 3)
    assert int(state.count) == 5


def test_recorder_finds_norms_before_clipping():
    optimizer = optax.chain(s.record_grad_norms(2), optax.clip_by_global_norm(1.0))
    state = optimizer.init(jnp.zeros(2))
    _, state = optimizer.update(jnp.array([30.0, 40.0]), state)
    close(state[0].norms, [50.0, 0.0])


# laws


def test_step_law_example_and_sequences():
    law = s.step_law(7e9, 1.4e12)
    close(law.learning_rate, 1.79 * math.exp(-0.713 * math.log(7e9) + 0.307 * math.log(1.4e12)))
    close(law.batch_size_tokens, 0.58 * math.exp(0.571 * math.log(1.4e12)))
    close(s.batch_in_sequences(8192, 2048), 4.0)


def test_learning_rate_scales_with_the_batch():
    close(s.scale_learning_rate(0.1, 1024, 128), 0.8)
    close(s.scale_learning_rate(0.1, 1024, 128, "sqrt"), 0.1 * math.sqrt(8))
    close(s.scale_learning_rate(0.1, 1024, 128, 1 / 3), 0.2)
    close(s.scale_learning_rate(0.1, 1024, 128, max_learning_rate=0.3), 0.3)
    close(
        s.scale_learning_rate(0.1, jnp.array([64, 4096]), 128, max_learning_rate=0.3), [0.05, 0.3]
    )


def test_batch_hessian():
    close(s.batch_hessian_max_eigenvalue(3.0, 16, 4.0), 3 + 1 / 3)
    close(s.batch_hessian_max_eigenvalue(0.5, 16, 4.0), 2.0)
    below, above = (s.batch_hessian_max_eigenvalue(1.0 + e, 16, 4.0) for e in (-1e-9, 1e-9))
    close(below, above, rtol=1e-9)
    close(s.max_learning_rate(3.0, 16, 4.0), 2 / (3 + 1 / 3))
    assert jnp.isfinite(jax.grad(s.batch_hessian_max_eigenvalue)(0.0, 16.0, 4.0))


# combinators


def test_join_is_that_of_optax():
    parts = [optax.linear_schedule(0.0, 1.0, 5), optax.cosine_decay_schedule(1.0, 9)]
    ours, theirs = s.join(parts, [5]), optax.join_schedules(parts, [5])
    close(over(ours, range(16)), over(theirs, range(16)))


def test_warmup_is_in_front_of_the_schedule():
    profile = s.rex(0.3, 9)
    rates = over(s.warmup(profile, 3, 0.03), range(14))
    close(rates, [0.03, 0.12, 0.21, *over(profile, range(11))])
    close(over(s.warmup(profile, 0), range(10)), over(profile, range(10)))


def test_cyclic_waits_for_its_start():
    profile = s.linear_decay(1.0, 4)
    close(over(s.cyclic(profile, 3, start=2), range(9)), [1, 1, 1, 0.75, 0.5, 1, 0.75, 0.5, 1])
