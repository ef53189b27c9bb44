"""Methods without backward passes: what their cards say beside the recorded runs."""

import random

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers as o
from gradchain import transforms as t
from gradchain.catalogue import METHODS
from samples import sample
from subjects import NAMES, extras_for, finite, loss_of, same, signature_of, small_tree
from turns import in_turn

FAMILY = [
    name
    for name in NAMES
    if METHODS[name].family == "zeroth_order"
    and name not in ("zo_hybrid", "forward_gradient_local")
]
NAN = jnp.nan


def step_without_gradient(opt):
    """`(params, state) -> (params, state)`, without a gradient."""

    def step(params, state):
        extras = extras_for(opt, params)
        updates, state = opt.update(None, state, params, **extras)
        return optax.apply_updates(params, updates), state

    return step


# --- the incoming gradient ------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILY)
def test_the_gradient_is_never_read(name):
    opt, params = sample(name), small_tree()
    extras = extras_for(opt, params)

    def updates(fill):
        grads = jax.tree.map(lambda x: jnp.full_like(x, fill), params)
        return opt.update(grads, opt.init(params), params, **extras)[0]

    none = jax.jit(lambda: opt.update(None, opt.init(params), params, **extras)[0])()
    assert finite(none)
    assert same(none, jax.jit(updates, static_argnums=0)(NAN))
    assert not same(none, jax.tree.map(jnp.zeros_like, none))


def test_a_method_that_reads_the_gradient_says_so():
    params = small_tree()
    for opt in (o.adam(0.1), o.cautious(o.mezo(0.1)), t.masked(o.mezo(0.1), leaves_of("w"))):
        with pytest.raises(ValueError, match="gradient is None"):
            opt.update(None, opt.init(params), params, value_fn=loss_of)
    held = t.every(2, o.mezo(0.1))
    assert finite(held.update(None, held.init(params), params, value_fn=loss_of)[0])


def leaves_of(*names):
    return {name: name in names for name in small_tree()}


# --- pairs ----------------------------------------------------------------------------------------


def estimator(seed):
    """An estimator, drawn."""
    draw = random.Random(seed)
    distribution = draw.choice(["gaussian", "rademacher", "sphere"])
    sparse = t.zeroth_order.sparse_directions(sparsity=0.5, update_interval=2)
    sampler = draw.choice([None, sparse])
    if draw.random() < 0.3:
        return t.zeroth_order.forward_mode_gradient(
            draw.choice([1, 3]), seed, sampler, draw.random() < 0.5
        )
    return t.zeroth_order.spsa_gradient(
        1e-3, draw.choice([1, 2]), draw.random() < 0.5, seed, sampler, distribution
    )


PAIRED = [name for name in NAMES if METHODS[name].kind == "transformation" and name not in FAMILY]


@in_turn(PAIRED, 0, of=4)
def test_any_optimizer_stands_behind_an_estimator(name):
    opt = gradchain.chain(estimator(PAIRED.index(name)), sample(name))
    params = small_tree()
    state = jax.eval_shape(opt.init, params)
    after = jax.eval_shape(step_without_gradient(opt), params, state)
    assert signature_of(after) == signature_of((params, state))


@pytest.mark.parametrize("seed", range(6))
def test_random_pairs_run(seed):
    name = random.Random(seed).choice(PAIRED)
    opt, params = gradchain.chain(estimator(seed), sample(name)), small_tree()
    step = jax.jit(step_without_gradient(opt))
    state = opt.init(params)
    for _ in range(3):
        params, state = step(params, state)
    assert finite((params, state))
    assert not same(params, small_tree()), name
    assert step._cache_size() == 1


# --- directions -----------------------------------------------------------------------------------


def slopes_and_estimate(estimator, params, value_fn):
    watched = gradchain.observe(estimator, "slopes")

    @jax.jit
    def estimated(params):
        return watched.update(None, watched.init(params), params, value_fn=value_fn)

    g, state = estimated(params)
    return gradchain.observed(state)["slopes"], g


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher", "sphere"])
def test_directions_have_unit_covariance(distribution):
    params = {"a": jnp.zeros(1000), "b": jnp.zeros((30, 30), jnp.complex64)}

    def value_fn(p):
        return jnp.sum(p["a"]) + jnp.sum(jnp.real(p["b"]))

    slope, g = slopes_and_estimate(
        t.zeroth_order.spsa_gradient(distribution=distribution), params, value_fn
    )
    z = jax.tree.map(lambda x: x / slope, g)
    parts = jnp.concatenate([z["a"], z["b"].real.ravel(), z["b"].imag.ravel()])
    assert abs(float(jnp.mean(parts**2)) - 1) < 0.1
    assert abs(float(jnp.mean(parts))) < 0.1
    assert abs(float(jnp.mean(z["b"].real * z["b"].imag))) < 0.1
    if distribution == "rademacher":
        assert jnp.allclose(abs(parts), 1, atol=1e-5)
    if distribution == "sphere":
        assert jnp.allclose(jnp.sum(parts**2), 2800, rtol=1e-5)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("n_samples", [1, 3])
def test_slopes_are_those_of_the_directions(one_sided, n_samples):
    """On a linear loss every slope is the product with its direction, and directions differ."""
    weight = jnp.arange(1.0, 6.0)
    chosen = t.zeroth_order.spsa_gradient(1e-2, n_samples, one_sided)
    forward = t.zeroth_order.forward_mode_gradient(n_samples)
    at = jnp.zeros(5)
    slopes, g = slopes_and_estimate(chosen, at, lambda x: weight @ x)
    exact, same_g = slopes_and_estimate(forward, at, lambda x: weight @ x)
    assert np.allclose(slopes, exact, rtol=1e-4)
    assert np.allclose(g, same_g, rtol=1e-4)
    assert slopes.shape == (() if n_samples == 1 else (3,))
    assert n_samples == 1 or len(set(np.asarray(slopes).tolist())) == 3


def test_the_estimate_is_unbiased():
    x = jnp.array([1.0, -2.0, 0.5])
    g = slopes_and_estimate(
        t.zeroth_order.spsa_gradient(n_samples=4000), x, lambda x: jnp.sum(x**2)
    )[1]
    assert np.allclose(g, 2 * x, atol=0.3)


def test_masks_stay_for_their_period_and_have_their_share():
    opt = o.zo_sparse(1.0, sparsity=0.9, update_interval=3)
    x = jnp.ones(4000)
    state = opt.init(x)
    moved = []
    for _ in range(6):
        u, state = opt.update(None, state, x, value_fn=jnp.sum)
        moved.append(np.asarray(u != 0))
    assert abs(moved[0].mean() - 0.1) < 0.02
    assert all((moved[0] == m).all() for m in moved[:3])
    assert all((moved[3] == m).all() for m in moved[3:])
    assert not (moved[0] == moved[3]).all()


def test_the_threshold_of_the_authors_leaves_out_more():
    sampler = t.zeroth_order.sparse_directions(sparsity=0.9, normal_threshold=True)
    g = slopes_and_estimate(t.zeroth_order.spsa_gradient(sampler=sampler), jnp.ones(4000), jnp.sum)[
        1
    ]
    assert abs(float(jnp.mean(g == 0)) - 0.816) < 0.02


def test_sparsity_per_leaf_and_by_magnitude():
    params = {"small": jnp.full(500, 0.1), "large": jnp.full(500, 2.0)}
    rates = t.zeroth_order.magnitude_sparsity(params, 0.5)
    opt = t.zeroth_order.spsa_gradient(sampler=t.zeroth_order.sparse_directions(sparsity=rates))
    g = slopes_and_estimate(opt, params, lambda p: jnp.sum(p["small"]) + jnp.sum(p["large"]))[1]
    assert bool(jnp.all(g["small"] == 0))
    assert bool(jnp.all(g["large"] != 0))


# --- precision and determinism --------------------------------------------------------------------


def test_a_perturbation_does_not_vanish_in_bfloat16():
    """At 1, steps of 1e-3 are below the spacing of bfloat16; losses differ by less than theirs."""
    low = jnp.ones(64, jnp.bfloat16)

    def value_fn(x):
        return jnp.sum(x.astype(jnp.float32))

    slope, g = slopes_and_estimate(t.zeroth_order.spsa_gradient(), low, value_fn)
    exact, same_g = slopes_and_estimate(
        t.zeroth_order.forward_mode_gradient(), low.astype(jnp.float32), value_fn
    )
    assert np.allclose(slope, exact, rtol=1e-2)
    assert np.allclose(g.astype(jnp.float32), same_g, rtol=2e-2)
    assert g.dtype == jnp.bfloat16
    far = slopes_and_estimate(
        t.zeroth_order.spsa_gradient(0.1), low, lambda x: value_fn(x) / 64 + 100
    )[0]
    assert float(far) != 0


def noise_on_sum(scale):
    draws = iter(np.random.default_rng(0).normal(size=100))

    def value_fn(x):
        return jnp.sum(x) + scale * next(draws)

    return value_fn


def wait_for(fn, x):
    jax.block_until_ready(fn(x))
    jax.effects_barrier()


def test_a_loss_that_is_noise_is_refused():
    noisy = noise_on_sum(1)
    with pytest.raises(ValueError, match="not deterministic"):
        t.zeroth_order.check_deterministic(noisy, jnp.ones(2))
    t.zeroth_order.check_deterministic(jnp.sum, jnp.ones(2))
    opt = t.zeroth_order.spsa_gradient(check_deterministic=True)
    x = jnp.ones(2)
    with pytest.raises(ValueError, match="spsa_gradient: value_fn is not deterministic"):
        opt.update(None, opt.init(x), x, value_fn=noisy)
    assert finite(opt.update(None, opt.init(x), x, value_fn=jnp.sum)[0])
    compiled = jax.jit(lambda x: opt.update(None, opt.init(x), x, value_fn=noisy)[0])
    with pytest.raises(Exception, match="not deterministic"):
        wait_for(compiled, x)


def test_noise_made_in_python_is_the_same_in_all_evaluations():
    slope, _ = slopes_and_estimate(
        t.zeroth_order.spsa_gradient(0.1), jnp.ones(3), noise_on_sum(1000)
    )
    assert abs(float(slope)) < 10


def test_losses_without_a_forward_mode_derivative_are_refused():
    @jax.custom_vjp
    def square(x):
        return jnp.sum(x**2)

    square.defvjp(lambda x: (square(x), x), lambda x, g: (2 * x * g,))
    opt = o.forward_gradient(0.1)
    for n_samples in (1, 2):
        opt = o.forward_gradient(0.1, n_samples)
        with pytest.raises(ValueError, match=r"custom_vjp.*spsa_gradient"):
            opt.update(None, opt.init(jnp.ones(2)), jnp.ones(2), value_fn=square)


# --- replay ---------------------------------------------------------------------------------------

FALLING = optax.linear_schedule(0.01, 0.001, 10)
REPLAYED = {
    "mezo": lambda: o.mezo(FALLING, weight_decay=0.1, mask=leaves_of("w", "s")),
    "samples": lambda: o.mezo(0.01, n_samples=3, one_sided=True),
    "momentum": lambda: o.zo_sgd_momentum(0.01, nesterov=True),
    "sign": lambda: o.zo_sign_sgd(0.01, n_samples=2),
    "sparse": lambda: o.zo_sparse(0.01, sparsity=0.5, update_interval=2),
    "adam": lambda: o.zo_adam(0.01, weight_decay=0.1),
    "adamu": lambda: o.zo_adamu(0.01, alpha=0.5, b1=0.5, b2=0.5),
    "zeroflow": lambda: o.zeroflow(0.01, history=0.5),
    "forward": lambda: o.forward_gradient(0.01, weight_decay=0.1),
    "forward samples": lambda: o.forward_gradient(0.01, 2, normalize=True),
    "optax": lambda: gradchain.chain(
        t.zeroth_order.spsa_gradient(), optax.sgd(FALLING, momentum=0.5)
    ),
}


@pytest.mark.parametrize("name", REPLAYED)
def test_replay_rebuilds_the_run_to_the_bit(name):
    opt = REPLAYED[name]()
    watched = gradchain.observe(gradchain.chain(opt), "slopes")
    start = params = small_tree()
    state = watched.init(params)
    step = jax.jit(step_without_gradient(watched))
    log = []
    for _ in range(5):
        params, state = step(params, state)
        log.append(np.asarray(gradchain.observed(state)["slopes"]))
    assert same(t.zeroth_order.replay(gradchain.chain(opt), start, range(1, 6), log), params)


def test_replay_may_begin_later():
    opt, x = o.mezo(FALLING), jnp.ones(3)
    whole = t.zeroth_order.replay(opt, x, [1, 2, 3, 4], [1.0, -2.0, 0.5, 3.0])
    half = t.zeroth_order.replay(opt, x, [1, 2], [1.0, -2.0])
    assert same(t.zeroth_order.replay(opt, half, [3, 4], [0.5, 3.0]), whole)


def test_replay_refuses_what_it_cannot_do():
    x = jnp.ones(3)
    with pytest.raises(ValueError, match="counts"):
        t.zeroth_order.replay(o.mezo(0.1), x, [1, 2], [1.0])
    with pytest.raises(ValueError, match="ascend"):
        t.zeroth_order.replay(o.mezo(0.1), x, [2, 1], [1.0, 1.0])
    with pytest.raises(ValueError, match="slopes"):
        t.zeroth_order.replay(o.mezo(0.1, n_samples=2), x, [1], [1.0])
    with pytest.raises(ValueError, match="value_fn"):
        t.zeroth_order.replay(o.zo_sgd_conservative(0.1), x, [1], [1.0])


def test_a_delayed_run_is_the_run_one_call_later():
    kwargs = {"weight_decay": 0.1, "mask": leaves_of("w"), "n_samples": 2}
    now, late = o.mezo(FALLING, **kwargs), o.mezo(FALLING, delayed_update=True, **kwargs)
    a = b = small_tree()
    state, delayed = now.init(a), late.init(b)
    steps = jax.jit(step_without_gradient(now)), jax.jit(step_without_gradient(late))
    b, delayed = steps[1](b, delayed)
    assert same(b, a)
    for _ in range(4):
        a, state = steps[0](a, state)
        flushed = t.zeroth_order.flush(late, b, delayed)
        for x, y in zip(jax.tree.leaves(flushed), jax.tree.leaves(a), strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)
        b, delayed = steps[1](b, delayed)
    with pytest.raises(ValueError, match="pending"):
        t.zeroth_order.flush(now, a, state)


# --- single methods -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "choice"),
    [
        ((1.0, 2.0, 3.0), 0),
        ((1.0, 2.0, 0.5), -1),
        ((1.0, 2.0, 1.0), -1),
        ((1.0, 0.5, 0.7), 1),
        ((1.0, 1.0, 2.0), 1),
        ((1.0, 0.5, 0.5), -1),
        ((1.0, 0.5, 0.2), -1),
        ((1.0, NAN, 2.0), 0),
        ((1.0, NAN, 0.5), -1),
        ((1.0, 0.5, NAN), 1),
    ],
)
def test_the_conservative_choice(losses, choice):
    stay, ahead, back = losses

    def value_fn(x):
        return jnp.where(x > 0.5, ahead, jnp.where(x < -0.5, back, stay))

    def step(g, params, value_fn):
        return t.zeroth_order.best_of_three(value_fn, params, g)

    opt, x = t.flow(step), jnp.zeros(())
    u, _ = opt.update(jnp.ones(()), opt.init(x), x, value_fn=value_fn)
    assert float(u) == choice


def test_blocks():
    params = small_tree()
    for blocks in ([["w", "b"], ["b"]], [["nothing"]]):
        with pytest.raises(ValueError, match="blocks"):
            o.zo_block_coordinate(0.1, blocks=blocks).init(params)
    nested = {"a": {"k": jnp.ones(2), "b": jnp.ones(2)}, "c": jnp.ones(2)}
    for blocks in (
        [["a/k"]],
        [["a.k"]],
        lambda p: {"a": {"k": "first", "b": None}, "c": None},
    ):
        opt = o.zo_block_coordinate(0.1, blocks=blocks)
        u, _ = opt.update(None, opt.init(nested), nested, value_fn=loss_of)
        assert bool(jnp.all(u["a"]["k"] != 0))
        assert not np.any(u["a"]["b"])
        assert not np.any(u["c"])


def test_the_hybrid_shows_all_params_and_reads_no_gradient_of_the_others():
    params = small_tree()
    labels = {name: "fo" if name == "w" else "zo" for name in params}
    grads = {name: jnp.full_like(x, 1.0 if name == "w" else NAN) for name, x in params.items()}
    seen = []

    def value_fn(p):
        seen.append(set(p))
        return loss_of(p)

    opt = o.zo_hybrid(o.mezo(0.01, weight_decay=0.1), optax.sgd(0.1, momentum=0.9), labels)
    u, state = opt.update(grads, opt.init(params), params, value_fn=value_fn)
    assert finite((u, state))
    assert seen
    assert all(names == set(params) for names in seen)
    assert np.allclose(u["w"], -0.1)
    with pytest.raises(ValueError, match=r"zo_hybrid: labels=.*'first'"):
        o.zo_hybrid(o.mezo(0.1), o.sgd(0.1, momentum=0.9), {"w": "first"})


def test_history_starts_with_the_first_estimate():
    x = jnp.array([1.0, -2.0])
    plain, mixed = o.zeroflow(1.0), o.zeroflow(1.0, history=0.25)
    a, b = plain.init(x), mixed.init(x)
    d = None
    for _ in range(3):
        g, a = plain.update(None, a, x, value_fn=lambda x: jnp.sum(x**2))
        u, b = mixed.update(None, b, x, value_fn=lambda x: jnp.sum(x**2))
        d = g if d is None else 0.75 * g + 0.25 * d
        assert np.allclose(u, d, rtol=1e-5)


def test_the_forward_mode_projection_is_that_of_the_gradient():
    params = small_tree()
    grads = jax.grad(loss_of)(params)
    guess = jax.tree.map(lambda x: x - 0.3, params)
    for mode in ("per_sample", "batch", "sign"):
        for scope in ("leaf", "global"):
            given = t.zeroth_order.project_onto_guess(mode, scope=scope)
            forward = t.zeroth_order.project_onto_guess(mode, scope=scope, target="value_fn")
            a, _ = given.update(grads, given.init(params), params, guess=guess)
            b, _ = forward.update(None, forward.init(params), params, guess=guess, value_fn=loss_of)
            for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    zeros = jax.tree.map(jnp.zeros_like, params)
    a, b = jnp.array([[3.0, 4.0], [1.0, 2.0]]), jnp.array([[2.0, 0.0], [1.0, 1.0]])
    for mode, wanted in (("per_sample", [12 / 4.5 + 1.2, 1.2]), ("batch", [54 / 10.5, 18 / 10.5])):
        found = t.zeroth_order.project_onto_guess(mode, eps=0.5)
        u, _ = found.update(a, found.init(jnp.zeros(2)), guess=b)
        np.testing.assert_allclose(u, wanted, rtol=1e-6)
    given = t.zeroth_order.project_onto_guess(eps=0.0)
    u, _ = given.update(grads, given.init(params), params, guess=zeros)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(u))
    with pytest.raises(ValueError, match="guess"):
        given.update(grads, given.init(params), params, guess=jnp.ones(3))


@pytest.mark.parametrize(("guess", "fourth"), [("normal", 3.0), ("rademacher", 1.0)])
def test_guesses_of_its_own(guess, fourth):
    """By its sign alone the product with the gradient leaves the guess as it was drawn."""
    opt = o.forward_gradient_local(optax.sgd(1.0), guess=guess, mode="sign")
    x = jnp.ones(100_001)
    u, _ = opt.update(x[None], opt.init(x), x)
    assert abs(jnp.mean(u)) < 0.02
    assert [jnp.mean(u**2), jnp.mean(u**4)] == pytest.approx([1.0, fourth], abs=0.15)


@pytest.mark.parametrize("size", [1e18, 1e34])
def test_the_projection_onto_a_guess_whose_square_is_no_number(size):
    """It does not depend on how long the guess is."""
    x, opt = jnp.full(4096, size, jnp.float32), t.zeroth_order.project_onto_guess()
    u, _ = opt.update(0.5 * x, opt.init(x), x, guess=x)
    np.testing.assert_allclose(u, 0.5 * x, rtol=1e-5)


# --- activations ----------------------------------------------------------------------------------

SHAPES = {"a": (3, 5), "b": (5, 4), "c": (4, 1)}
STAGED = {
    name: jax.random.normal(jax.random.key(i), shape)
    for i, (name, shape) in enumerate(SHAPES.items())
}
INPUTS = jnp.cos(jnp.arange(21.0)).reshape(7, 3)


def staged(per_sample=True):
    def losses(params, x):
        each = ((x @ params["c"])[:, 0] - INPUTS[:, 0]) ** 2
        return each if per_sample else jnp.mean(each)

    hidden = [lambda p, x, name=name: jnp.tanh(x @ p[name]) for name in ("a", "b")]
    return t.zeroth_order.staged_loss([*hidden, losses], INPUTS)


def activation_gradients(loss):
    zeros = jax.tree.map(jnp.zeros_like, loss.activations(STAGED))
    return jax.grad(lambda shifts: jnp.mean(loss.losses(STAGED, shifts)))(zeros)


def close(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


@pytest.mark.parametrize("per_sample", [True, False])
def test_perturbed_activations_estimate_the_gradient(per_sample):
    """In the mean that is the gradient; in the last stage always. Samples apart vary less."""
    loss = staged(per_sample)
    exact = jax.grad(loss)(STAGED)
    opt = t.zeroth_order.forward_mode_gradient(4000, space="activations")
    g, _ = jax.jit(lambda p: opt.update(None, opt.init(p), p, value_fn=loss))(STAGED)
    close(g["c"], exact["c"], rtol=1e-5, atol=1e-6)
    largest = max(float(jnp.abs(leaf).max()) for leaf in exact.values())
    close(g, exact, atol=(0.02 if per_sample else 0.1) * largest)


@pytest.mark.parametrize("scope", ["leaf", "global"])
@pytest.mark.parametrize("mode", ["per_sample", "batch"])
def test_the_true_gradient_of_activations_as_guess_gives_that_of_the_params(mode, scope):
    loss = staged()
    guess = jax.tree.map(lambda x: 3 * x, activation_gradients(loss))
    opt = o.forward_gradient_local(
        optax.sgd(1.0), "given", mode, scope, target="value_fn", space="activations"
    )
    u, _ = opt.update(None, opt.init(STAGED), STAGED, value_fn=loss, guess=guess)
    close(u, jax.tree.map(jnp.negative, jax.grad(loss)(STAGED)), rtol=1e-4, atol=1e-6)


def test_the_estimate_from_one_draw_is_that_of_back_propagation():
    """<dL/dx, v> and what it is multiplied by, from reverse mode."""
    loss = staged()
    drawn = [jnp.sin(3 * x + 1) for x in loss.activations(STAGED)]
    opt = o.forward_gradient(1.0, sampler=lambda key, count, params: drawn, space="activations")
    u, _ = opt.update(None, opt.init(STAGED), STAGED, value_fn=loss)
    grads = activation_gradients(loss)
    slopes = sum(jnp.sum(a * v, axis=1) for a, v in zip(grads, drawn, strict=True))
    before, after = INPUTS, loss.activations(STAGED)
    for name, x, v in zip("ab", (before, after[0]), drawn, strict=True):
        back = jax.vjp(lambda w, x=x: jnp.tanh(x @ w), STAGED[name])[1](slopes[:, None] * v)[0]
        np.testing.assert_allclose(-u[name], back, rtol=1e-4, atol=1e-6)


def test_training_by_activations_alone():
    loss, params = staged(), STAGED
    opt = o.forward_gradient(0.05, space="activations")
    state = opt.init(params)
    step = jax.jit(lambda p, s: opt.update(None, s, p, value_fn=loss))
    for _ in range(100):
        u, state = step(params, state)
        params = optax.apply_updates(params, u)
    assert float(loss(params)) < 0.3 * float(loss(STAGED))


def test_what_does_not_fit_activations_is_refused():
    z, loss = t.zeroth_order, staged()
    opt = o.forward_gradient(0.1, space="activations")
    with pytest.raises(ValueError, match="staged_loss"):
        opt.update(None, opt.init(STAGED), STAGED, value_fn=loss_of)
    with pytest.raises(ValueError, match="two"):
        z.staged_loss([jnp.sum], INPUTS)
    with pytest.raises(ValueError, match="value_fn"):
        z.project_onto_guess(space="activations")
    whole = z.staged_loss([lambda p, x: jnp.ones(3), lambda p, x: jnp.ones(7)], INPUTS)
    with pytest.raises(ValueError, match="leading axis"):
        opt.update(None, opt.init(STAGED), STAGED, value_fn=whole)
    given = z.project_onto_guess(target="value_fn", space="activations")
    with pytest.raises(ValueError, match="like the activations"):
        given.update(None, given.init(STAGED), STAGED, value_fn=loss, guess=[jnp.ones(3)])


# --- ZO2 ------------------------------------------------------------------------------------------


def _layer(block, x):
    return jnp.tanh(x[0] @ block["w"] + block["b"]), x[1]


def _head(block, x):
    return jnp.mean((x[0] @ block - x[1]) ** 2)


FUNCTIONS = (_layer, _layer, _head)


def test_zo2_is_mezo_block_by_block():
    """Losses and, after the flush, params are those of mezo on the tuple of all blocks."""
    keys = jax.random.split(jax.random.key(3), 3)
    blocks = tuple({"w": jax.random.normal(k, (4, 4)) / 2, "b": jnp.zeros(4)} for k in keys[:2])
    params = (*blocks, jax.random.normal(keys[2], (4, 1)))
    batch = (jax.random.normal(jax.random.key(4), (8, 4)), jnp.ones((8, 1)))

    def value_fn(params):
        x = batch
        for function, block in zip(FUNCTIONS, params, strict=True):
            x = function(block, x)
        return x

    rate = optax.linear_schedule(0.05, 0.01, 10)
    opt = o.mezo(rate, 1e-2, weight_decay=0.1)
    stepper = o.zo2(rate, 1e-2, weight_decay=0.1)
    run, state = stepper.init(params), opt.init(params)
    step = jax.jit(lambda p, s: opt.update(None, s, p, value_fn=value_fn))
    for _ in range(4):
        before = float(value_fn(params))
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
        run, loss = stepper.step(run, FUNCTIONS, batch)
        assert abs(float(loss) - before) < 0.1
        for x, y in zip(jax.tree.leaves(stepper.flush(run)), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-4)
    with pytest.raises(ValueError, match="blocks"):
        stepper.step(run, FUNCTIONS[:2], batch)


def test_zo2_keeps_the_dtype_of_its_blocks():
    stepper = o.zo2(0.01)
    state = stepper.init([jnp.ones((3, 1), jnp.bfloat16)])
    state, loss = stepper.step(state, [_head], (jnp.ones((2, 3)), jnp.zeros((2, 1))))
    assert stepper.flush(state)[0].dtype == state.blocks[0].dtype == jnp.bfloat16
    assert loss.dtype == jnp.float32
