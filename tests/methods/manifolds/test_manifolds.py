"""Manifolds: their operations fit together, points stay on them, every leaf gets the right one."""

import functools

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from gradchain import optimizers
from gradchain.optimizers import scale_by_adam, scale_by_sgd
from gradchain.transforms import trace
from gradchain.transforms.manifolds import (
    Euclidean,
    euclidean,
    manifolds_by_path,
    poincare_ball,
    riemannian,
    sphere,
    stiefel,
)

PLACES = {
    "sphere": (sphere(), (4, 3)),
    "sphere_exact": (sphere(exact=True), (4, 3)),
    "ball": (poincare_ball(), (4, 3)),
    "ball_exact": (poincare_ball(0.5, exact=True), (4, 3)),
    "stiefel": (stiefel(), (2, 5, 3)),
    "stiefel_euclidean": (stiefel("euclidean"), (2, 5, 3)),
    "stiefel_exact": (stiefel("euclidean", exact=True), (2, 5, 3)),
    "euclidean": (euclidean(), (4, 3)),
}
every_place = pytest.mark.parametrize("place", PLACES)
first_order = pytest.mark.parametrize("place", [name for name in PLACES if name != "stiefel"])
close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)


@pytest.fixture(autouse=True)
def _float64():
    """Laws of geometry hold to rounding."""
    with jax.enable_x64(True):
        yield


def some(place, seed=0):
    """A manifold, a point on it, a gradient and two tangent vectors."""
    manifold, shape = PLACES[place]
    keys = jax.random.split(jax.random.key(seed), 4)
    x = manifold.random(keys[0], shape, jnp.float64)
    g, a, b = (jax.random.normal(key, shape, jnp.float64) for key in keys[1:])
    return manifold, x, g, *(0.3 * manifold.project_tangent(x, v) for v in (a, b))


def product(manifold, x, u, v):
    """The inner product, from squared lengths."""
    return (manifold.inner(x, u + v) - manifold.inner(x, u - v)) / 4


@every_place
def test_points_and_tangents(place):
    manifold, x, g, u, _ = some(place)
    close(manifold.distance(x), 0)
    close(manifold.project(x), x)
    close(manifold.project_tangent(x, u), u)
    r = manifold.egrad2rgrad(x, g)
    close(manifold.project_tangent(x, r), r)
    assert manifold.inner(x, u).ndim == x.ndim


@every_place
def test_the_riemannian_gradient_represents_the_slope(place):
    """<grad, v>_x is the directional derivative <g, v>, for every tangent v."""
    manifold, x, g, _, v = some(place)
    r = manifold.egrad2rgrad(x, g)
    close(jnp.sum(product(manifold, x, r, v)), jnp.sum(g * v))


@first_order
def test_retractions_start_in_the_direction_of_the_vector(place):
    """R(0) = x and dR(hu)/dh = u; the canonical metric's Cayley step is one of its gradients."""
    manifold, x, _, u, _ = some(place)
    close(manifold.retract(x, jnp.zeros_like(x)), x)
    slope = jax.jacfwd(lambda h: manifold.retract(x, h * u))
    close(jax.jit(slope)(0.0), u, atol=1e-7)


@every_place
def test_steps_against_the_gradient_descend(place):
    manifold, x, g, *_ = some(place)
    slope = jax.grad(lambda h: jnp.sum(g * manifold.retract(x, -h * manifold.egrad2rgrad(x, g))))
    assert jax.jit(slope)(1e-3) < 0 or place == "never"


@every_place
def test_steps_end_on_the_manifold_and_carry_tangents(place):
    manifold, x, _, u, v = some(place)
    y = manifold.retract(x, u)
    close(manifold.distance(y), 0)
    carried = manifold.transport(x, u, y, v)
    close(manifold.project_tangent(y, carried), carried)
    if place.startswith("ball") or place == "euclidean":  # parallel transport keeps lengths
        close(manifold.inner(y, carried), manifold.inner(x, v))
    if place == "stiefel":  # a rotation of the space around
        close(jnp.sum(carried**2), jnp.sum(v**2))


def test_exact_steps_have_the_length_of_their_vectors():
    manifold, x, _, u, _ = some("sphere_exact")
    angles = jnp.arccos(jnp.sum(x * manifold.retract(x, u), -1))
    close(angles, jnp.linalg.norm(u, axis=-1), atol=1e-7)
    manifold, x, _, u, _ = some("ball_exact")
    lengths = jnp.sqrt(manifold.inner(x, u))[..., 0]
    close(manifold.between(x, manifold.retract(x, u)), lengths, atol=1e-7)


def test_exact_steps_along_what_is_not_tangent_are_their_formula():
    """As in geoopt, where a buffer starts as the Euclidean gradient."""
    manifold, x, g, *_ = some("sphere_exact")
    angle = np.linalg.norm(g, axis=-1, keepdims=True)
    close(manifold.retract(x, g), x * np.cos(angle) + g * np.sin(angle) / angle)
    manifold, x, g, *_ = some("stiefel_exact")
    turned = jnp.swapaxes(x, -1, -2) @ g
    identity = jnp.broadcast_to(jnp.eye(3), turned.shape)
    square = jnp.swapaxes(g, -1, -2) @ g
    flow = jnp.block([[turned, -square], [identity, turned]])
    end = jax.scipy.linalg.expm(flow)[..., :3] @ jax.scipy.linalg.expm(-turned)
    close(manifold.retract(x, g), jnp.concatenate([x, g], axis=-1) @ end)


@pytest.mark.parametrize(
    ("exact", "plain", "order"),
    [("sphere_exact", "sphere", 3), ("stiefel_exact", "stiefel_euclidean", 2)],
)
def test_exact_and_first_order_steps_differ_by_their_order(exact, plain, order):
    _, x, _, u, _ = some(plain)
    steps = (PLACES[exact][0].retract, PLACES[plain][0].retract)
    gaps = [float(jnp.abs(steps[0](x, h * u) - steps[1](x, h * u)).max()) for h in (1e-2, 1e-3)]
    assert gaps[1] == pytest.approx(0.1**order * gaps[0], rel=0.1)


def test_the_edge_of_the_ball_is_never_reached():
    ball = poincare_ball(2.0)
    far = ball.retract(jnp.array([0.3, 0.0]), jnp.array([1e6, 0.0]))
    assert np.linalg.norm(far) == pytest.approx((1 - 1e-5) / np.sqrt(2), rel=1e-12)
    exact = poincare_ball(2.0, exact=True).retract(jnp.array([0.3, 0.0]), jnp.array([1e6, 0.0]))
    assert np.isfinite(exact).all()
    single = ball.project(jnp.ones(2, jnp.float32))
    assert np.linalg.norm(single) == pytest.approx((1 - 4e-3) / np.sqrt(2), rel=1e-6)


# --- optimizers -----------------------------------------------------------------------------------


def mixed():
    """One leaf of each kind, on its manifold."""
    places = {"ball": poincare_ball(), "flat": None, "frame": stiefel(), "codes": sphere()}
    shapes = {"ball": (5, 2), "flat": (3,), "frame": (6, 3), "codes": (4, 3)}
    keys = iter(jax.random.split(jax.random.key(0), 4))
    points = {
        name: (place or euclidean()).random(next(keys), shapes[name])
        if place
        else jnp.ones(shapes[name], jnp.float32)
        for name, place in places.items()
    }
    return places, points


METHODS = {
    "rsgd": {"learning_rate": 0.05, "momentum": 0.9},
    "riemannian_adam": {"learning_rate": 0.05},
    "riemannian_amsgrad": {"learning_rate": 0.05},
    "riemannian_adagrad": {"learning_rate": 0.05},
}


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("rsgd", "stiefel"),
        ("riemannian_adam", "stiefel_exact"),
        ("riemannian_amsgrad", "stiefel_euclidean"),
        ("riemannian_adagrad", "stiefel"),
    ],
)
def test_points_stay_on_their_manifolds(name, frame):
    """To rounding, in float32, however noisy the gradients: nothing adds up."""
    places, points = mixed()
    places["frame"] = PLACES[frame][0]
    if frame == "stiefel_exact":
        places |= {"codes": sphere(exact=True), "ball": poincare_ball(exact=True)}
    opt = getattr(optimizers, name)(manifolds=places, **METHODS[name])

    def step(carry, key):
        x, state = carry
        keys = iter(jax.random.split(key, len(x)))
        g = jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape, p.dtype), x)
        updates, state = opt.update(g, state, x)
        return (optax.apply_updates(x, updates), state), None

    keys = jax.random.split(jax.random.key(1), 500)
    end, state = jax.jit(lambda c: jax.lax.scan(step, c, keys)[0])((points, opt.init(points)))
    for leaf in ("codes", "frame"):
        assert float(places[leaf].distance(end[leaf])) < 2e-6
    assert np.linalg.norm(end["ball"], axis=-1).max() < 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def run(opt, x, grad_fn, steps):
    """The points of a run, from the start on."""

    def step(carry, _):
        x, state = carry
        updates, state = opt.update(grad_fn(x), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    return jax.jit(lambda x: jax.lax.scan(step, (x, opt.init(x)), length=steps)[1])(x)


@pytest.mark.parametrize("place", ["sphere", "sphere_exact"])
@pytest.mark.parametrize("name", METHODS)
def test_the_leading_eigenvector_is_found(name, place):
    M = jnp.diag(jnp.array([3.0, 1.0, 0.5, 0.1]))
    x = jnp.full(4, 0.5)
    opt = getattr(optimizers, name)(manifolds=PLACES[place][0], **METHODS[name])
    last = run(opt, x, jax.grad(lambda x: -(x @ M @ x)), 400)[-1]
    close(jnp.abs(last[0]), 1, atol=1e-3)


@pytest.mark.parametrize("place", ["stiefel", "stiefel_euclidean", "stiefel_exact"])
def test_the_leading_subspace_is_found(place):
    M = jnp.diag(jnp.array([3.0, 2.0, 0.5, 0.1, 0.0]))
    manifold = PLACES[place][0]
    x = manifold.random(jax.random.key(3), (5, 2), jnp.float64)
    last = run(optimizers.rsgd(0.05, manifold), x, jax.grad(lambda x: -jnp.sum(x * (M @ x))), 400)[
        -1
    ]
    close(jnp.sum(last * (M @ last)), 5, atol=1e-3)


def test_flat_leaves_have_the_ordinary_methods():
    x = jnp.array([1.0, -2.0, 0.5])
    grad = jax.grad(lambda x: jnp.sum(x**4))
    for ours, theirs in (
        (optimizers.riemannian_adam(0.1), optax.adam(0.1)),
        (optimizers.rsgd(0.01, momentum=0.9, momentum_init="zeros"), optax.sgd(0.01, 0.9)),
        (
            optimizers.riemannian_adagrad(0.1, eps=0.0),
            optax.adagrad(0.1, initial_accumulator_value=0.0, eps=0.0),
        ),
        (optimizers.rsgd(0.01, weight_decay=0.1),
         optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.01))),
    ):  # fmt: skip
        np.testing.assert_allclose(run(ours, x, grad, 20), run(theirs, x, grad, 20), rtol=1e-5)


def test_one_second_moment_per_point():
    places, points = mixed()
    state = optimizers.riemannian_adam(0.1, places).init(points)
    shapes = {name: leaf.shape for name, leaf in state.nu.items()}
    assert shapes == {"ball": (5, 1), "flat": (3,), "frame": (1, 1), "codes": (4, 1)}


def test_riemannian_adam_does_not_depend_on_the_coordinates():
    """Turning the whole problem turns the run; entry by entry it would not."""
    Q = PLACES["stiefel"][0].random(jax.random.key(5), (3, 3), jnp.float64)
    M = jnp.diag(jnp.array([3.0, 1.0, 0.2]))
    x = jnp.array([0.6, 0.0, 0.8])
    turned = Q @ M @ Q.T

    def runs(opt):
        plain = run(opt, x, jax.grad(lambda x: -(x @ M @ x)), 15)
        return plain @ Q.T, run(opt, Q @ x, jax.grad(lambda x: -(x @ turned @ x)), 15)

    close(*runs(optimizers.riemannian_adam(0.1, sphere())))
    first, second = runs(riemannian(scale_by_adam(), 0.1, sphere()))
    assert np.abs(first - second).max() > 1e-3
    close(np.linalg.norm(second, axis=-1), 1)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("place", ["sphere", "ball", "stiefel"])
def test_any_direction_on_manifolds(place, nesterov):
    """The combinator around momentum is `rsgd` with momentum, buffers carried along."""
    manifold, x, g, *_ = some(place)
    grad = jax.grad(lambda x: jnp.sum(g * x) + jnp.sum(x**4))
    ours = optimizers.rsgd(0.05, manifold, momentum=0.9, nesterov=nesterov, momentum_init="zeros")
    for direction in (trace(0.9, nesterov), scale_by_sgd(0.9, nesterov)):
        close(run(riemannian(direction, 0.05, manifold), x, grad, 12), run(ours, x, grad, 12))


def test_states_that_are_not_tangent_are_left_alone():
    """Adam's second moment inside the combinator is what Adam makes of Riemannian gradients."""
    manifold, x, g, *_ = some("sphere")
    opt = riemannian(scale_by_adam(), 0.1, manifold)
    _, state = opt.update(g, opt.init(x), x)
    close(state.scale_by_adam.nu, 1e-3 * manifold.egrad2rgrad(x, g) ** 2, rtol=1e-6)
    y = x + opt.update(g, opt.init(x), x)[0]
    close(jnp.sum(state.scale_by_adam.mu * y, -1), 0, atol=1e-9)


def test_stabilize_brings_points_back():
    frame = stiefel("euclidean")
    x = frame.random(jax.random.key(0), (5, 3), jnp.float64)
    opt = optimizers.rsgd(0.0, {"x": frame, "flat": None}, momentum=0.5, stabilize=2)
    params = {"x": x * (1 + 5e-4), "flat": jnp.ones(2)}

    class Halving(Euclidean):
        """A flat space whose projection halves."""

        def project(self, x):
            return x / 2

    points = run(opt, params, lambda p: jax.tree.map(jnp.ones_like, p), 2)
    close(frame.distance(points["x"][-1]), 0)
    close(points["flat"], 1)
    halving = optimizers.riemannian_adam(0.0, Halving(), stabilize=2)
    close(run(halving, jnp.array([4.0]), jnp.ones_like, 4)[:, 0], [4.0, 2.0, 2.0, 1.0])


# --- which leaf is on which -----------------------------------------------------------------------


def assigned(manifolds, params):
    """Leaf -> whether one step keeps its vectors at length 1."""
    opt = optimizers.rsgd(0.5, manifolds)
    grads = jax.tree.map(lambda x: jnp.arange(1.0, x.size + 1).reshape(x.shape), params)
    new = optax.apply_updates(params, opt.update(grads, opt.init(params), params)[0])
    return jax.tree.map(lambda x: bool(np.allclose(np.linalg.norm(x, axis=-1), 1)), new)


ROWS = jnp.array([[0.6, 0.8], [1.0, 0.0]])
TREE = {"encoder": {"codes": ROWS, "out": ROWS}, "head": ROWS}
ENCODER = {"encoder": {"codes": True, "out": True}, "head": False}
ONLY_CODES = {"encoder": {"codes": True, "out": False}, "head": False}


@pytest.mark.parametrize(
    ("manifolds", "expected"),
    [
        (sphere(), jax.tree.map(lambda _: True, TREE)),
        (None, jax.tree.map(lambda _: False, TREE)),
        ({"encoder": {"codes": sphere()}}, ONLY_CODES),
        ({"encoder": sphere(), "head": None}, ENCODER),
        (lambda params: {"encoder": {"codes": sphere()}}, ONLY_CODES),
        (manifolds_by_path(lambda path: sphere() if path == "encoder/codes" else None), ONLY_CODES),
    ],
)  # fmt: skip
def test_leaves_have_the_manifolds_they_are_given(manifolds, expected):
    assert assigned(manifolds, TREE) == expected


def test_params_of_an_nnx_model():
    class Model(nnx.Module):
        def __init__(self):
            self.codes = nnx.Param(ROWS)
            self.head = nnx.Param(ROWS)

    params = nnx.state(Model(), nnx.Param)
    by_path = manifolds_by_path(lambda path: sphere() if "codes" in path else None)
    for manifolds in ({"codes": sphere()}, by_path):
        opt = optimizers.rsgd(0.5, manifolds)
        updates, _ = opt.update(params, opt.init(params), params)
        new = jax.tree.map(lambda x, u: x + u, params, updates)
        close(jnp.linalg.norm(jax.tree.leaves(new["codes"])[0], axis=-1), 1)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("manifolds", "message"),
    [
        ({"nothing": sphere()}, "entry .*nothing"),
        ({"head": stiefel()}, r"\['head'\] of shape \(2,\) cannot be on Stiefel.*matrices"),
        ("sphere", "manifolds='sphere' must be"),
        ({"head": 3.0}, "must be manifolds.*3.0"),
        ({"head": sphere()}, r"leaf \['head'\] is 1.* off Sphere.*project"),
        ({"head": poincare_ball()}, "off PoincareBall"),
    ],
)
def test_what_does_not_fit_is_refused(name, manifolds, message):
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        getattr(optimizers, name)(0.1, manifolds).init({"head": jnp.array([1.2, 1.6])})


def test_under_jit_points_are_not_looked_at():
    """There the values are unknown: the first step brings the point onto the sphere."""
    opt, x = optimizers.rsgd(0.1, sphere()), jnp.array([1.2, 1.6])
    state = jax.jit(opt.init)(x)
    updates, _ = opt.update(jnp.array([1.0, 0.0]), state, x)
    close(jnp.linalg.norm(x + updates), 1)


@pytest.mark.parametrize("make", [lambda: poincare_ball(0.0), lambda: stiefel("round")])
def test_bad_manifolds_are_refused(make):
    with pytest.raises(ValueError, match=r"poincare_ball: c=0\.0|stiefel: metric='round'"):
        make()


def test_manifolds_are_values():
    assert sphere() == sphere()
    assert hash(stiefel("euclidean")) == hash(stiefel("euclidean"))
    assert poincare_ball(1.0) != poincare_ball(2.0)


def test_it_shows_itself():
    opt = optimizers.riemannian_adam(0.1, {"codes": sphere()})
    table = str(gradchain.describe(opt, {"codes": jax.ShapeDtypeStruct((8, 4), jnp.float32)}))
    assert "nu" in table
    assert "on_manifolds" not in str(jax.tree.structure(opt.init({"codes": ROWS})))
