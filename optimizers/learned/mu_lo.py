"""muLO: a network for each entry of the params, with widths that carry over."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    Number,
    Signal,
    Size,
    checked,
    clip,
    ema,
    exp,
    flow,
    leaf_where,
    lift,
    maximum,
    merge,
    named,
    scheduled,
    split,
    sqrt,
    square,
    step_count,
    transformation,
)
from ...transforms.accumulate import bounded_square, mean_along_largest
from ...transforms.notation.roots import magnitude, saturated
from ...transforms.step_size import leaf_multipliers, mup_width_multipliers
from ...transforms.step_size.width import BaseShapes

DECAYS = {
    "momentum_decays": (0.9, 0.99, 0.999),
    "rms_decays": (0.999,),
    "adafactor_decays": (0.9, 0.99, 0.999),
}
"""Of the averages, from which the weights shift them."""

TIMES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000)
"""In steps, of the embedding of the count."""

FEATURES = 28


@checked()
def mu_lo_weights(hidden_size: int = 32, seed: int = 0, scale: float = 0.1) -> dict[str, Any]:
    """Weights of `mu_lo` to start meta-training from: Adam's direction, and a little noise.

    The first two hidden units carry the momentum of decay 0.9 over the root mean square to the
    output; all others are normal with a deviation of `scale` / root of their inputs, and the output
    does not see them yet.

    Args:
      hidden_size: width of the hidden layers, at least 2.
      seed: of the noise.
      scale: of the noise.

    Returns:
      A tree of NumPy arrays in float32, as `mu_lo` takes it.

    Raises:
      ValueError: for a width below 2.

    Example:
      >>> from gradchain.optimizers import mu_lo_weights
      >>> mu_lo_weights(hidden_size=8)["nn"]["w0"].shape
      (39, 8)
    """
    if hidden_size < 2:
        raise FlowError(f"mu_lo_weights: hidden_size={hidden_size} must be at least 2")
    random = np.random.default_rng(seed)
    sizes = (FEATURES + len(TIMES), hidden_size, hidden_size, 2)
    layers = [
        random.normal(size=(a, b)) * scale / math.sqrt(a) for a, b in itertools.pairwise(sizes)
    ]
    first, second, last = layers
    first[:, :2], second[:, :2], last[:] = 0, 0, 0
    first[6, :2] = 1, -1
    second[0, 0], second[1, 1] = 1, 1
    last[:2, 0] = 1, -1
    nn = {f"w{i}": layer for i, layer in enumerate(layers)}
    nn |= {f"b{i}": np.zeros(size) for i, size in enumerate(sizes[1:])}
    shifts = {name: np.zeros(len(decays)) for name, decays in DECAYS.items()}
    as_float32 = {name: x.astype(np.float32) for name, x in nn.items()}
    return {"nn": as_float32, **{name: x.astype(np.float32) for name, x in shifts.items()}}


@method(
    "Therien et al. 2024, muLO: Compute-Efficient Meta-Generalization of Learned Optimizers",
    arxiv="2406.00153",
    tags=("learned", "width-transfer"),
    learning_rate=None,
    required={"weights": mu_lo_weights()},
    small_model={"step_mult": 0.01},
)
@transformation()
def mu_lo(
    weights: Mapping[str, optax.Params],
    exp_mult: Number = 0.001,
    step_mult: Number = 0.001,
    hidden_size: Size = 32,
    width_multiplier: BaseShapes | None = None,
) -> Flow:
    r"""A small network makes the step of each entry, of what is known about it.

    .. math::
        (d, a) = \mathrm{MLP}(\text{features}, \text{count}), \qquad
        x_{t+1} = x_t - w\, c\, d\, e^{c' a}

    with c = `step_mult`, c' = `exp_mult` and w = `width_multiplier`. Three averages m of the
    gradient, one average r of its square, and for matrices row and column averages R, C of
    :math:`q = g^2 + 10^{-30}` with three decays, as Adafactor has them (the mean along the largest
    axis and along the second largest; other leaves average q itself), start at 0, without bias
    correction. A decay is :math:`1 - (1 - d) e^{10 \sigma}` with its shift :math:`\sigma` among the
    weights, and d of 0.9, 0.99, 0.999 (r: 0.999). The 28 features, each divided by
    :math:`\sqrt{10^{-5} + \text{its mean square over the leaf}}`, are: g; x; m (3); r;
    :math:`m / \sqrt{r}` (3); :math:`1 / \sqrt{r}`; g preconditioned by R and C (3); R, C,
    :math:`1 / \sqrt{R}`, :math:`1 / \sqrt{C}` and m preconditioned by R and C (3 each). The count
    comes in as :math:`\tanh((t - 1) / s - 1)` for eleven s from 1 to 100000. The network has two
    hidden layers with rectifiers.

    Args:
      weights: what meta-training found: {"nn": {"w0", "b0", "w1", "b1", "w2", "b2"},
        "momentum_decays": (3,), "rms_decays": (1,), "adafactor_decays": (3,)}; see
        `mu_lo_weights`. Derivatives in them are taken through the steps.
      exp_mult: of the magnitude.
      step_mult: of the step.
      hidden_size: width of the hidden layers of these weights.
      width_multiplier: tree of a number for each leaf, or a function from params to such a tree;
        `mu_lo_width_multipliers` has the rule of muLO. Default 1.

    Returns:
      The optimizer; it needs `params`, and its state is 4 times their size, for leaves that are no
      matrices 7 times. No weights are shipped.

    Raises:
      ValueError: for weights of other shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mu_lo, mu_lo_weights
      >>> opt, x = mu_lo(mu_lo_weights(), step_mult=0.5), jnp.array([1.0, 1.0])
      >>> opt.update(jnp.array([2.0, -2.0]), opt.init(x), x)[0].round(2).tolist()
      [-0.5, 0.5]

    References:
      Therien et al. 2024, muLO: Compute-Efficient Meta-Generalization of Learned Optimizers
      (arXiv 2406.00153). The network is "small_fc" of google/learned_optimization, which ours
      follows; the authors' own code was not examined.
    """
    _check(weights, hidden_size)

    def step(g: Signal, params: Signal) -> Signal:
        features = _features(weights, g, params)
        out = _network(g, step_count() - 1, *features, nn=weights["nn"])
        u = out[0] * exp(scheduled(exp_mult) * out[1]) * -scheduled(step_mult)
        if width_multiplier is None:
            return u
        return u * leaf_multipliers(u, width_multiplier, "width_multiplier")

    return flow(step)


@checked()
def mu_lo_width_multipliers(
    params: optax.Params, base_shapes: BaseShapes, fan_in_axis: int = -2
) -> optax.Params:
    """The factors by which weights trained on a narrow model serve a wider one.

    For hidden matrices the fan-in for which the weights were trained over that of the model; 1 for
    input layers, output layers, biases and all that has not grown. The multiplier of the output
    layer and the initial weights are the model's business: `transforms.step_size` has
    `mup_readout_multiplier` and `mup_init_scale`.

    Args:
      params: the params, or their shapes.
      base_shapes: tree of the leaf shapes of the narrow model, or a function from the params to it.
      fan_in_axis: -2 for kernels (in, out), as Flax has them, -1 for (out, in).

    Returns:
      A tree of floats, for the `width_multiplier` of `mu_lo`.

    Raises:
      ValueError: if a leaf has more than two grown dimensions.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import mu_lo_width_multipliers
      >>> wide = {"input": jnp.zeros((3, 64)), "hidden": jnp.zeros((64, 64)), "bias": jnp.zeros(64)}
      >>> narrow = {"input": (3, 16), "hidden": (16, 16), "bias": (16,)}
      >>> mu_lo_width_multipliers(wide, narrow)
      {'bias': 1.0, 'hidden': 0.25, 'input': 1.0}

    References:
      Therien et al. 2024, muLO (arXiv 2406.00153).
    """
    found = mup_width_multipliers(params, base_shapes, fan_in_axis)
    return jax.tree.map(
        lambda pair: 1 / pair[1] if pair[0] == "matrix" else 1.0,
        found,
        is_leaf=lambda x: isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], str),
    )


def _check(weights: Mapping[str, Any], hidden_size: int) -> None:
    sizes = (FEATURES + len(TIMES), hidden_size, hidden_size, 2)
    wanted = {f"nn/w{i}": sizes[i : i + 2] for i in range(3)}
    wanted |= {f"nn/b{i}": sizes[i + 1 : i + 2] for i in range(3)}
    wanted |= {name: (len(decays),) for name, decays in DECAYS.items()}
    nn = weights.get("nn", {})
    for name, shape in wanted.items():
        array = nn.get(name[3:]) if name.startswith("nn/") else weights.get(name)
        found = None if array is None else tuple(np.shape(array))
        if found != shape:
            raise FlowError(
                f"mu_lo: weights[{name!r}] must have the shape {shape} for "
                f"hidden_size={hidden_size}, not {found}"
            )


def _decays(weights: Mapping[str, Any], name: str) -> list[Signal]:
    shifted = [
        1 - exp(math.log(1 - d) + 10.0 * scheduled(weights[name][i]))
        for i, d in enumerate(DECAYS[name])
    ]
    return shifted if name == "momentum_decays" else [clip(d, 0.0, 1.0) for d in shifted]


def _features(weights: Mapping[str, Any], g: Signal, params: Signal) -> list[Signal]:
    averages = enumerate(_decays(weights, "momentum_decays"))
    m = [g >> named(f"mu_{i}", ema(decay)) for i, decay in averages]
    r = square(g) >> named("nu", ema(_decays(weights, "rms_decays")[0]))
    by_root = _inverse_root(r + 1e-6)
    factored = [
        _factored(i, decay, g, m) for i, decay in enumerate(_decays(weights, "adafactor_decays"))
    ]
    by_kind = itertools.chain.from_iterable(zip(*factored, strict=True))
    return [g, params, *m, r, *(x * by_root for x in m), by_root, *by_kind]


def _factored(i: int, decay: Signal, g: Signal, m: list[Signal]) -> tuple[Signal, ...]:
    """Of one decay: what comes of g, rows, columns, their inverse roots, what comes of m."""
    is_matrix = leaf_where(lambda leaf: leaf.ndim >= 2)
    wide, narrow = split(bounded_square(g) + 1e-30, is_matrix)
    rows = mean_along_largest(wide, 0) >> named(f"v_row_{i}", ema(decay))
    columns = mean_along_largest(wide, 1) >> named(f"v_col_{i}", ema(decay))
    v = narrow >> named(f"v_{i}", ema(decay))
    row_factor = _capped_root(rows / (mean_along_largest(rows, 1, wide) + 1e-9))
    factor = row_factor * _capped_root(columns)
    g_wide, g_narrow = split(g, is_matrix)
    m_wide, m_narrow = split(m[i], is_matrix)
    roots = [_inverse_root(x + 1e-8) for x in (rows, columns, v)]
    return (
        merge(g_wide * factor, g_narrow * _capped_root(v + 1e-9)),
        merge(rows, v),
        merge(columns, v),
        merge(roots[0], roots[2]),
        merge(roots[1], roots[2]),
        merge(m_wide * factor, m_narrow * _inverse_root(v + 1e-6)),
    )


def _inverse_root(x: Signal) -> Signal:
    return 1 / sqrt(x)


def _capped_root(x: Signal) -> Signal:
    return 1 / sqrt(maximum(x, 1e-9))


@lift
def _network(
    g: jax.Array, count: jax.Array, *features: jax.Array, nn: Mapping[str, Any]
) -> tuple[jax.Array, jax.Array]:
    """The network on the features of each entry: direction and magnitude."""
    # added to zeros rather than broadcast: so they are spread over a mesh as g is
    entries = [f.astype(g.dtype) + jnp.zeros_like(g) for f in features]
    x = _normalised(jnp.stack(entries, axis=-1))
    times = jnp.tanh(count.astype(g.dtype) / jnp.asarray(TIMES, g.dtype) - 1)
    for i in range(3):
        w, b = jnp.asarray(nn[f"w{i}"], g.dtype), jnp.asarray(nn[f"b{i}"], g.dtype)
        if i == 0:
            w, b = w[:FEATURES], b + jnp.matmul(times, w[FEATURES:], precision="highest")
        x = jnp.matmul(x, w, precision="highest") + b.reshape((1,) * g.ndim + b.shape)
        x = jnp.maximum(x, 0) if i < 2 else x
    return x[..., 0], x[..., 1]


def _normalised(features: jax.Array) -> jax.Array:
    """Each feature, on the last axis, over the root of its mean square and a little."""
    entries = tuple(range(features.ndim - 1))
    features = saturated(features)
    size = magnitude(features, entries)
    number = max(features.size // features.shape[-1], 1)
    mean = jnp.sum(jnp.square(features / size), axis=entries, keepdims=True) / number
    least = jnp.asarray(math.sqrt(1e-5), features.dtype) / size
    return features / size / jnp.sqrt(mean + jnp.square(least))
