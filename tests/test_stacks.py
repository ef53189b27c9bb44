"""Random stacks of wrappers around random transformations.

Whatever is put around whatever builds, is described before anything is allocated, compiles once,
trains a small model without NaN, and can be saved in the middle.
"""

import random
from collections.abc import Callable
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import optimizers as o
from gradchain import transforms as t
from subjects import finite, gradients, loss_of, same, signature_of, small_tree

STACKS = 32
FIRST = 189  # of numbers by which every wrapper stands around each kind of transformation
STEPS = 6

INNER: dict[str, Callable[[], Any]] = {
    "adam": lambda: o.adam(0.01),
    "adamw": lambda: o.adamw(0.01, weight_decay=0.1),
    "adamp": lambda: o.adamp(0.01, weight_decay=0.1, channel_axis=-1),
    "adabelief": lambda: o.adabelief(0.01),
    "ademamix": lambda: o.ademamix(0.01),
    "galore": lambda: o.galore(0.01, rank=2, update_interval=2),
    "lion": lambda: o.lion(0.01),
    "lion_k": lambda: o.lion_k(0.01, "l2"),
    "optax adam": lambda: optax.adam(0.01),
    "optax adafactor": lambda: optax.adafactor(0.01, min_dim_size_to_factor=2),
    "optax rmsprop": lambda: optax.rmsprop(0.01, momentum=0.5),
    "partition": lambda: optax.partition(
        {"matrix": o.sgd(0.01, 0.9), "other": optax.adam(0.01)},
        lambda params: jax.tree.map(lambda x: "matrix" if x.ndim == 2 else "other", params),
    ),
    "ranger21": lambda: o.ranger21(0.01, total_steps=20, sync_period=2),
    "schedule": lambda: o.sgd(optax.linear_schedule(0.01, 0.0, 20), momentum=0.9),
    "schedule_free_sgd": lambda: o.schedule_free_sgd(0.01),
    "sgd": lambda: o.sgd(0.01, momentum=0.9, nesterov=True),
    "sgdm_random_scaling": lambda: o.sgdm_random_scaling(0.01),
    "spam": lambda: o.spam(0.01, reset_interval=3, warmup_steps=1),
    "stable_spam": lambda: o.stable_spam(0.01, reset_interval=3),
    "xgrad": lambda: o.xgrad(0.01, "sgd"),
}

FOREIGN = ("optax adam", "optax adafactor", "optax rmsprop", "partition")

WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "cautious": lambda inner: o.cautious(inner),
    "lookahead": lambda inner: o.lookahead(inner, sync_period=2),
    "weight_prediction": lambda inner: o.weight_prediction(inner),
    "momentum_weight_interpolation": lambda inner: o.momentum_weight_interpolation(inner, 0.9),
    "perpgrad": lambda inner: gradchain.chain(o.perpgrad(), inner),
    "random_scaling": lambda inner: o.random_scaling(inner, key=1),
    "brake": lambda inner: o.brake(inner, rho=0.5),
    "mars": lambda inner: o.mars(inner),
    "clip_spikes": lambda inner: gradchain.chain(
        o.clipping.spikes.clip_spikes(100.0, 0.9, start=2), inner
    ),
    "reset_every": lambda inner: t.reset_every(3, inner),
    "every": lambda inner: t.every(2, inner),
    "sam": lambda inner: o.sam(inner),
    "gradient_regularization": lambda inner: o.gradient_regularization(inner),
    "flooding": lambda inner: gradchain.chain(o.flooding(0.5), inner),
    "optax.masked": lambda inner: masked_by(inner)(
        inner, lambda params: jax.tree.map(lambda x: x.ndim > 0, params)
    ),
    "optax.MultiSteps": lambda inner: optax.MultiSteps(inner, 2).gradient_transformation(),
    "named": lambda inner: gradchain.chain(gradchain.named("inside", inner)),
}


def masked_by(inner: Any) -> Callable[..., Any]:
    """Optax's mask, or ours around what evaluates closures: they take all params."""
    return gradchain.masked if "value_fn" in gradchain.needs(inner) else optax.masked


def _present(makers: dict[str, Callable[..., Any]]) -> list[str]:
    names = ("momentum_weight_interpolation", "mars")
    missing = {name for name in (*names, *INNER) if name.isidentifier() and not hasattr(o, name)}
    missing -= {"partition", "schedule"}
    return sorted(set(makers) - missing)


def stack_of(seed: int) -> tuple[str, list[str]]:
    """An inner transformation and the wrappers around it, innermost first."""
    draw = random.Random(FIRST + seed)
    names = _present(WRAPPERS)
    # Every wrapper and every inner transformation has its turn, then chance adds to them.
    wrappers = [names[seed % len(names)], *draw.sample(names, draw.randint(1, 3))]
    draw.shuffle(wrappers)
    inners = _present(INNER)
    return inners[seed % len(inners)], wrappers


def built(seed: int) -> Any:
    inner, wrappers = stack_of(seed)
    opt = INNER[inner]()
    for wrapper in wrappers:
        opt = WRAPPERS[wrapper](opt)
    return gradchain.chain(opt)


def _title(seed: int) -> str:
    inner, wrappers = stack_of(seed)
    return "-".join([*reversed(wrappers), inner])


@pytest.mark.parametrize("seed", range(STACKS), ids=_title)
def test_stack(seed):
    opt = built(seed)
    params = small_tree()
    state = opt.init(params)

    described = gradchain.describe(opt, jax.eval_shape(lambda: params))
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert described.state_bytes == held
    assert str(described)

    @jax.jit
    def step(params, state):
        value = loss_of(params)
        updates, state = opt.update(gradients(params), state, params, value=value, value_fn=loss_of)
        return optax.apply_updates(params, updates), state

    before = signature_of(state)
    for count in range(STEPS):
        if count == STEPS // 2:
            leaves, treedef = jax.tree.flatten((params, state))
            saved = treedef.unflatten([np.array(leaf) for leaf in leaves])
        params, state = step(params, state)
    assert step._cache_size() <= 2  # NumPy leaves of the copy may compile once more
    assert signature_of(state) == before
    assert finite((params, state))
    assert not same(params, small_tree())
    again = jax.tree.map(jnp.asarray, saved)
    for _ in range(STEPS // 2, STEPS):
        again = step(*again)
    assert same(again, (params, state))
    assert signature_of(gradchain.eval_params(state, params)) == signature_of(params)


def test_every_wrapper_stands_around_ours_and_around_foreign_transformations():
    """The ten wrappers of the library, each around a foreign transformation somewhere, too."""
    around: dict[str, set[bool]] = {name: set() for name in WRAPPERS}
    for seed in range(STACKS):
        inner, names = stack_of(seed)
        for name in names:
            around[name].add(inner in FOREIGN)
    assert all(kinds == {True, False} for kinds in around.values()), around


def test_every_wrapper_and_inner_method_takes_part():
    drawn = [stack_of(seed) for seed in range(STACKS)]
    assert {inner for inner, _ in drawn} == set(_present(INNER))
    assert {name for _, names in drawn for name in names} == set(_present(WRAPPERS))
