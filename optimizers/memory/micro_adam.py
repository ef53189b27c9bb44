"""MicroAdam."""

import math

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from ...registry import method
from ...transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Signal,
    Size,
    chain,
    decay_weights,
    delay,
    flow,
    is_neutral,
    lift,
    scale_by_learning_rate,
    scheduled,
    step_count,
    transformation,
)
from ...transforms.notation import Share
from ...transforms.notation.roots import quotient, root, saturated
from ...transforms.notation.sharding import replicated
from ...transforms.notation.values import at_least_float32

LEVELS = 15


@transformation()
def scale_by_micro_adam(
    window: Size = 10,
    density: Share = 0.01,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    alpha: NonNegative = 0.0,
    topk_block_size: Size = 16384,
    quant_block_size: Size = 64,
    value_dtype: DType | None = jnp.bfloat16,
    range_dtype: DType | None = jnp.bfloat16,
) -> Flow:
    """Adam whose moments are rebuilt from the largest entries of the last few gradients.

    Each leaf is flattened; e is its error feedback in 4 bits, Q the quantiser by blocks:

        a = g + Q^-1(e)
        I, V = the ceil(density * length) largest |a| of each block, and their values
        slot (t - 1) mod window <- I, V
        e = Q(a with 0 at I)
        m = (1 - b1) / (1 - b1^t) sum over the slots of b1^age V,  scattered to I
        v = (1 - b2) / (1 - b2^t) sum over the slots of b2^age V^2
        u = m / (sqrt(v) + eps)

    Q has 16 levels between the smallest and the largest entry of a block. With alpha > 0 the
    feedback takes part in the step: u + alpha Q^-1(e), and e = Q((1 - alpha) Q^-1(e)). An entry
    that is in no slot does not move. The sums hold `window` terms, the corrections count all steps,
    so later steps are longer than Adam's.

    Args:
      window: slots.
      density: share of the entries that enter a slot, in [0, 1].
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second, in [0, 1).
      eps: added to the root.
      alpha: share of the feedback that is added to the step.
      topk_block_size: entries among which the largest are sought.
      quant_block_size: entries that share a range.
      value_dtype: dtype of the values in the slots, bits of which are kept; None: that of g.
      range_dtype: dtype of the ranges, likewise.

    References:
      Modoranu et al. 2024, MicroAdam: Accurate Adaptive Optimization with Low Space Overhead and
      Provable Convergence (arXiv 2405.15593); IST-DASLab/ISTA-DASLab-Optimizers, where the block
      of the largest entries depends on the GPU and alpha is found.
    """
    sizes = {
        "window": window,
        "density": density,
        "topk": topk_block_size,
        "quant": quant_block_size,
        "dtypes": (value_dtype, range_dtype),
    }

    def step(g: Signal) -> Signal:
        t = step_count()
        past = delay(_empty(g, **sizes), name="memory")
        betas = [scheduled(value) for value in (b1, b2, eps, alpha)]
        both = _advanced(past, g, t, *betas, **sizes)
        past << both[0]
        return both[1]

    return flow(step)


def _flat_blocks(x: jax.Array, size: int) -> jax.Array:
    """A vector as rows of one block each, the last one filled up with its own last entry."""
    count = -(-x.size // size)
    return jnp.pad(x, (0, count * size - x.size), mode="edge").reshape(count, size)


def _counts(entries: int, density: float, block: int) -> tuple[int, int, int, int]:
    """Length and number of whole blocks, and how many entries each and the rest contribute."""
    length = min(entries, block)
    whole = entries // length
    rest = entries - whole * length
    return length, whole, math.ceil(density * length), math.ceil(density * rest)


def _largest(a: jax.Array, density: float, block: int) -> jax.Array:
    """Places of the largest entries of each block."""
    length, whole, each, last = _counts(a.size, density, block)
    sizes = jnp.abs(a)
    inside = jax.lax.top_k(sizes[: whole * length].reshape(whole, length), each)[1]
    places = (inside + length * jnp.arange(whole)[:, None]).ravel()
    if not last:
        return places
    tail = jax.lax.top_k(sizes[whole * length :], last)[1] + whole * length
    return jnp.concatenate([places, tail])


def _quantised(
    a: jax.Array, size: int, dtype: DTypeLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Codes, two in a byte, and the range of each block."""
    rows = _flat_blocks(a, size)
    low, high = (_kept(fn(rows, axis=1), dtype) for fn in (jnp.min, jnp.max))
    lo, hi = (_read(x, dtype, a.dtype)[:, None] for x in (low, high))
    unit = saturated(hi - lo) / LEVELS
    # entries of 0 lie halfway between two levels of -x to x, up to what the quotient is rounded by
    half = 0.5 + 2 * LEVELS * jnp.finfo(a.dtype).eps
    codes = jnp.floor(saturated(rows - lo) / jnp.where(unit > 0, unit, 1) + half)
    codes = jnp.where(unit > 0, jnp.clip(codes, 0, LEVELS), 0).astype(jnp.uint8).ravel()[: a.size]
    pairs = jnp.pad(codes, (0, a.size % 2)).reshape(-1, 2)
    return pairs[:, 0] | (pairs[:, 1] << 4), low, high


def _dequantised(
    packed: jax.Array,
    low: jax.Array,
    high: jax.Array,
    entries: int,
    size: int,
    dtype: DTypeLike | None,
    like: DTypeLike,
) -> jax.Array:
    codes = jnp.stack([packed & LEVELS, packed >> 4], axis=1).ravel()[:entries]
    lo, hi = (_read(x, dtype, like) for x in (low, high))
    block = jnp.arange(entries) // size
    return codes.astype(like) * (saturated(hi - lo) / LEVELS)[block] + lo[block]


def _kept(x: jax.Array, dtype: DTypeLike | None) -> jax.Array:
    """The array as it is stored: in another dtype as its bits, which nothing widens."""
    if dtype is None:
        return x
    return jax.lax.bitcast_convert_type(saturated(x, dtype).astype(dtype), _bits(dtype))


def _read(x: jax.Array, dtype: DTypeLike | None, like: DTypeLike) -> jax.Array:
    return (x if dtype is None else jax.lax.bitcast_convert_type(x, dtype)).astype(like)


def _bits(dtype: DTypeLike) -> jnp.dtype:
    return {1: jnp.int8, 2: jnp.int16, 4: jnp.int32, 8: jnp.int64}[jnp.dtype(dtype).itemsize]


def _no_memory(
    g: jax.Array,
    window: int,
    density: float,
    topk: int,
    quant: int,
    dtypes: tuple[DTypeLike | None, DTypeLike | None],
) -> tuple[jax.Array, ...]:
    value, span = dtypes
    wide = at_least_float32(g.dtype)
    if g.size == 0:
        return (jnp.zeros((0,), jnp.uint8),)
    _, whole, each, last = _counts(g.size, density, topk)
    slots = (window, whole * each + last)
    blocks = -(-g.size // quant)
    return (
        jnp.zeros((-(-g.size // 2),), jnp.uint8),
        jnp.zeros((blocks,), wide if span is None else _bits(span)),
        jnp.zeros((blocks,), wide if span is None else _bits(span)),
        jnp.zeros(slots, jnp.int32),
        jnp.zeros(slots, wide if value is None else _bits(value)),
    )


def _stepped(
    memory: tuple[jax.Array, ...],
    g: jax.Array,
    t: jax.Array,
    b1: float | jax.Array,
    b2: float | jax.Array,
    eps: float | jax.Array,
    alpha: float | jax.Array,
    window: int,
    density: float,
    topk: int,
    quant: int,
    dtypes: tuple[DTypeLike | None, DTypeLike | None],
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    if g.size == 0:
        return memory, g
    packed, low, high, places, values = memory
    value_dtype, range_dtype = dtypes

    def dequantised(packed: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
        return _dequantised(packed, low, high, g.size, quant, range_dtype, g.dtype)

    a = replicated(g).ravel() + dequantised(packed, low, high)
    largest = _largest(a, density, topk)
    slot = (t - 1) % window
    places = places.at[slot].set(largest.astype(places.dtype))
    values = values.at[slot].set(_kept(a[largest], value_dtype))
    error = _quantised(a.at[largest].set(0), quant, range_dtype)
    m, v = _moments(places, _read(values, value_dtype, g.dtype), slot, t, b1, b2, g.size)
    length = root(v) + eps
    u = quotient(m, jnp.where(length == 0, 1, length))
    if not is_neutral(alpha):
        fed_back = dequantised(*error)
        u = u + alpha * fed_back
        error = _quantised((1 - alpha) * fed_back, quant, range_dtype)
    return (*error, places, values), u.reshape(g.shape)


def _moments(
    places: jax.Array,
    values: jax.Array,
    slot: jax.Array,
    t: jax.Array,
    b1: float | jax.Array,
    b2: float | jax.Array,
    entries: int,
) -> tuple[jax.Array, jax.Array]:
    age = ((slot - jnp.arange(len(places))) % len(places)).astype(values.dtype)[:, None]

    def scattered(terms: jax.Array, decay: float | jax.Array) -> jax.Array:
        weight = (1 - decay) / (1 - decay ** t.astype(values.dtype))
        summed = (
            jnp.zeros(entries, values.dtype).at[places.ravel()].add((decay**age * terms).ravel())
        )
        return weight * summed

    return scattered(values, b1), scattered(values**2, b2)


_empty = lift(_no_memory, "memory")
_advanced = lift(_stepped, "micro_adam")


@method(
    "Modoranu et al. 2024, MicroAdam: Accurate Adaptive Optimization with Low Space Overhead and "
    "Provable Convergence",
    arxiv="2405.15593",
    tags=("adam", "low-memory"),
    learning_rate=0.005,
    small_model={"density": 0.1},
)
@transformation()
def micro_adam(
    learning_rate: optax.ScalarOrSchedule,
    window: Size = 10,
    density: Share = 0.01,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    alpha: NonNegative = 0.0,
    topk_block_size: Size = 16384,
    quant_block_size: Size = 64,
    value_dtype: DType | None = jnp.bfloat16,
    range_dtype: DType | None = jnp.bfloat16,
    mask: Mask | None = None,
) -> Flow:
    """MicroAdam; the rule is that of `scale_by_micro_adam`.

    Args:
      learning_rate: number or schedule.
      window, density, b1, b2, eps, alpha, topk_block_size, quant_block_size, value_dtype,
        range_dtype: see `scale_by_micro_adam`.
      weight_decay: decoupled, multiplied by the rate, on the params before the step.
      mask: leaves that decay: a tree of booleans, or a function of the params; default all.

    Returns:
      The optimizer; its state is half a byte per param for the feedback, two ranges per block, and
      `window * density` places and values per param: about 1.2 bytes at the defaults.

    Raises:
      ValueError: for a hyper-parameter out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import micro_adam
      >>> opt = micro_adam(1.0, density=0.25)
      >>> g = jnp.array([1.0, -8.0, 2.0, 4.0])
      >>> (abs(opt.update(g, opt.init(g))[0]) > 0.5).tolist()
      [False, True, False, False]
    """
    return chain(
        scale_by_micro_adam(
            window=window,
            density=density,
            b1=b1,
            b2=b2,
            eps=eps,
            alpha=alpha,
            topk_block_size=topk_block_size,
            quant_block_size=quant_block_size,
            value_dtype=value_dtype,
            range_dtype=range_dtype,
        ),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, "decoupled", learning_rate=learning_rate, mask=mask),
    )
