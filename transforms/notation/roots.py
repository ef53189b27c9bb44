"""Roots and norms that are right at the edges of the number format."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import TypeVar, overload

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from .known import choose
from .stackwise import is_cheap_to_read_twice, throughout
from .values import at_least_float32, promoting

Tree = TypeVar("Tree")


@jax.custom_jvp
def root(tree: Tree) -> Tree:
    """The square root, whose derivative at 0 is 0 and not infinite.

    An infinite derivative becomes NaN behind whatever is constant there, such as the square of a
    gradient that is exactly 0.

    Args:
      tree: an array, or a tree of them: one rule for a whole tree costs no time to trace.
    """
    roots: Tree = jax.tree.map(lax.sqrt, tree)
    return roots


@root.defjvp
def _root_jvp(primals: tuple[Tree], tangents: tuple[Tree]) -> tuple[Tree, Tree]:
    roots = root(primals[0])

    def tangent(y: jax.Array, dx: jax.Array) -> jax.Array:
        zero = y == 0
        return jnp.where(zero, jnp.zeros_like(dx), dx / (2 * jnp.where(zero, jnp.ones_like(y), y)))

    return roots, jax.tree.map(tangent, roots, tangents[0])


@jax.custom_jvp
def inverse_root(x: jax.Array) -> jax.Array:
    """1 / sqrt(x), and 0 where x is not above 0; no factor of its derivative is a power of another.

    That of a gradient of 0 over its root is 0, though the power -3/2 of what an eps of 1e-30 leaves
    is beyond the format.
    """
    above = x > 0
    return jnp.where(above, 1 / lax.sqrt(jnp.where(above, x, jnp.ones_like(x))), jnp.zeros_like(x))


@inverse_root.defjvp
def _inverse_root_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    y = inverse_root(primals[0])
    return y, -0.5 * (y * (y * (y * tangents[0])))


@jax.custom_jvp
def cube_root(x: jax.Array) -> jax.Array:
    """The cube root, whose derivative at 0 is 0.

    XLA computes its own entry by entry. An exponential and one step of Newton's method are as
    precise and go many entries at a time.
    """
    usual = (x != 0) & jnp.isfinite(x)
    size = jnp.abs(jnp.where(usual, x, jnp.ones_like(x)))
    wide = size.astype(at_least_float32(x.dtype))
    near = jnp.exp(jnp.log(wide) / 3)
    near = near - (near - wide / (near * near)) / 3
    return jnp.where(usual, jnp.copysign(near.astype(x.dtype), x), x)


@cube_root.defjvp
def _cube_root_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    y = cube_root(x)
    usual = (x != 0) & jnp.isfinite(x)
    return y, jnp.where(usual, y / (3 * jnp.where(usual, x, 1)), 0) * dx


def maximum_over(
    x: jax.Array,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
    initial: float | None = 0.0,
) -> jax.Array:
    """`jnp.max`, whose derivative does not ask which entries are equal to it to the last bit.

    A compiler computes an entry anew for the question, and rounds it another way: none is equal
    then, and the derivative, divided by their number, is NaN.

    Args:
      x: an array.
      axis: along which the largest is looked for; None: all of it.
      keepdims: whether the axis stays, with length 1.
      initial: at least that large; None: no bound, for arrays that are not empty.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.max(x, axis=axis, keepdims=keepdims, initial=initial)
    return _maximum(x, axis, keepdims, initial)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _maximum(
    x: jax.Array, axis: int | tuple[int, ...] | None, keepdims: bool, initial: float | None
) -> jax.Array:
    return jnp.max(x, axis=axis, keepdims=keepdims, initial=initial)


@_maximum.defjvp
def _maximum_jvp(
    axis: int | tuple[int, ...] | None,
    keepdims: bool,
    initial: float | None,
    primals: tuple[jax.Array],
    tangents: tuple[jax.Array],
) -> tuple[jax.Array, jax.Array]:
    x, dx = primals[0], tangents[0]
    top = jnp.max(lax.stop_gradient(x), axis=axis, keepdims=True, initial=initial)
    share = shares_of_maximum(lax.stop_gradient(x), top, axis)
    value = _maximum(x, axis, keepdims, initial)
    return value, jnp.sum(share * dx, axis=axis, keepdims=keepdims)


def shares_of_maximum(
    x: jax.Array, top: jax.Array, axis: int | tuple[int, ...] | None = None
) -> jax.Array:
    """1 over their number for the entries that are the largest, to rounding; 0 for the others.

    Args:
      x: an array.
      top: the largest along the axis, which it keeps.
      axis: along which the shares add up to 1.
    """
    rounding = 8 * jnp.finfo(x.dtype).eps * jnp.abs(top)
    reached = (x >= top - rounding).astype(x.dtype)
    count = jnp.sum(reached, axis=axis, keepdims=True)
    return reached / jnp.maximum(count, jnp.ones_like(count))


def squared(x: jax.Array) -> jax.Array:
    """The squared magnitude of every entry."""
    return (x * x.conj()).real if jnp.iscomplexobj(x) else x * x


def norm(
    x: jax.Array,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
    *,
    bounded: bool = False,
) -> jax.Array:
    """The Euclidean norm, also where squares of the entries overflow or vanish; 0 at 0.

    Where an array is too large to be read twice for nothing, it is only when the plain sum of
    squares is not to be trusted.

    Args:
      x: an array.
      axis: along which the vectors lie; None: all of it.
      keepdims: whether the axis stays, with length 1.
      bounded: of infinite entries it is the largest number of the format.
    """

    def scaled() -> jax.Array:
        y = saturated(x) if bounded and jnp.iscomplexobj(x) else x
        most = float(jnp.finfo(x.dtype).max) if bounded else jnp.inf
        size = magnitude(y, axis, most)
        total = jnp.sum(squared(y / size), axis=axis, keepdims=True)
        if bounded:  # not a copy of bounded entries: the sum is infinite of infinite ones alone
            total = jnp.where(jnp.isinf(total), squared(most / size), total)
        length = size * root(total)
        return length if keepdims else jnp.squeeze(length, axis)

    if is_cheap_to_read_twice(x):
        return scaled()
    total = jnp.sum(squared(x), axis=axis, keepdims=keepdims)
    return choose(throughout(is_trusted(total, x.size)), lambda: root(total), scaled)


def hypotenuse(x: jax.Array, y: jax.Array) -> jax.Array:
    """sqrt(x^2 + y^2) entry by entry, also where the squares overflow or vanish."""
    return norm(jnp.stack(jnp.broadcast_arrays(x, y)), axis=0)


def dot(
    x: jax.Array, y: jax.Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> jax.Array:
    """The inner product, real part; products that the format does not hold end in no NaN.

    Opposite ones may cancel in truth, so no sum of their infinities is taken: there each product is
    bounded so that the sum of all is a number.

    Args:
      x, y: arrays of one shape.
      axis: along which the vectors lie; None: all of it.
      keepdims: whether the axis stays, with length 1.
    """

    def sum_of(products: jax.Array) -> jax.Array:
        # not vdot: it flattens, which a leaf that is spread over a mesh does not allow
        return jnp.sum(products, axis=axis, keepdims=keepdims)

    if not jnp.issubdtype(jnp.result_type(x, y), jnp.inexact):
        return sum_of(jnp.real(jnp.conj(x) * y))

    def bounded() -> jax.Array:
        # of numbers throughout: where the sum of all is not taken, its derivative is 0 of a number
        numbers = jnp.real(jnp.conj(saturated_in_a_sum(x)) * saturated_in_a_sum(y))
        total = sum_of(numbers)
        share = float(jnp.finfo(numbers.dtype).max) / max(x.size, 1)
        return jnp.where(jnp.isfinite(total), total, sum_of(clamped(numbers, share)))

    if is_cheap_to_read_twice(x):
        return bounded()
    total = sum_of(jnp.real(jnp.conj(x) * y))
    return choose(throughout(jnp.isfinite(total)), lambda: total, bounded)


def relative_norm(
    leaves: Sequence[jax.Array], *, bounded: bool = False
) -> tuple[jax.Array, jax.Array]:
    """The norm over all leaves as a product (size, norm of the leaves divided by size).

    The size is a power of two, and 1 unless squares overflow or vanish; the norm of entries near
    the largest number of the format may itself be none, while both factors are.

    Args:
      leaves: arrays.
      bounded: the norm is that of the saturated leaves, of which no copies are made.
    """
    arrays = [leaf for leaf in leaves if leaf.size]
    if not arrays:
        return jnp.ones(()), jnp.zeros(())
    total = balanced([jnp.sum(squared(x)) for x in arrays])
    count = sum(x.size for x in arrays)

    def scaled() -> tuple[jax.Array, jax.Array]:
        size = _remedy(total)
        numbers = map(saturated_in_a_sum, arrays) if bounded else arrays
        parts = [jnp.sum(squared(jnp.abs(x).astype(total.dtype) / size)) for x in numbers]
        return size, root(balanced(parts))

    return choose(is_trusted(total, count), lambda: (jnp.ones_like(total), root(total)), scaled)


def _remedy(total: jax.Array) -> jax.Array:
    """By which entries are divided so that their squares, of which this is no sum, have one.

    Of entries whose squares overflow, and of those whose squares vanish, all that count are then
    squared to normal numbers, and the sum of 2^60 of these is one. So the largest need not be
    looked for, which on a mesh were communicated.
    """
    exponents = jnp.finfo(total.dtype).maxexp
    smaller, larger = 2.0 ** (3 * exponents // 4), 2.0 ** (-5 * exponents // 8)
    return jnp.where(total > 1, smaller, larger).astype(total.dtype)


def saturated(x: jax.Array, dtype: DTypeLike | None = None) -> jax.Array:
    """The largest numbers of the format in place of infinities; NaN stays NaN.

    Finite numbers of which a sum is none are no longer opposite infinities in the next one.

    Args:
      x: an array.
      dtype: that of the format, where x is to be stored in a narrower one; default that of x.
    """
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return x
    narrower = dtype is not None and jnp.finfo(dtype).bits < jnp.finfo(x.dtype).bits
    return _within(x, float(jnp.finfo(dtype if narrower else x.dtype).max))


def saturated_in_a_sum(x: jax.Array) -> jax.Array:
    """As `saturated`, of what is summed at once: no copy of the entries is made for the sum."""
    if jnp.iscomplexobj(x):
        return lax.complex(saturated_in_a_sum(x.real), saturated_in_a_sum(x.imag))
    return clamped(x, float(jnp.finfo(x.dtype).max))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def clamped(x: jax.Array, top: float) -> jax.Array:
    """The entries between -top and top, in operations that XLA for the CPU takes into a sum.

    It takes no clamp into the kernel of a sum, and see `UNROLLED`.
    """
    return lax.sign(x) * lax.min(lax.abs(x), jnp.full_like(x, top))


@clamped.defjvp
def _clamped_jvp(
    top: float, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    return clamped(x, top), jnp.where(lax.abs(x) <= top, dx, jnp.zeros_like(dx))


def summable(x: jax.Array, terms: int) -> jax.Array:
    """The entries bounded so far that a sum of so many of them is a number of the format.

    Opposite products of a matrix product that overflow are no NaN then. An orthonormal matrix makes
    of n entries no more than a sum of them; there is room for one that is drawn, too.

    Args:
      x: an array.
      terms: of how many a sum is taken.
    """
    return _within(x, float(jnp.finfo(x.dtype).max) / (16 * max(terms, 1)))


def summable_share(terms: int) -> float:
    """A power of two by which one side of a product is multiplied that is to sum so many terms.

    Then no sum of the other side's entries is infinite less infinity, as with `summable`, and it is
    the smaller side of which a copy is made. The product divided by it is the same to the bit.

    Args:
      terms: how many a sum has.
    """
    return 0.5 ** (16 * max(terms, 1) - 1).bit_length()


def squarable(x: jax.Array) -> jax.Array:
    """The nearest numbers whose squares are numbers, with room for a sum of two; NaN stays NaN."""
    return _within(x, float(jnp.finfo(x.dtype).max) ** 0.5 / 2)


UNROLLED = range(12, 24)
"""Lengths of a last axis of which LLVM unrolls a kernel that has a clamp, for four times as long,
and gathers entries one by one in it, for which a step takes two to three times as long."""


def _within(x: jax.Array, top: float) -> jax.Array:
    """The entries, complex ones side by side, between -top and top."""
    if jnp.iscomplexobj(x):
        return lax.complex(_within(x.real, top), _within(x.imag, top))
    if x.ndim and x.shape[-1] in UNROLLED:
        return clamped(x, top)
    bound = jnp.asarray(top, x.dtype)
    return lax.clamp(-bound, x, bound)


@overload
def quotient(a: jax.Array, b: float | jax.Array) -> jax.Array: ...
@overload
def quotient(a: float, b: jax.Array) -> jax.Array: ...
@overload
def quotient(a: float, b: float) -> float: ...


def quotient(a: float | jax.Array, b: float | jax.Array) -> float | jax.Array:
    """a / b, and no NaN where both have become infinite.

    What is cheaper to look at is taken for a large number of the format in place of infinity.
    """
    if jnp.ndim(b) >= jnp.ndim(a):
        return (saturated(a) if isinstance(a, jax.Array) else a) / b
    if not isinstance(b, jax.Array) or not jnp.issubdtype(b.dtype, jnp.floating):
        return a / b
    large = 1 / jnp.finfo(b.dtype).tiny  # its reciprocal is normal, see `usable`
    return a / lax.clamp(-large, b, large)


@jax.custom_jvp
def smooth_quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    """As `quotient`, with a derivative by b in which no square of b occurs: of 0 over 1e-30, 0."""
    return quotient(a, b)


@smooth_quotient.defjvp
def _smooth_quotient_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (a, b), (da, db) = primals, tangents
    ratio = quotient(a, b)
    # not divided twice: a compiler divides by the square of b then; 0 times an infinity were NaN
    return ratio, (da - saturated(ratio) * db) * saturated(1 / b)


def magnitude(
    x: jax.Array, axis: int | tuple[int, ...] | None = None, most: float = jnp.inf
) -> jax.Array:
    """The largest absolute value along an axis, which stays; 1 where that cannot be divided by.

    Args:
      x: an array.
      axis: along which the largest is looked for.
      most: what is larger counts as this.
    """
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0)
    return usable(largest if most == jnp.inf else jnp.minimum(largest, most))


def usable(size: jax.Array) -> jax.Array:
    """A number near this one by which can be divided; never differentiated.

    It is 1 in place of 0 and of what is not finite. Its reciprocal is a normal number: compilers
    multiply by that.
    """
    size = lax.stop_gradient(size)
    bounded = jnp.minimum(size, 1 / jnp.finfo(size.dtype).tiny)
    return jnp.where((size > 0) & jnp.isfinite(size), bounded, jnp.ones_like(size))


def log_softmax(x: jax.Array, temperature: float | jax.Array = 1.0) -> jax.Array:
    """The logarithm of the softmax of x / temperature, also of numbers near the ends of the format.

    A compiler that computes x anew where the largest is subtracted may not round a product in it:
    of 1e18 that is 1e11 more, with an infinite exponential. So nothing is above 0, and the sum of
    the exponentials not below 1.

    Args:
      x: logits, the classes on the last axis; one that is -inf has no share, and the lowest number
        for its logarithm.
      temperature: a positive number.
    """
    below = saturated(x - jnp.max(lax.stop_gradient(x), axis=-1, keepdims=True)) / temperature
    below = below - lax.stop_gradient(jnp.maximum(below, 0))
    total = jnp.sum(jnp.exp(below), axis=-1, keepdims=True)
    return below - jnp.log(total + lax.stop_gradient(jnp.maximum(1 - total, 0)))


def power_of_two_below(x: jax.Array) -> jax.Array:
    """The largest power of two that is not above x, to divide by without rounding; 1 for 0."""
    exponent = jnp.frexp(x)[1] - 1
    exponent = jnp.clip(exponent, jnp.finfo(x.dtype).minexp, jnp.finfo(x.dtype).maxexp - 1)
    return jnp.where((x > 0) & jnp.isfinite(x), jnp.ldexp(jnp.ones((), x.dtype), exponent), 1)


def is_trusted(total: jax.Array, count: int) -> jax.Array:
    """Whether a sum of squares has lost nothing to the ends of the format."""
    limits = jnp.finfo(total.dtype)
    low = float(limits.tiny) / float(limits.eps) * max(count, 1)
    return (total > min(low, 1.0)) & (total < float(limits.max))


def halved(
    parts: jax.Array, combine: Callable[[jax.Array, jax.Array], jax.Array] = operator.add
) -> jax.Array:
    """As `balanced`, of what lies along the leading axis of an array.

    Args:
      parts: at least one.
      combine: of two arrays.
    """
    while (count := len(parts)) > 1:
        half = count // 2
        pairs = combine(parts[:half], parts[half : 2 * half])
        parts = lax.concatenate([pairs, parts[2 * half :]], 0) if count % 2 else pairs
    return lax.squeeze(parts, (0,))


def balanced(
    parts: Sequence[jax.Array],
    combine: Callable[[jax.Array, jax.Array], jax.Array] = operator.add,
) -> jax.Array:
    """Scalars combined as a balanced tree: short dependencies, small rounding.

    Args:
      parts: scalars; of several dtypes, the widest holds.
      combine: of two.
    """
    if not parts:
        return jnp.zeros((), jnp.float32)
    dtype = functools.reduce(promoting(jnp.promote_types), [part.dtype for part in parts])
    parts = [part.astype(dtype) for part in parts]
    while len(parts) > 1:
        pairs = [combine(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[len(parts) - len(parts) % 2 :]
    return parts[0]
