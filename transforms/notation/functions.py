"""Functions of signals: leaf by leaf, over whole leaves, over whole trees."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .crowds import by_stacks, of_stacks
from .errors import FlowError
from .operands import check_trees, signature_of
from .refusing import check_call, refusing
from .roots import (
    balanced,
    cube_root,
    dot,
    halved,
    hypotenuse,
    maximum_over,
    norm,
    relative_norm,
    root,
    saturated,
    smooth_quotient,
    squarable,
    squared,
)
from .rows import sum_of_rows
from .sides import by_side, matrix_product, transposed
from .signal import Function, Operand, Signal, check_arithmetic, leafwise
from .source import PACKAGE
from .stackwise import stackwise
from .values import Leaves, promoting


@refusing
def lift(
    fn: Callable[..., Any], name: str | None = None, doc: str | None = None
) -> Callable[..., Signal]:
    """Makes a function of arrays one of signals, applied leaf by leaf.

    Part of the notation.

    Scalars among the arguments go to every leaf; keyword arguments are constants.

    Args:
      fn: function of arrays, one per signal.
      name: what the node is called; default the function's name.
      doc: what it says of itself in a line; default the first line of the function's docstring.

    Returns:
      A function of signals that returns a signal. `signal >> lifted` works, too.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms import flow, lift
      >>> softsign = lift(lambda x: x / (1 + abs(x)), name="softsign")
      >>> opt = flow(lambda g: softsign(g))
      >>> opt.update(jnp.array([1.0]), opt.init(jnp.zeros(1)))[0].tolist()
      [0.5]
    """
    label = name or getattr(fn, "__name__", "function").strip("<>")

    inside, signature = _promoting_if_ours(fn), functools.cache(lambda: signature_of(fn))

    @functools.wraps(fn)
    def lifted(*signals: Operand, **constants: Any) -> Signal:
        check_call(label, signature(), signals, constants, _is_ours(fn))
        if getattr(fn, "is_elementwise", False):
            check_arithmetic(label, fn, signals)
        bound = functools.partial(inside, **constants) if constants else inside
        return leafwise(bound, label, *signals)

    lifted.receive = lifted  # type: ignore[attr-defined]
    lifted.__doc__ = _documented(fn, label, doc, "A function of signals, leaf by leaf.")
    return lifted


def _documented(fn: Callable[..., Any], label: str, doc: str | None, kind: str) -> str:
    summary = doc or (fn.__doc__ or f"`{label}`.").strip().partition("\n")[0]
    return f"{summary}\n\n{kind}"


@refusing
def lift_elementwise(
    fn: Callable[..., Any],
    name: str | None = None,
    doc: str | None = None,
    of_any: Callable[..., Any] | None = None,
) -> Callable[..., Signal]:
    """As `lift`, for a function that treats the sides of a leaf alike (see `pair`).

    It may mix counts, flags and floats, as the arithmetic of signals does.

    Part of the notation.

    Args:
      fn: function of arrays, one per signal.
      name: what the node is called; default the function's name.
      doc: see `lift`.
      of_any: the same of params as they are, which bounds those that are infinite itself; default
        `fn` of those that are bounded before, which may be a copy.
    """
    lifted = by_side(promoting(fn))
    lifted.is_elementwise = True  # type: ignore[attr-defined]
    if of_any is not None:
        lifted.of_any = by_side(promoting(of_any))  # type: ignore[attr-defined]
    return lift(lifted, name, doc)


@refusing
def lift_tree(
    fn: Callable[..., Any],
    name: str | None = None,
    out: Literal["scalar"] | int | Callable[..., Any] | None = None,
    context: bool = False,
    needs: tuple[str, ...] = (),
    doc: str | None = None,
    sent: Callable[..., float] | None = None,
    each: bool = False,
) -> Callable[..., Signal]:
    """Makes a function of whole trees one of signals.

    Part of the notation.

    Tree signals arrive as `Leaves` (`.values`, `.map`, `.present()`), scalars as arrays, closures
    as they are.

    Args:
      fn: the function; returns `Leaves` or a scalar.
      name: what the node is called; default the function's name.
      out: what its result is shaped like, where that cannot be found by abstract evaluation:
        "scalar", the index of an argument, or `(context, *abstract arguments) -> abstract`.
      context: pass the running `Context` as the first argument.
      needs: inputs that the transformation reports as needed although they have the default None.
      doc: see `lift`.
      sent: `(context, *abstract arguments) -> bytes`: what a worker sends to the others in a step.
      each: every leaf of the result is made of the same leaf of the arguments alone, so that the
        function may be given some of the leaves.
    """
    label = name or getattr(fn, "__name__", "function").strip("<>")
    mode = "each" if each else "whole"
    inside, signature = _promoting_if_ours(fn), functools.cache(lambda: signature_of(fn))

    @functools.wraps(fn)
    def lifted(*signals: Operand, **constants: Any) -> Signal:
        operands = (None, *signals) if context else signals
        check_call(label, signature(), operands, constants, _is_ours(fn))
        fixed = [None if isinstance(x, Signal) or callable(x) else x for x in operands]
        check_trees(label, signature(), fixed)
        bound = functools.partial(inside, **constants) if constants else inside
        return Function(bound, signals, label, mode, out, context, needs, sent)

    lifted.receive = lifted  # type: ignore[attr-defined]
    lifted.__doc__ = _documented(fn, label, doc, "A function of signals, of whole trees at once.")
    return lifted


def _is_ours(fn: Callable[..., Any]) -> bool:
    module: str = getattr(fn, "__module__", None) or ""
    return module.split(".")[0] == PACKAGE


def _promoting_if_ours(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`promoting`, for a function of this library, unless a closure of the user's is handed to it.

    Leaves of two dtypes are summed and ordered together, and counts of 32 bits meet places of 64.
    """
    if not _is_ours(fn):
        return fn
    freely = promoting(fn)

    @functools.wraps(fn)
    def applied(*values: Any, **constants: Any) -> Any:
        return (fn if any(map(callable, values)) else freely)(*values, **constants)

    return applied


def signs(x: jax.Array) -> jax.Array:
    """The sign of every entry."""
    return jnp.sign(x)


def _zero_safe(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    empty = denominator == 0
    return jnp.where(empty, 0, smooth_quotient(numerator, jnp.where(empty, 1, denominator)))


def _floated(x: jax.Array) -> jax.Array:
    # Of an integer, such as the step count, jax takes the float32 root even in a float64 run.
    return x if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else jnp.asarray(x, float)


def _float_function(
    fn: Callable[[jax.Array], jax.Array], name: str, doc: str
) -> Callable[..., Signal]:
    return lift_elementwise(lambda x: fn(_floated(x)), name, doc)


def _root(tree: Leaves | jax.Array) -> Leaves | jax.Array:
    found: Leaves | jax.Array = root(jax.tree.map(_floated, tree))
    return found


_root.is_a_root = True  # type: ignore[attr-defined]

square = lift_elementwise(squared, "square", "x^2; of complex entries |x|^2.")
sqrt = lift_tree(
    _root,
    "sqrt",
    doc="The square root of every entry, with the derivative 0 at 0.",
    each=True,
)
cbrt = _float_function(
    cube_root, "cbrt", "The cube root of every entry, with the derivative 0 at 0."
)
sign = lift_elementwise(signs, "sign", "The sign of every entry; x / |x| of complex ones, 0 of 0.")
exp = _float_function(jnp.exp, "exp", "The exponential of every entry.")
log = _float_function(jnp.log, "log", "The natural logarithm of every entry.")
tanh = _float_function(jnp.tanh, "tanh", "The hyperbolic tangent of every entry.")
sigmoid = _float_function(jax.nn.sigmoid, "sigmoid", "1 / (1 + exp(-x)) of every entry.")
absolute = lift_elementwise(operator.abs, "abs", "|x| of every entry, the same as abs(x).")


def _softplus(x: jax.Array, beta: float | jax.Array = 1.0) -> jax.Array:
    return jnp.where(beta * x > 20, x, jax.nn.softplus(beta * x) / beta)


softplus = lift_elementwise(
    _softplus,
    "softplus",
    "log(1 + exp(beta x)) / beta, and x itself where beta x > 20, as torch has it.",
)


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.maximum(a, b)


def _smaller(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.minimum(a, b)


maximum = lift_elementwise(_larger, "maximum", "The larger of two values, entry by entry.")
minimum = lift_elementwise(_smaller, "minimum", "The smaller of two values, entry by entry.")


def _where(condition: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(condition, a, b)


where = lift_elementwise(
    _where,
    "where",
    "`where(condition, a, b)`: a where the condition holds, else b, entry by entry.",
)


def _clipped(x: jax.Array, min: ArrayLike | None = None, max: ArrayLike | None = None) -> jax.Array:
    return jnp.clip(x, min, max)


clip = lift_elementwise(
    _clipped, "clip", "`clip(x, min, max)`: every entry brought into the interval."
)

isfinite = lift_elementwise(
    jnp.isfinite, "isfinite", "Whether every entry is neither infinite nor NaN, entry by entry."
)


def _zeros(x: jax.Array) -> jax.Array:
    return jnp.zeros_like(x)


def _ones(x: jax.Array) -> jax.Array:
    return jnp.ones_like(x)


zeros_like = lift_elementwise(_zeros, "zeros_like", "Zeros in the shape and dtype of x.")
ones_like = lift_elementwise(_ones, "ones_like", "Ones in the shape and dtype of x.")
transpose = lift_elementwise(transposed, "transpose")
matmul = lift_elementwise(matrix_product, "matmul")
divide_or_zero = lift_elementwise(_zero_safe, "divide_or_zero", "a / b, and 0 where b is 0.")


def _sum(
    x: jax.Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> jax.Array:
    if axis == 0 and jnp.ndim(x) and not keepdims:
        return sum_of_rows(x)
    return jnp.sum(x, axis=axis, keepdims=keepdims)


def _mean(
    x: jax.Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> jax.Array:
    if jnp.size(x) == 0 and axis is None:
        return jnp.zeros((), _float_of(x))
    return jnp.mean(x, axis=axis, keepdims=keepdims, dtype=_float_of(x))


def _float_of(x: jax.Array) -> jnp.dtype:
    return x.dtype if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.result_type(float)


def _max(
    x: jax.Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> jax.Array:
    return maximum_over(x, axis, keepdims, None if x.size else -jnp.inf)


hypot = lift_elementwise(
    hypotenuse,
    "hypot",
    "sqrt(x^2 + y^2) entry by entry, also where the squares overflow or vanish.",
)
saturate = lift_elementwise(
    saturated, "saturate", "The largest numbers of the format in place of infinities."
)
bound_squares = lift_elementwise(
    squarable,
    "bound_squares",
    "Every entry, or the nearest number whose square is one: 9e18 in float32.",
)
leaf_sum = lift_elementwise(_sum, "leaf_sum", "The sum of each leaf, or along `axis=`.")
leaf_mean = lift_elementwise(
    _mean, "leaf_mean", "The mean of each leaf, or along `axis=`; 0 of an empty leaf."
)
leaf_norm = lift_elementwise(
    norm,
    "leaf_norm",
    "The Euclidean norm of each leaf, or along `axis=`.",
    of_any=functools.partial(norm, bounded=True),
)


def _rms(x: jax.Array, *, bounded: bool = False) -> jax.Array:
    return norm(x, bounded=bounded) / math.sqrt(max(x.size, 1))


leaf_rms = lift_elementwise(
    _rms,
    "leaf_rms",
    "The root mean square of each leaf.",
    of_any=functools.partial(_rms, bounded=True),
)
leaf_dot = lift_elementwise(
    dot, "leaf_dot", "The inner product of two leaves, real part.", of_any=dot
)
leaf_max = lift_elementwise(_max, "leaf_max", "The largest entry of each leaf, or along `axis=`.")


def _size(x: jax.Array, axis: int | None = None) -> jax.Array:
    if axis is None:
        return jnp.asarray(x.size, _float_of(x))
    if not -x.ndim <= axis < x.ndim:
        raise FlowError(f"leaf_size: a leaf of shape {x.shape} has no axis {axis}")
    return jnp.asarray(x.shape[axis], _float_of(x))


leaf_size = lift_elementwise(
    _size, "leaf_size", "The number of entries of each leaf, or its length along `axis=`."
)


def _agree(x: jax.Array, y: jax.Array) -> jax.Array:
    # By signs: the product of two small numbers underflows, and would pass for disagreement.
    return jnp.real(jnp.sign(x) * jnp.conj(jnp.sign(y))) > 0


signs_agree = lift(
    _agree,
    "signs_agree",
    "True at entries of the same sign (complex: less than a right angle between them).",
)


def pair(*sides: Signal) -> Signal:
    """One signal of several, such as the two factors of a matrix: its leaves are tuples.

    A function of signals.

    Arithmetic, the functions of this page, `delay`, `ema` and all that is made of them treat every
    side alike; `signal[0]` and `signal[1]` are the sides. So Shampoo's two factors are

        factors = pair(G @ G.T, G.T @ G) >> running_sum()

    Args:
      *sides: signals with the same leaves, of any shapes.
    """
    return lift(lambda *arrays: arrays, "pair")(*sides)


@refusing
def reduce_leaves(
    per_leaf: Callable[..., Any], name: str, doc: str | None = None, of_any: bool = False
) -> Callable[..., Signal]:
    """A scalar that sums a function of every leaf over the whole tree.

    Part of the notation.

    Args:
      per_leaf: function of the leaves of its signals that returns a scalar.
      name: what the node is called.
      doc: see `lift`.
      of_any: the function of a leaf bounds entries that are infinite itself.
    """

    of_leaf = by_side(per_leaf)

    def sum_of_two(x: jax.Array, y: jax.Array) -> jax.Array:
        # of leaves that point opposite ways, infinite sums would make NaN
        return saturated(x + y)

    @of_stacks
    def reduced(*trees: Leaves) -> jax.Array:
        stacks, rows = by_stacks(*trees)
        columns = jax.tree.leaves([stackwise(of_leaf, len(stack[0]))(*stack) for stack in stacks])
        parts = jax.tree.leaves([of_leaf(*row) for row in rows])
        return balanced([halved(x, sum_of_two) for x in columns] + parts, sum_of_two)

    if of_any:
        reduced.of_any = reduced  # type: ignore[attr-defined]
    return lift_tree(reduced, name, out="scalar", doc=doc or per_leaf.__doc__)


global_sum = reduce_leaves(jnp.sum, "global_sum", "The sum of all entries of a tree.")
global_dot = reduce_leaves(
    dot, "global_dot", "The inner product of two trees, real part.", of_any=True
)
global_squared_norm = reduce_leaves(
    lambda x: jnp.sum(squared(x)),
    "global_squared_norm",
    "The sum of the squares of all entries of a tree.",
)
global_size = reduce_leaves(
    lambda x: jnp.asarray(float(x.size), _float_of(x)),
    "global_size",
    "The number of entries of a tree.",
)


@refusing
def norm_factors(signal: Signal) -> tuple[Signal, Signal]:
    """The Euclidean norm of a whole tree as a product (size, norm of the tree divided by size).

    A function of signals.

    The size is 1 but for entries whose squares overflow or vanish, where it is a power of two.
    Both factors are numbers of the format also where the norm is none: `signal / size / relative`
    has length 1. `signal * (1 / size)` is the same to the bit, and what several kernels read of it
    XLA computes in each, where it writes a quotient to an array.
    """
    factors = lift_tree(_factors, "norm_factors")(signal)
    return factors[0], factors[1]


@of_stacks
def _factors(tree: Leaves, *, bounded: bool = False) -> tuple[jax.Array, jax.Array]:
    return relative_norm(jax.tree.leaves(by_stacks(tree)), bounded=bounded)


@of_stacks
def _norm(tree: Leaves, *, bounded: bool = False) -> jax.Array:
    size, relative = _factors(tree, bounded=bounded)
    return size * relative


_factors.of_any = functools.partial(_factors, bounded=True)  # type: ignore[attr-defined]
_norm.of_any = functools.partial(_norm, bounded=True)  # type: ignore[attr-defined]


@refusing
def global_norm(signal: Signal) -> Signal:
    """Euclidean norm of a whole tree, as a scalar signal.

    A function of signals.
    """
    return lift_tree(_norm, "global_norm", out="scalar")(signal)


@refusing
def global_mean(signal: Signal) -> Signal:
    """Mean over all entries of a tree, as a scalar signal.

    A function of signals.
    """
    return global_sum(signal) / global_size(signal)


@of_stacks
def _global_max(tree: Leaves) -> jax.Array:
    arrays = jax.tree.leaves(by_stacks(tree))
    leaves = [maximum_over(leaf, initial=None) for leaf in arrays if leaf.size]
    return functools.reduce(jnp.maximum, leaves) if leaves else jnp.zeros((), jnp.float32)


global_max = lift_tree(
    _global_max, "global_max", out="scalar", doc="The largest entry of a tree; 0 of an empty one."
)
