"""Reductions: settings in which one method is another, exact to rounding.

An identity is tested as soon as all of its methods are in the library.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers as o
from gradchain import transforms as t

STEPS = 6
SHAPES = {"w": (4, 3), "k": (2, 3, 2), "b": (3,), "s": ()}


@dataclass(frozen=True)
class Identity:
    """One reduction.

    Attributes:
      methods: the methods that must be there.
      left, right: what must agree; functions, so that a missing method does no harm.
      grads: how the gradients are drawn: "any", "aligned" (positive) or "growing" (in magnitude,
        entry by entry).
    """

    methods: str
    left: Callable[[], Any]
    right: Callable[[], Any]
    grads: str = "any"
    rtol: float = 1e-10


TINY = 1e-200  # where the place of eps differs between the two sides

IDENTITIES = {
    "AdamW without decay is Adam": Identity(
        "adamw adam", lambda: o.adamw(0.1, weight_decay=0.0), lambda: o.adam(0.1)
    ),
    "Adam is Optax's": Identity(
        "adam",
        lambda: o.adam(0.1, 0.8, 0.9, 1e-3, 1e-4),
        lambda: optax.adam(0.1, 0.8, 0.9, 1e-3, 1e-4),
    ),
    "AMSGrad on growing gradients is Adam": Identity(
        "amsgrad adam",
        lambda: o.amsgrad(0.1, max_of="raw"),
        lambda: o.adam(0.1),
        grads="growing",
    ),
    "AdaBound with wide bounds is Adam": Identity(
        "adabound adam",
        lambda: o.adabound(0.1, gamma=1e-14, eps=TINY),
        lambda: o.adam(0.1, eps=TINY),
    ),
    "AMSBound with wide bounds is AMSGrad": Identity(
        "amsbound amsgrad",
        lambda: o.amsbound(0.1, gamma=1e-14, eps=TINY),
        lambda: o.amsgrad(0.1, eps=TINY, max_of="raw"),
    ),
    "AdEMAMix without the slow average is AdamW": Identity(
        "ademamix adamw",
        lambda: o.ademamix(0.1, alpha=0.0, weight_decay=0.2),
        lambda: o.adamw(0.1, weight_decay=0.2),
    ),
    "Adan without the difference is AdamW": Identity(
        "adan adamw",
        lambda: o.adan(0.1, 0.9, 0.0, 0.99, weight_decay=0.2, no_prox=True),
        lambda: o.adamw(0.1, 0.9, 0.99, weight_decay=0.2),
    ),
    "LaProp without momentum is Adam without momentum": Identity(
        "laprop adam",
        lambda: o.laprop(0.1, b1=0.0, eps=1e-8),
        lambda: o.adam(0.1, b1=0.0, eps=1e-8),
    ),
    "INNAprop with alpha beta = 1 is AdamW without momentum": Identity(
        "innaprop adamw",
        lambda: o.innaprop(0.1, alpha=2.0, beta=0.5, weight_decay=0.2),
        lambda: o.adamw(0.05, b1=0.0, weight_decay=0.4),
    ),
    "AdamP that never projects is AdamW": Identity(
        "adamp adamw",
        lambda: o.adamp(0.1, delta=0.0, weight_decay=0.2),
        lambda: o.adamw(0.1, weight_decay=0.2),
    ),
    "SGDP that never projects is SGD": Identity(
        "sgdp sgd",
        lambda: o.sgdp(0.1, 0.9, nesterov=True, delta=0.0),
        lambda: o.sgd(0.1, 0.9, nesterov=True),
    ),
    "SPAM without clipping and resets is Adam": Identity(
        "spam adam",
        lambda: o.spam(0.1, eps=TINY, threshold=0.0, reset_interval=0),
        lambda: o.adam(0.1, eps=TINY),
    ),
    "coordinate-clipped Adam that clips nothing is Adam": Identity(
        "coordinate_clipped_adam adam",
        lambda: o.coordinate_clipped_adam(0.1, fraction=0.0),
        lambda: o.adam(0.1),
    ),
    "coordinate clipping of nothing does nothing": Identity(
        "coordinate_clipping", lambda: o.coordinate_clipping(0.0), optax.identity
    ),
    "a global norm below the threshold is left": Identity(
        "clip_by_global_norm", lambda: o.clip_by_global_norm(1e9, 1e-6), optax.identity
    ),
    "MARS-AdamW with gamma 0 is AdamW": Identity(
        "mars_adamw adamw",
        lambda: o.mars_adamw(0.1, gamma=0.0, optimize_1d=True, weight_decay=0.2),
        lambda: o.adamw(0.1, 0.95, 0.99, weight_decay=0.2),
    ),
    "MARS-Lion with gamma 0 is Lion with one momentum": Identity(
        "mars_lion lion",
        lambda: o.mars_lion(0.1, 0.95, gamma=0.0, optimize_1d=True),
        lambda: o.lion(0.1, 0.95, 0.95, weight_decay=0.0),
    ),
    "MARS with gamma 0 is its inner method": Identity(
        "mars adam", lambda: o.mars(o.adam(0.1), gamma=0.0), lambda: o.adam(0.1)
    ),
    "Lion-K with l1 is Lion": Identity(
        "lion_k lion",
        lambda: o.lion_k(0.1, "l1", weight_decay=0.2),
        lambda: o.lion(0.1, weight_decay=0.2),
    ),
    "Lion-K with l_p, p = 1, is Lion": Identity(
        "lion_k lion",
        lambda: o.lion_k(0.1, "lp", power=1.0),
        lambda: o.lion(0.1, weight_decay=0.0),
    ),
    "Lion-K with an untruncated l1 is Lion": Identity(
        "lion_k lion", lambda: o.lion_k(0.1, "trunc_l1"), lambda: o.lion(0.1, weight_decay=0.0)
    ),
    "Lion is Optax's": Identity(
        "lion", lambda: o.lion(0.1, weight_decay=0.2), lambda: optax.lion(0.1, weight_decay=0.2)
    ),
    "cautious on aligned signs is its inner method": Identity(
        "cautious adam", lambda: o.cautious(o.adam(0.1)), lambda: o.adam(0.1), grads="aligned"
    ),
    "cautious AdamW on aligned signs is AdamW": Identity(
        "c_adamw adamw",
        lambda: o.c_adamw(0.1, eps=TINY, weight_decay=0.2),
        lambda: o.adamw(0.1, eps=TINY, weight_decay=0.2),
        grads="aligned",
    ),
    "cautious Lion on aligned signs is Lion": Identity(
        "c_lion lion",
        lambda: o.c_lion(0.1, scale="mean"),
        lambda: o.lion(0.1, 0.95, 0.98, weight_decay=0.0),
        grads="aligned",
    ),
    "Grams on aligned signs is Adam": Identity(
        "grams adam", lambda: o.grams(0.1, eps=TINY), lambda: o.adam(0.1, eps=TINY), grads="aligned"
    ),
    "Lookahead with step 1 is its inner method": Identity(
        "lookahead adam",
        lambda: o.lookahead(o.adam(0.1), sync_period=2, slow_step_size=1.0),
        lambda: o.adam(0.1),
    ),
    "Lookahead at every step is a smaller rate": Identity(
        "lookahead sgd", lambda: o.lookahead(o.sgd(0.1), 1, 0.3), lambda: o.sgd(0.03)
    ),
    "schedule-free around SGD is schedule-free SGD": Identity(
        "schedule_free schedule_free_sgd sgd",
        lambda: o.schedule_free(o.sgd(0.1), r=1.0, b1=0.8),
        lambda: o.schedule_free_sgd(0.1, r=1.0, b1=0.8),
    ),
    "the sign of aligned gradients is that of the inner method": Identity(
        "sign_of_gradient adam",
        lambda: o.sign_of_gradient(o.adam(0.1)),
        lambda: o.adam(0.1),
        grads="aligned",
    ),
    "spikes that are not clipped and resets that never come leave a method": Identity(
        "adam",
        lambda: gradchain.chain(
            o.clipping.spikes.clip_spikes(0.0), t.reset_every(STEPS + 1, optax.adam(0.1))
        ),
        lambda: o.adam(0.1),
    ),
    "LARS is Optax's": Identity(
        "lars",
        lambda: o.lars(3.0, 0.1, nesterov=True),
        lambda: optax.lars(3.0, 0.1, nesterov=True),
    ),
    "maximal-update scales at the base width are the inner method": Identity(
        "mup_second_order adam",
        lambda: o.mup_second_order(0.1, "hidden", 8, 8, "adam"),
        lambda: o.adam(0.1),
    ),
    "weight interpolation trains as its base": Identity(
        "momentum_weight_interpolation adam",
        lambda: o.momentum_weight_interpolation(o.adam(0.1), decay=0.9),
        lambda: o.adam(0.1),
    ),
    "polynomial averaging trains as its inner method": Identity(
        "polynomial_averaging adam",
        lambda: o.polynomial_averaging(o.adam(0.1)),
        lambda: o.adam(0.1),
    ),
    "schedule-free SGD at z is SGD": Identity(
        "schedule_free_sgd sgd", lambda: o.schedule_free_sgd(0.1, b1=0.0), lambda: o.sgd(0.1)
    ),
    "schedule-free AdamW at z is AdamW without momentum": Identity(
        "schedule_free_adamw adamw",
        lambda: o.schedule_free_adamw(0.1, b1=0.0, weight_decay=0.2),
        lambda: o.adamw(0.1, b1=0.0, weight_decay=0.2),
    ),
    "weight prediction zero steps ahead is its inner method": Identity(
        "weight_prediction adamw",
        lambda: o.weight_prediction(o.adamw(0.1, weight_decay=0.2), prediction_steps=0),
        lambda: o.adamw(0.1, weight_decay=0.2),
    ),
    "XGrad zero steps ahead is AdamW": Identity(
        "xgrad adamw",
        lambda: o.xgrad(0.1, prediction_steps=0, weight_decay=0.2),
        lambda: o.adamw(0.1, weight_decay=0.2),
    ),
    "SGD that predicts a momentum's share of a step is Nesterov's": Identity(
        "xgrad sgd",
        lambda: o.xgrad(0.1, "sgd", prediction_steps=0.8, momentum=0.8),
        lambda: o.sgd(0.1, 0.8, nesterov=True),
    ),
    "random scaling by 1 is its inner method": Identity(
        "random_scaling adam",
        lambda: o.random_scaling(o.adam(0.1), sampler=lambda *_: 1.0),
        lambda: o.adam(0.1),
    ),
    "momentum with random scaling by 1 is heavy ball": Identity(
        "sgdm_random_scaling sgd",
        lambda: o.sgdm_random_scaling(0.1, 0.8, sampler=lambda *_: 1.0),
        lambda: o.sgd(0.08, 0.8),
    ),
    "no braking is its inner method": Identity(
        "brake adam", lambda: o.brake(o.adam(0.1), rho=0.0), lambda: o.adam(0.1)
    ),
    "SGD without braking is SGD": Identity(
        "adaptive_braking sgd",
        lambda: o.adaptive_braking(0.1, 0.8, rho=0.0, nesterov=True, weight_decay=0.2),
        lambda: o.sgd(0.1, 0.8, nesterov=True, weight_decay=0.2),
    ),
    "heavy ball at a constant rate is SGD with momentum": Identity(
        "stochastic_heavy_ball sgd",
        lambda: o.stochastic_heavy_ball(0.1, 0.8),
        lambda: o.sgd(0.1, 0.8),
    ),
    "heavy ball in one stage is heavy ball": Identity(
        "heavy_ball_step_decay stochastic_heavy_ball",
        lambda: o.heavy_ball_step_decay(0.1, 0.8, total_steps=4, num_stages=1),
        lambda: o.stochastic_heavy_ball(0.1, 0.8),
    ),
    "SGDW without decay is SGD": Identity(
        "sgdw sgd", lambda: o.sgdw(0.1, 0.8, weight_decay=0.0), lambda: o.sgd(0.1, 0.8)
    ),
    "LARS without trust ratios is SGD with momentum": Identity(
        "lars sgd",
        lambda: o.lars(0.1, trust_ratio_mask=False, momentum=0.8),
        lambda: o.sgd(0.1, 0.8),
    ),
    "SGD with a frozen hypergradient is SGD": Identity(
        "sgd_hd sgd",
        lambda: o.sgd_hd(0.1, hypergrad_learning_rate=0.0, momentum=0.8),
        lambda: o.sgd(0.1, 0.8),
    ),
    "Adam with a frozen hypergradient is Adam": Identity(
        "adam_hd adam",
        lambda: o.adam_hd(0.1, hypergrad_learning_rate=0.0, eps=TINY),  # eps stands elsewhere
        lambda: o.adam(0.1, eps=TINY),
    ),
    "an optimistic gradient without its correction is SGD": Identity(
        "optimistic_gradient sgd",
        lambda: o.optimistic_gradient(0.1, alpha=1.0, beta=0.0),
        lambda: o.sgd(0.1),
    ),
    "delayed Nesterov with a buffer of one is Nesterov's": Identity(
        "delayed_nesterov sgd",
        lambda: o.delayed_nesterov(0.1, 0.8, buffer_size=1),
        lambda: o.sgd(0.1, 0.8, nesterov=True),
    ),
    "GaLore of full rank is Adam": Identity(
        "galore adam", lambda: o.galore(0.1, rank=100, eps=TINY), lambda: o.adam(0.1, eps=TINY)
    ),
    "FRUGAL of full density is AdamW": Identity(
        "frugal adamw",
        lambda: o.frugal(0.1, density=1.0, weight_decay=0.2),
        lambda: o.adamw(0.1, weight_decay=0.2),
    ),
    "subset norms of single entries are Adam": Identity(
        "subset_norm adam",
        lambda: o.subset_norm(0.1, subset_size=1, subset_1d=True, eps=TINY),  # eps stands elsewhere
        lambda: o.adam(0.1, eps=TINY),
    ),
    "UPGD without noise and protection is SGD": Identity(
        "upgd sgd",
        lambda: o.upgd(0.1, sigma=0.0, protect=False),
        lambda: o.sgd(0.1),
    ),
    "Sophia that clips everything is sign momentum": Identity(
        "sophia_h lion",
        lambda: optax.chain(o.scale_by_sophia_h(0.9, gamma=1e-250, eps=TINY), optax.scale(-0.1)),
        lambda: o.lion(0.1, 0.9, 0.9, weight_decay=0.0),
    ),
}

PRESENT = [
    name
    for name, identity in IDENTITIES.items()
    if all(hasattr(o, method) for method in identity.methods.split())
]


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def drawn(kind: str) -> tuple[Any, Any]:
    """Params, and gradients with a leading time axis, so small that MARS does not clip them."""
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    grads = {name: 0.05 * rng.normal(size=(STEPS, *shape)) for name, shape in SHAPES.items()}
    if kind == "aligned":
        grads = {name: np.abs(g) for name, g in grads.items()}
    if kind == "growing":
        grads = {
            name: np.sort(np.abs(g), axis=0) * rng.choice([-1.0, 1.0], g.shape)
            for name, g in grads.items()
        }
    return params, grads


def path_of(opt: Any, params: Any, grads: Any) -> Any:
    """The params after each step."""

    def step(carry, g):
        params, state = carry
        updates, state = optax.with_extra_args_support(opt).update(
            g, state, params, value_fn=lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(p))
        )
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, opt.init(params)), grads)[1]


@pytest.mark.parametrize("name", PRESENT)
def test_identity(name):
    identity = IDENTITIES[name]
    params, grads = drawn(identity.grads)

    @jax.jit
    def both(params, grads):
        left, right = identity.left(), identity.right()
        return path_of(left, params, grads), path_of(right, params, grads)

    left, right = both(jax.tree.map(jnp.asarray, params), grads)
    for leaf in params:
        assert np.all(np.isfinite(right[leaf]))
        assert np.max(np.abs(right[leaf] - params[leaf])) > 1e-4
        np.testing.assert_allclose(
            left[leaf], right[leaf], rtol=identity.rtol, atol=1e-12, err_msg=leaf
        )


def test_the_settings_matter():
    """Away from its reduction a method differs, by more than the tolerance."""
    params, grads = drawn("any")
    pairs = [
        (o.lookahead(o.adam(0.1), 2, 0.9), o.adam(0.1)),
        (o.adamp(0.1, delta=20.0), o.adam(0.1)),
        (o.cautious(o.adam(0.1)), o.adam(0.1)),
    ]
    for left, right in pairs:
        a, b = (jax.jit(lambda p, g, x=x: path_of(x, p, g))(params, grads) for x in (left, right))
        assert np.max(np.abs(a["w"] - b["w"])) > 1e-3
