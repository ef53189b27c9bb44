"""Controllers: kept and restored between any two decisions, and what each decides."""

import inspect
import json
from functools import partial

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers as o
from gradchain.catalogue import METHODS
from gradchain.transforms.curvature import lanczos
from scipy.interpolate import UnivariateSpline
from scipy.optimize import curve_fit
from subjects import strict

CONTROLLERS = [name for name, entry in METHODS.items() if entry.kind == "controller"]
TINY = {"explore_steps": 16, "exploit_steps": 20, "num_candidates": 3, "max_exploit_steps": 320}


def golden(trials, low, high, random):
    """A search of no randomness: shares of the interval, in logarithms."""
    return low * (high / low) ** ((0.3 + 0.618 * len(trials)) % 1.0)


def reports():
    """What a loop reports, whatever it is asked for: a loss to one, gradients to another."""
    random = np.random.default_rng(0)
    for i in range(400):
        yield {
            "auto_lrs": 2.0 + np.exp(-0.01 * i) + 0.01 * random.normal(),
            "adadagrad": {"w": random.normal(size=(4, 3)) + 5.0 / (1 + i)},
        }


OPTIONS = {"auto_lrs": {**TINY, "suggest": golden}, "adadagrad": {"test_interval": 3}}


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_it_goes_on_from_json_as_if_nothing_had_happened(name):
    arguments = METHODS[name].arguments(**OPTIONS[name])
    functions = {key: value for key, value in arguments.items() if callable(value)}
    controller, decisions = METHODS[name].factory(**arguments), []
    for i, report in enumerate(reports()):
        if i % 7 == 0:
            kept = json.loads(json.dumps(controller.to_dict()))
            other = type(controller).from_dict(kept, **functions)
            assert other.to_dict() == kept
        decisions.append(controller.step(report[name]))
        assert other.step(report[name]) == decisions[-1]
        assert getattr(other, "decision", decisions[-1]) == decisions[-1]
    assert len(set(decisions)) > 3
    with pytest.raises((ValueError, TypeError)):
        type(controller).from_dict({**kept, "state": {}}, **functions)


def test_every_controller_is_tried():
    kept = {name for name in CONTROLLERS if inspect.isclass(METHODS[name].factory)}
    assert kept == set(OPTIONS)


# --- AutoLRS -------------------------------------------------------------------------------------


def actions_of(controller, loss_of, count):
    """The actions that are no training steps, each with the training steps before it."""
    decision, found, steps = controller.step(), [], 0
    for _ in range(count):
        if decision.action == "train":
            steps += 1
        else:
            found.append((steps, decision.action))
        decision = controller.step(loss_of(decision))
    return found


def test_stages_double_and_then_look_at_the_validation_loss():
    controller = o.AutoLRS(1e-3, 1.0, **TINY, warmup_steps=4, suggest=golden)
    found = actions_of(controller, lambda decision: 1.0 / (1 + decision.learning_rate), 300)
    first = [(4, "save"), (20, "restore"), (36, "restore"), (52, "restore")]
    # 4 + 3 * 16 + 20 steps, then twice as many: 3 short runs of 32, each evaluated 16 times
    second = [(72, "save"), *((72 + 2 * i, "evaluate") for i in range(1, 17)), (104, "restore")]
    assert found[: len(first) + len(second)] == first + second
    assert controller.settings["exploit_steps"] == 20
    assert controller.state["exploit_steps"] == 40


def test_the_warm_up_is_linear():
    controller = o.AutoLRS(1e-3, 1.0, warmup_steps=3, warmup_learning_rate=0.3, suggest=golden)
    rates = [controller.step(1.0).learning_rate for _ in range(3)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3])
    assert controller.step(1.0).action == "save"


def test_the_rate_with_the_lowest_forecast_trains_and_what_diverged_does_not():
    controller = o.AutoLRS(1e-3, 1.0, **TINY, suggest=golden)
    x, decision, kept = 3.0, controller.step(), None
    rates = set()
    while controller.state["phase"] != "exploit":
        rates.add(decision.learning_rate)
        if decision.action == "save":
            kept = x
        elif decision.action == "restore":
            x = kept
        else:
            # the largest rate leads to NaN, and the larger of the others is better
            loss = np.nan if decision.learning_rate > 0.5 else x * x
            x = x - decision.learning_rate * x
            decision = controller.step(loss)
            continue
        decision = controller.step()
    rates = sorted(rates)
    assert rates[-1] > 0.5
    assert decision == ("restore", rates[-2])


def test_a_rate_that_was_tried_is_told_again_and_another_one_is_asked_for():
    asked = []

    def stubborn(trials, low, high, random):
        asked.append(len(trials))
        return 0.1 if len(trials) < 3 else 0.2

    controller = o.AutoLRS(1e-3, 1.0, **{**TINY, "num_candidates": 2}, suggest=stubborn)
    actions_of(controller, lambda decision: 1.0, 40)
    assert asked[:4] == [0, 1, 2, 3]


def test_the_gaussian_process_looks_where_least_is_known_or_where_it_is_best():
    random = np.random.default_rng(1)
    assert 1e-4 <= o.gp_lcb([], 1e-4, 1.0, random) <= 1.0
    trials = [(10.0**-k, (k - 2.5) ** 2) for k in (0, 1, 2, 4)]
    assert 1e-4 < o.gp_lcb(trials, 1e-4, 1.0, random) < 1e-2
    assert 1e-4 < o.gp_lcb(trials, 1e-4, 1.0, random, kappa=0.0) < 1e-1


def test_a_new_rate_compiles_nothing():
    opt = gradchain.inject_hyperparams(o.sgd)(0.1, momentum=0.9)
    params = jnp.array([3.0, -2.0])

    @jax.jit
    def train_step(params, state, rate):
        hyperparams = {**state.hyperparams, "learning_rate": rate}
        value, grads = jax.value_and_grad(lambda x: jnp.sum(x**2) / 2)(params)
        updates, state = opt.update(grads, state._replace(hyperparams=hyperparams), params)
        return optax.apply_updates(params, updates), state, value

    controller = o.AutoLRS(1e-3, 0.5, **TINY, suggest=golden)
    state, decision, kept = opt.init(params), controller.step(), None
    rates = set()
    for _ in range(150):
        loss = None
        if decision.action == "save":
            kept = params, state
        elif decision.action == "restore":
            params, state = kept
        elif decision.action == "evaluate":
            loss = float(jnp.sum(params**2) / 2)
        else:
            rates.add(decision.learning_rate)
            rate = jnp.asarray(decision.learning_rate)
            params, state, loss = train_step(params, state, rate)
        decision = controller.step(loss)
    assert len(rates) == 3
    assert train_step._cache_size() == 1
    assert float(jnp.sum(params**2)) < 1.0


def test_of_a_validation_loss_one_outlier_is_left_out():
    x = np.arange(50.0)
    losses = 2 + np.exp(-0.05 * x)
    losses[[4, 12]] += [3.0, 2.0]
    off = np.abs(losses - UnivariateSpline(x, losses, k=2)(x))
    assert np.argmax(off) == 4
    rest = np.arange(50) != 4
    smooth = UnivariateSpline(x[rest], losses[rest], k=2)(x)
    fit = curve_fit(lambda x, a, b, c: a * np.exp(-b * x) + c, x, smooth, (1.0, 0.05, 2.0))[0]
    wanted = fit[0] * np.exp(-fit[1] * 70) + fit[2]
    np.testing.assert_allclose(o.exponential_forecast(losses, 70.0, False), wanted, rtol=1e-4)
    assert abs(o.exponential_forecast(losses, 70.0) / wanted - 1) > 1e-2


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: o.AutoLRS(0.1, 0.01), "max_learning_rate=0.01 must be above"),
        (lambda: o.AutoLRS(0.0, 0.1), "AutoLRS: min_learning_rate=0.0"),
        (lambda: o.AutoLRS(0.01, 0.1, explore_steps=15), r"explore_steps=15 must be in \[16"),
        (lambda: [c.step() for c in [o.AutoLRS(0.01, 0.1, warmup_steps=1)] * 2], "needs the loss"),
        (lambda: o.exponential_forecast([1.0] * 15, 10), "at least 16 finite"),
        (lambda: o.exponential_forecast([np.nan] * 16, 10), "at least 16 finite"),
        (lambda: o.AdaptiveBatchSize(o.norm_test, 4, init_batch_size=8), "init_batch_size=8"),
        (lambda: o.AdaptiveBatchSize(o.norm_test, 4).step(), "a test is due"),
        (lambda: o.norm_test({"w": jnp.ones((1, 3))}, 0.1), "at least 2"),
        (lambda: o.norm_test({"w": jnp.ones((2, 3))}, 0.0), "norm_test: eta=0.0"),
        (lambda: o.lanczos_lr_momentum(smallest=0.0), "smallest=0.0"),
    ],
)
def test_refusals(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


# --- batch sizes ---------------------------------------------------------------------------------

TESTS = {
    "norm": partial(o.norm_test, eta=0.2),
    "inner": partial(o.inner_product_test, theta=0.05),
    "across": partial(o.orthogonality_test, nu=0.2),
    "augmented": partial(o.augmented_inner_product_test, theta=0.05, nu=0.2),
    "coordinates": partial(o.coordinate_norm_test, eta=0.2),
}


def examples(count=8, scale=1.0):
    random = np.random.default_rng(3)
    shapes = {"w": (count, 3, 2), "b": (count, 4)}
    return {k: scale * (1.0 + random.normal(size=shape)) for k, shape in shapes.items()}


def by_numpy(grads):
    """(quotient, variance) of each test, and the squared norm, from the formulas of the paper."""
    leaves = [leaf.reshape(len(leaf), -1) for leaf in grads.values()]
    means = [leaf.mean(axis=0) for leaf in leaves]
    n2 = sum(np.sum(mean**2) for mean in means)
    each = [np.var(leaf, axis=0, ddof=1) for leaf in leaves]
    along = [leaf @ mean for leaf, mean in zip(leaves, means, strict=True)]
    rows = zip(leaves, along, means, strict=True)
    across = [leaf - np.outer(a, m) / np.sum(m**2) for leaf, a, m in rows]
    v = sum(map(np.sum, each))
    v_along = sum(np.var(a, ddof=1) for a in along)
    v_across = sum(np.sum(np.var(r, axis=0, ddof=1)) for r in across)
    worst = max(np.max(s / m**2) for s, m in zip(each, means, strict=True))
    found = {
        "norm": (v / (0.04 * n2), v),
        "inner": (v_along / (0.05**2 * n2**2), v_along),
        "across": (v_across / (0.04 * n2), v_across),
        "coordinates": (worst / 0.04, v),
    }
    return {**found, "augmented": max(found["inner"], found["across"])}, n2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TESTS)
def test_batch_tests_by_their_formulas(name):
    grads = examples()
    expected, n2 = by_numpy(grads)
    quotient, variance = expected[name]
    assert quotient > 9
    found = TESTS[name](grads)
    np.testing.assert_allclose(found, [np.ceil(quotient), variance, n2], rtol=1e-9)


@pytest.mark.parametrize("name", TESTS)
def test_batch_tests_on_members_follow_the_law_of_total_variance(name):
    grads = examples()
    halves = {k: jnp.asarray(leaf.reshape(2, 4, *leaf.shape[1:])) for k, leaf in grads.items()}
    of_a_member = lambda g: TESTS[name](g, axis_name="x")  # noqa: E731
    found = jax.jit(jax.vmap(of_a_member, axis_name="x"))(halves)
    assert all(float(leaf[0]) == float(leaf[1]) for leaf in found)
    alone = TESTS[name](grads)
    np.testing.assert_allclose(found.grad_norm_squared[0], alone.grad_norm_squared, rtol=1e-5)
    # divisors 3 and 2 in place of 7: close, and not the same
    np.testing.assert_allclose(found.next_batch_size[0], alone.next_batch_size, rtol=0.25)
    assert float(found.next_batch_size[0]) != 4.0


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_batch_tests_have_no_unit(name, scale):
    found = TESTS[name](examples(scale=scale)).next_batch_size
    assert float(found) == float(TESTS[name](examples()).next_batch_size)


@pytest.mark.parametrize("name", TESTS)
def test_batch_tests_at_their_ends(name):
    test = TESTS[name]
    alike = {"w": jnp.ones((4, 3), jnp.bfloat16)}
    assert float(test(alike).next_batch_size) == 4
    with jax.debug_nans(True):
        assert float(test({"w": jnp.zeros((4, 3))}).next_batch_size) == 4
    assert np.isnan(test({"w": jnp.full((4, 3), jnp.nan)}).next_batch_size)
    with jax.enable_x64(True), strict():
        of_each = {str(kind): jnp.ones((4, 3), kind) for kind in (jnp.bfloat16, "f4", "f8")}
        assert test(of_each).variance.dtype == np.float64


def decided(*wanted, **options):
    controller = o.AdaptiveBatchSize(lambda n: o.BatchTest(n, 1.0, 1.0), 100, **options)
    return [controller.step(n).batch_size for n in wanted]


def test_batches_grow_to_the_cap_and_never_shrink():
    assert decided(7.0, 3.0, np.nan, 50.0, np.inf) == [7, 7, 7, 50, 100]
    assert decided(7.0, 9.0, 10.0, test_interval=2) == [7, 7, 10]
    assert decided(7.0, 99.0, multiple_of=8) == [8, 100]
    assert decided(17.0, 33.0, multiple_of=8, powers_of_two=True) == [32, 64]


# --- rate and momentum from the spectrum ---------------------------------------------------------


def quadratic(params):
    matrix = jnp.array([[2.0, 1.0], [1.0, 3.0]])
    return params["x"] @ matrix @ params["x"] / 2 - params["s"] ** 2 + 0.5 * params["k"][0, 0] ** 2


@pytest.mark.parametrize("size", [1e-16, 1.0, 1e15])
def test_the_spectrum_of_a_matrix_of_any_size(size):
    """The Krylov space ends where it does for ordinary ones."""
    own = np.float32([1, 2, 3, 5])
    values, _ = lanczos(lambda v: np.float32(size) * own * v, jnp.ones(4), 4)
    np.testing.assert_allclose(values / np.float32(size), own, rtol=1e-5)


def test_the_spectrum_over_leaves_in_one_jitted_call():
    params = {"x": jnp.ones(2), "s": jnp.ones(()), "k": jnp.ones((1, 1))}
    found = jax.jit(lambda p: o.lanczos_lr_momentum(6)(p, quadratic))(params)
    values = np.sort([-2.0, 1.0, (5 + 5**0.5) / 2, (5 - 5**0.5) / 2])
    kept = np.asarray(found.ritz_values)[np.asarray(found.weights) > 1e-6]
    np.testing.assert_allclose(kept, values, rtol=1e-4)
    assert np.isclose(found.weights.sum(), 1.0)
    root = np.sqrt(values[-1])
    np.testing.assert_allclose(found.learning_rate, (2 / (root + 1)) ** 2, rtol=1e-4)
    np.testing.assert_allclose(found.momentum, ((root - 1) / (root + 1)) ** 2, rtol=1e-3)


def test_the_pair_and_its_bounds():
    x = jnp.ones(3)
    curvature = jnp.array([1e-5, 1.0, 4.0])
    loss = lambda x: jnp.sum(curvature * x**2) / 2  # noqa: E731
    found = o.lanczos_lr_momentum(smallest=1.0, lr_scale=0.5)(x, loss)
    np.testing.assert_allclose(found[:2], [0.5 * 4 / 9, 1 / 9], rtol=1e-5)
    capped = o.lanczos_lr_momentum(max_learning_rate=0.1, max_momentum=0.9)(x, loss)
    np.testing.assert_allclose(capped[:2], [0.1, 0.9], rtol=1e-6)
    for least in (-1.0, 0.0):
        with jax.debug_nans(True):
            downhill = o.lanczos_lr_momentum()(x, lambda x, least=least: least * loss(x))
        assert [float(value) for value in downhill[:2]] == [0.0, 0.0]
    with pytest.raises(ValueError, match="params must be real"):
        o.lanczos_lr_momentum()(x + 0j, loss)


def test_heavy_ball_with_the_pair_converges_as_polyak_says():
    curvature = jnp.array([0.1, 1.0, 10.0])
    loss = lambda x: jnp.sum(curvature * x**2) / 2  # noqa: E731
    pair = o.lanczos_lr_momentum()(jnp.ones(3), loss)
    opt = o.sgd(pair.learning_rate, momentum=pair.momentum)
    x, state = jnp.ones(3), opt.init(jnp.ones(3))
    for _ in range(60):
        updates, state = opt.update(curvature * x, state)
        x = x + updates
    # at both ends of the spectrum a double root: x_t = (1 + b t) r^t, r^2 the momentum, b < 2
    bound = float(loss(jnp.ones(3))) * (1 + 2 * 60) ** 2 * float(pair.momentum) ** 60
    assert 0.1 * bound < float(loss(x)) < bound
