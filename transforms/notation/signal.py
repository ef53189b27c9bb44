"""Symbolic signals: what the `step` of a flow computes with."""

import copy
import itertools
import operator
import sys
from collections.abc import Callable
from types import NoneType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from .cell import Cell, foreign_cell
from .errors import FlowError, MissingAttributeError, SignalError
from .foreign import owner_of
from .injected import arrays_are_constant
from .operands import check_index, check_operands
from .precision import stored_as
from .roots import quotient
from .scope import Builder, Scope, current_builder
from .sides import by_side, matrix_product, transposed
from .source import Span, check_parentheses, running, users_line
from .values import promoting

_order = itertools.count()


class Signal:
    """A value that flows through a transformation at every step.

    A signal is a tree with the structure of the gradient, or a scalar, which broadcasts. It is
    symbolic: nothing is computed until the transformation runs. Arithmetic works leaf by leaf,
    `signal >> transformation` sends it through anything that Optax understands.

    Attributes:
      args: the signals and constants it is computed from.
      label: what the node is called in messages and drawings.
      site: file and line of the code that made it.
    """

    __array_ufunc__ = None  # numpy scalars and arrays defer to our reflected operators

    def __init__(self, args: tuple[Any, ...], label: str) -> None:
        self.args = args
        self.label = label
        self.builder: Builder = current_builder(label)
        self.scope: Scope = self.builder.scope
        self.index = next(_order)
        self.site = users_line(sys._getframe(1))
        self.shifted_in: Span | None = None  # the `past << self` that it was last written by

    def rewired(self, args: tuple[Any, ...]) -> "Signal":
        """The same node with other arguments, in the flow that is being built."""
        raise TypeError(f"{type(self).__name__} is not copied")

    def __rshift__(self, target: Any) -> "Signal":
        receiver = owner_of(target) or target
        if hasattr(receiver, "receive"):
            return receiver.receive(self)
        if isinstance(target, optax.MultiSteps):
            target = target.gradient_transformation()
        if isinstance(target, optax.GradientTransformation):
            cell = foreign_cell(target)
            return CellNode(cell, (self,), cell.name, explicit=False)
        raise FlowError(
            f"a signal cannot be sent into {target!r}: expected a gradient transformation, "
            "or a function made with lift()"
        )

    def __lshift__(self, value: Any) -> NoReturn:
        raise FlowError(
            f"`<<` closes a delay, but its left side is `{self.label}`; "
            "write `past = delay(...)` and `past << value`"
        )

    def __bool__(self) -> bool:
        raise SignalError(
            f"`{self.label}` has no truth value while the flow is built: "
            "use where(condition, a, b) instead of `if`, `and` or `or`"
        )

    def __iter__(self) -> NoReturn:
        raise SignalError(f"`{self.label}` is a signal and cannot be iterated; take items by index")

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise SignalError(f"`{self.label}` is a signal: it has no value while the flow is built")

    if not TYPE_CHECKING:  # a checker is to know the attributes that there are

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("__"):
                raise AttributeError(name)
            raise MissingAttributeError.of(self.label, name)

    def __getitem__(self, item: Any) -> "Signal":
        check_index(self.label, item)
        return leafwise(lambda leaf: leaf[item], f"[{item}]", self)

    def __add__(self, other: "Operand") -> "Signal":
        return elementwise(sum_of_signals, "+", self, other)

    def __radd__(self, other: "Operand") -> "Signal":
        return elementwise(sum_of_signals, "+", other, self)

    def __sub__(self, other: "Operand") -> "Signal":
        return elementwise(operator.sub, "-", self, other)

    def __rsub__(self, other: "Operand") -> "Signal":
        return elementwise(operator.sub, "-", other, self)

    def __mul__(self, other: "Operand") -> "Signal":
        return elementwise(operator.mul, "*", self, other)

    def __rmul__(self, other: "Operand") -> "Signal":
        return elementwise(operator.mul, "*", other, self)

    def __truediv__(self, other: "Operand") -> "Signal":
        return elementwise(quotient_of_signals, "/", self, other)

    def __rtruediv__(self, other: "Operand") -> "Signal":
        return elementwise(quotient_of_signals, "/", other, self)

    def __floordiv__(self, other: "Operand") -> "Signal":
        return elementwise(operator.floordiv, "//", self, other)

    def __rfloordiv__(self, other: "Operand") -> "Signal":
        return elementwise(operator.floordiv, "//", other, self)

    def __mod__(self, other: "Operand") -> "Signal":
        return elementwise(operator.mod, "%", self, other)

    def __rmod__(self, other: "Operand") -> "Signal":
        return elementwise(operator.mod, "%", other, self)

    def __pow__(self, other: "Operand") -> "Signal":
        return elementwise(_power, "**", self, other)

    def __rpow__(self, other: "Operand") -> "Signal":
        return elementwise(_power, "**", other, self)

    def __pos__(self) -> "Signal":
        return self

    def __neg__(self) -> "Signal":
        return elementwise(operator.neg, "negate", self)

    def __abs__(self) -> "Signal":
        return elementwise(operator.abs, "abs", self)

    def __lt__(self, other: "Operand") -> "Signal":
        return elementwise(operator.lt, "<", _apart(self), other)

    def __le__(self, other: "Operand") -> "Signal":
        return elementwise(operator.le, "<=", _apart(self), other)

    def __gt__(self, other: "Operand") -> "Signal":
        return elementwise(operator.gt, ">", _apart(self), other)

    def __ge__(self, other: "Operand") -> "Signal":
        return elementwise(operator.ge, ">=", _apart(self), other)

    def __eq__(self, other: "Operand") -> "Signal":  # type: ignore[override]
        return elementwise(operator.eq, "==", _apart(self), other)

    def __ne__(self, other: "Operand") -> "Signal":  # type: ignore[override]
        return elementwise(operator.ne, "!=", _apart(self), other)

    __hash__ = object.__hash__

    def __matmul__(self, other: "Operand") -> "Signal":
        return elementwise(matrix_product, "@", self, other)

    def __rmatmul__(self, other: "Operand") -> "Signal":
        return elementwise(matrix_product, "@", other, self)

    @property
    def T(self) -> "Signal":  # noqa: N802
        """The transposed matrices: the last two axes of every leaf change places."""
        return elementwise(transposed, "T", self)

    def __and__(self, other: "Operand") -> "Signal":
        return elementwise(operator.and_, "and", _apart(self), other)

    def __or__(self, other: "Operand") -> "Signal":
        return elementwise(operator.or_, "or", _apart(self), other)

    def __rand__(self, other: "Operand") -> "Signal":
        return elementwise(operator.and_, "and", other, self)

    def __ror__(self, other: "Operand") -> "Signal":
        return elementwise(operator.or_, "or", other, self)

    def __invert__(self) -> "Signal":
        return elementwise(operator.invert, "not", self)

    def __repr__(self) -> str:
        return f"<signal {self.label} at {self.site}>"


Operand: TypeAlias = Signal | ArrayLike | optax.Schedule
"""What a signal meets in arithmetic: another one, a number, an array, or a schedule."""


class Input(Signal):
    """What `update` is given: the incoming updates, or an input by name."""

    def __init__(self, name: str, optional: bool = False) -> None:
        super().__init__((), name)
        self.name = name
        self.optional = optional


class Clock(Signal):
    """The number of this step: 1 at the first update.

    Attributes:
      outermost: whether it is the number of the outermost flow's step, which goes on while the
        flow that the node is in rests.
    """

    def __init__(self, outermost: bool = False) -> None:
        super().__init__((), "t")
        self.outermost = outermost


class Function(Signal):
    """A stateless node.

    Attributes:
      fn: the function.
      mode: "leaf" (called leaf by leaf, scalars broadcast), "whole" (called once, tree signals
        arrive as `Leaves`), or "each": as "whole", and does the same to every leaf by itself.
      out: for modes other than "leaf", how the shapes of the result are known: None (evaluate
        abstractly), "scalar", the index of the argument that it resembles, or a function of
        abstract values.
      context: pass the running `Context` as first argument.
      needs: inputs that must be given although the step may do without them.
      sent: `(context, *abstract values) -> bytes`: what a worker sends to the others in a step.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        label: str,
        mode: str = "leaf",
        out: Any = None,
        context: bool = False,
        needs: tuple[str, ...] = (),
        sent: Callable[..., float] | None = None,
    ) -> None:
        super().__init__(tuple(map(at_this_step, args)), label)
        check_operands(label, fn, self.args, (Signal, NoneType), skip=int(context))
        self.fn = fn
        self.mode = mode
        self.out = out
        self.context = context
        self.needs = needs
        self.sent = sent

    @property
    def is_leafwise(self) -> bool:
        """Whether every leaf of the result is made of the same leaf of its arguments alone."""
        return self.mode != "whole"

    def rewired(self, args: tuple[Any, ...]) -> "Function":
        """The same function of other arguments."""
        known = self.mode, self.out, self.context, self.needs, self.sent
        return Function(self.fn, args, self.label, *known)


def clock(outermost: bool = False) -> Clock:
    """The step count of the flow that is being built, one node of each kind for the whole flow."""
    clocks = current_builder("step_count").clocks
    if outermost not in clocks:
        clocks[outermost] = Clock(outermost)
    found: Clock = clocks[outermost]
    return found


def at_this_step(value: Any, ahead: int = 0) -> Any:
    """What a schedule is at this step, or `ahead` steps later; anything else as it is.

    So a schedule that meets a signal, in arithmetic or as an argument of a lifted function, is a
    signal, too.

    Raises:
      FlowError: for an array of which another step's value is asked: it may follow a schedule.
    """
    if isinstance(value, Signal) or not callable(value):
        if ahead and isinstance(value, jax.Array) and not arrays_are_constant():
            raise FlowError(
                "the method reads its rate at another step, which an array does not tell: give a "
                "number or a schedule, or inject with gradchain.inject_hyperparams"
            )
        return value
    return Function(lambda t: value(t - 1 + ahead), (clock(),), "schedule")


class Slot(Signal):
    """A node that keeps state.

    Attributes:
      hint: the name of its state, made unique within its scope.
      explicit: True where the user chose the name.
    """

    def __init__(self, args: tuple[Any, ...], label: str, hint: str, explicit: bool) -> None:
        super().__init__(args, label)
        self.hint = hint
        self.explicit = explicit


class Delay(Slot):
    """A unit delay: its value is what was written at the previous step.

    Attributes:
      start: a scalar with which every leaf starts, or a function (see `delay`); None means
        zeros, or the params themselves when the delay is of `params`.
      dtype: storage dtype; None means the signal's own, at least float32.
      of_params: whether `like` is the input `params` in the flow that made the delay, not in one
        around it that happens to send the params there.
      evaluation: None, or `(weight, params_weight)`: the evaluation weights of the method are
        `weight * stored + params_weight * params`.
      written: the signal that becomes the value at the next step.
    """

    def __init__(
        self,
        like: Any,
        start: Any,
        dtype: DTypeLike | None,
        hint: str,
        explicit: bool,
        evaluation: tuple[float | jax.Array, float | jax.Array] | None,
    ) -> None:
        super().__init__((like,), "delay" if not explicit else hint, hint, explicit)
        self.start = start
        self.dtype = dtype
        self.settle_dtype()
        self.evaluation = evaluation
        self.of_params = isinstance(like, Input) and like.name == "params"
        self.written: Any = None
        self.builder.delays.append(self)

    def settle_dtype(self) -> None:
        """Stores moments in the dtype that the running factory was told; see `precision`."""
        if isinstance(self.like, Signal):
            self.dtype = stored_as(self.dtype, self.hint, self.explicit, self.scope)

    @property
    def like(self) -> Any:
        """The signal whose shapes the delay has."""
        return self.args[0]

    def rewired(self, args: tuple[Any, ...]) -> "Delay":
        """A delay of the same kind; what is written to it is connected by the caller."""
        copied = Delay(args[0], self.start, self.dtype, self.hint, self.explicit, self.evaluation)
        copied.of_params = self.of_params
        return copied

    def __lshift__(self, value: Any) -> Any:
        if self.written is not None:
            raise FlowError(f"delay `{self.hint}` ({self.site}) is closed twice")
        self.written = value
        if isinstance(value, Signal):
            value.shifted_in = running(sys._getframe(1))
        return value


class CellNode(Slot):
    """A node with a hand-written state: a foreign transformation, or a primitive's inner loop.

    Attributes:
      cell: see `Cell`.
    """

    def __init__(self, cell: Cell, args: tuple[Any, ...], hint: str, explicit: bool) -> None:
        super().__init__(args, cell.name, hint, explicit)
        self.cell = cell

    def rewired(self, args: tuple[Any, ...]) -> "CellNode":
        """The same cell on other arguments."""
        return CellNode(self.cell, args, self.hint, self.explicit)

    def with_cell(self, cell: Cell) -> "CellNode":
        """This very node with another cell: same arguments, same index."""
        other = copy.copy(self)
        other.cell = cell
        return other


def _apart(signal: Signal) -> Signal:
    """The left operand of an operator that binds looser than `<<`."""
    check_parentheses(signal.shifted_in, running(sys._getframe(2)))
    return signal


def sum_of_signals(a: float | jax.Array, b: float | jax.Array) -> float | jax.Array:
    """a + b, which is a where b is the number 0, as a constant that is not wanted often is."""
    is_neutral = isinstance(b, int | float) and b == 0 and _is_inexact(a)
    return a if is_neutral else a + b


def _bare_quotient(a: float | jax.Array, b: float | jax.Array) -> float | jax.Array:
    # Of two integers, as of a step count and a period, jax makes a float32 even in a float64 run.
    return a * 1.0 / b if _is_integer(a) and _is_integer(b) else a / b


def quotient_of_signals(a: float | jax.Array, b: float | jax.Array) -> float | jax.Array:
    """a / b, and no NaN where both have become infinite."""
    return _bare_quotient(a, b) if _is_integer(a) and _is_integer(b) else quotient(a, b)


quotient_of_signals.where_finite = by_side(promoting(_bare_quotient))  # type: ignore[attr-defined]


def _power(a: float | jax.Array, b: float | jax.Array) -> float | jax.Array:
    # To an integer array that is known, outside jit, jax compiles a power of its own at each step.
    if isinstance(b, jax.Array) and _is_integer(b) and not _is_integer(a):
        b = b.astype(float if isinstance(a, float) else a.real.dtype)
    if not isinstance(a, jax.Array) or not _is_inexact(a) or isinstance(b, int) or _is_integer(b):
        return a**b
    # A root's derivative at 0 is infinite; here it is 0, as that of `roots.root`.
    zero = a == 0
    at_zero = jax.lax.stop_gradient(a) ** b
    return jnp.where(zero, at_zero, jnp.where(zero, jnp.ones_like(a), a) ** b)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) or getattr(getattr(value, "dtype", None), "kind", "f") in "iu"


def _is_inexact(value: object) -> bool:
    return jnp.issubdtype(getattr(value, "dtype", int), jnp.inexact)


def leafwise(fn: Callable[..., Any], label: str, *args: Any) -> Signal:
    """A node that applies `fn` leaf by leaf."""
    return Function(fn, args, label)


def check_arithmetic(label: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Raises FlowError for None and for lists, which arithmetic has no use for."""
    if any(value is None or isinstance(value, list | tuple) for value in args):
        allowed = (Signal, Callable)
        check_operands(label, fn, args, allowed, vectors=False)  # type: ignore[arg-type]


def elementwise(fn: Callable[..., Any], label: str, *args: Any) -> Signal:
    """A node that applies `fn` leaf by leaf, and side by side where a leaf has several."""
    check_arithmetic(label, fn, args)
    return leafwise(by_side(promoting(fn)), label, *args)
