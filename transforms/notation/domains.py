"""What the values of a hyper-parameter must fulfil: the metadata of the types."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from .signal import Signal


@runtime_checkable
class Domain(Protocol):
    """What an argument may be."""

    def problem(self, value: object) -> str | None:
        """What is wrong with a value, as the end of a sentence about it; None: nothing."""


@dataclass(frozen=True)
class Interval:
    """The allowed values of a number.

    Attributes:
      low, high: the ends.
      low_open, high_open: the end itself is not allowed.
      integer: whole numbers only.
    """

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False
    integer: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and not (self.integer and value % 1 != 0)

    def __str__(self) -> str:
        endless = [self.integer and math.isinf(end) for end in (self.low, self.high)]
        left = "(" if self.low_open or endless[0] else "["
        right = ")" if self.high_open or endless[1] else "]"
        kind = "an integer in " if self.integer else "in "
        return f"{kind}{left}{self.low:g}, {self.high:g}{right}"

    def problem(self, value: object) -> str | None:
        """See `Domain`; signals and traced arrays may be anything."""
        if isinstance(value, Signal):
            return None
        if isinstance(value, jax.Array | np.ndarray):
            if value.ndim > 0:
                return f"of shape {value.shape} must be a number {self}"
            if isinstance(value, jax.core.Tracer):
                return None
        hint = ""
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            if jnp.issubdtype(value.dtype, jnp.floating) and jnp.finfo(value.dtype).bits < 32:
                hint = f" (in {value.dtype}; gradchain.inject_hyperparams keeps the precision)"
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"must be {self}" if self.integer else f"must be a number {self}"
        if math.isnan(value) or value not in self:
            return f"is out of range; it must be {self}{hint}"
        return None


@dataclass(frozen=True)
class Neutral:
    """Which number leaves its part out, with the part's state; it is 0 where nothing is said."""

    value: float

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        return None


@dataclass(frozen=True)
class Static:
    """A number that sets shapes or the length of loops, so that it is never an array."""

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        if not isinstance(value, jax.Array | Signal):
            return None
        return (
            "sets a size and must be a Python int, not an array; inject with "
            "gradchain.inject_hyperparams, or name it in static_args"
        )


@dataclass(frozen=True)
class Switch:
    """A truth value; "no" would count as true."""

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        allowed = isinstance(value, bool | np.bool_ | Signal) or _is_truth(value)
        return None if allowed else "must be True or False"


@dataclass(frozen=True)
class Choice:
    """One of several words.

    Attributes:
      choices: the words.
    """

    choices: tuple[object, ...]

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        # an array would be compared entry by entry
        is_word = isinstance(value, str | int | float | np.generic)
        if any(value is choice or (is_word and value == choice) for choice in self.choices):
            return None
        return f"is not one of {', '.join(map(repr, self.choices))}"


@dataclass(frozen=True)
class Keys:
    """A seed or a key."""

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        if isinstance(value, bool | float | str | np.floating):
            return "must be an integer seed or a key of jax.random"
        dtype = getattr(value, "dtype", None)
        if dtype is not None and jnp.issubdtype(dtype, jnp.inexact):
            return "is an array of floats; it must be an integer seed or a key of jax.random"
        is_one = dtype is not None or isinstance(value, int | Signal) or value is None
        return None if is_one else "must be an integer seed or a key of jax.random"


@dataclass(frozen=True)
class DTypes:
    """A dtype of JAX's.

    Attributes:
      inexact: one of numbers with fractions.
    """

    inexact: bool = True

    def problem(self, value: Any) -> str | None:
        """See `Domain`."""
        kinds = (jnp.inexact,) if self.inexact else (jnp.number, jnp.bool_)
        try:
            is_one = any(jnp.issubdtype(jnp.dtype(value), kind) for kind in kinds)
        except (TypeError, ValueError):
            is_one = False
        is_one &= not isinstance(value, jax.Array | np.ndarray | np.generic)  # has one, is none
        wanted = "a floating-point or complex dtype, or None" if self.inexact else "a dtype"
        return None if is_one else f"must be {wanted}"


@dataclass(frozen=True)
class Masks:
    """What selects leaves."""

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        if isinstance(value, str):
            return "must be a tree of booleans or a function of the params"
        if isinstance(value, bool | np.bool_) or callable(value):
            return None
        if not _is_number(value):
            are_flags = all(map(is_flag, jax.tree.leaves(value)))
            return None if are_flags else "must be a tree of booleans or a function of the params"
        return (
            "is a number; a mask is a tree of booleans or a function of the params. "
            "optax.inject_hyperparams takes a function for a schedule: inject with "
            "gradchain.inject_hyperparams, or name the mask in static_args"
        )


def is_flag(value: object) -> bool:
    """Whether it is one truth value, maybe as an array."""
    is_boolean = getattr(value, "dtype", None) == jnp.bool_ and getattr(value, "ndim", 0) == 0
    return isinstance(value, bool | np.bool_) or is_boolean


@dataclass(frozen=True)
class Dimensions:
    """Integers for leaves of each number of dimensions; keys are text where a file gives them."""

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        hint = "map numbers of dimensions to integers or lists of them, as {2: [0], 4: [0, 1]}"
        if not isinstance(value, Mapping):
            return f"must {hint}"
        for key, given in value.items():
            if not (str(key).isdecimal() and isinstance(key, int | np.integer | str)):
                return f"has the key {key!r}; it must {hint}"
            listed = isinstance(given, Sequence) and not isinstance(given, str)
            integers = given if listed else (given,)
            if any(isinstance(x, bool) or not isinstance(x, int | np.integer) for x in integers):
                return f"has {given!r} for {key!r}; it must {hint}"
        return None


@dataclass(frozen=True)
class Functions:
    """A function that is handed in."""

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        if callable(value):
            return None
        hint = "; gradchain.inject_hyperparams leaves functions what they are"
        return f"must be a function{hint if _is_number(value) else ''}"


@dataclass(frozen=True)
class Words:
    """A string."""

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        return None if isinstance(value, str) else "must be a string"


@dataclass(frozen=True)
class Arrays:
    """An array, traced or not."""

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        return None if hasattr(value, "shape") or isinstance(value, Signal) else "must be an array"


@dataclass(frozen=True)
class Numerical:
    """A number, or an array of them.

    Attributes:
      listed: an array may be written as a list or a tuple.
    """

    listed: bool = False

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        if self.listed and isinstance(value, list | tuple):
            return next(filter(None, map(self.problem, value)), None)
        return None if _is_numerical(value) else "must be a number or an array"


@dataclass(frozen=True)
class Trees:
    """A tree of arrays, which may be abstract; one of them, or a number, is one.

    What has leaves is taken: those that are no arrays are carried along.
    """

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        is_leaf = jax.tree_util.all_leaves([value])
        is_one = _is_numerical(value) and not isinstance(value, Signal)
        return None if is_one or (not is_leaf and value is not None) else "must be a tree of arrays"


@dataclass(frozen=True)
class Instances:
    """What belongs to a class.

    Attributes:
      kind: the class.
    """

    kind: type

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        return None if isinstance(value, self.kind) else f"must be a {self.kind.__name__}"


@dataclass(frozen=True)
class Having:
    """What has the methods of a protocol.

    Attributes:
      methods: their names.
    """

    methods: tuple[str, ...]

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        missing = [name for name in self.methods if not hasattr(value, name)]
        return f"must have {', '.join(missing)}" if missing else None


@dataclass(frozen=True)
class Transformations:
    """A gradient transformation."""

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        is_one = hasattr(value, "init") and hasattr(value, "update")
        return None if is_one else "must be a gradient transformation (init and update)"


class Member(Protocol):
    """What is known of one of several values."""

    def problem(self, value: object) -> str | None:
        """See `Domain`."""


@dataclass(frozen=True)
class Places:
    """So many values, each with a meaning of its own.

    Attributes:
      members: what is known of each.
    """

    members: tuple[Member, ...]

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        if not isinstance(value, tuple | list) or len(value) != len(self.members):
            return f"must be a tuple of {len(self.members)}"
        return _first_problem(zip(range(len(value)), self.members, value, strict=True))


@dataclass(frozen=True)
class Sequences:
    """Values of one kind, however many; an array will do.

    Attributes:
      member: what is known of each.
      ordered: whether a set is none.
    """

    member: Member
    ordered: bool = True

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        if isinstance(value, tuple | list):
            return _first_problem((i, self.member, x) for i, x in enumerate(value))
        if len(getattr(value, "shape", ())) == 1:
            problems = [self.member.problem(number) for number in NUMBERS]
            return f"has numbers, each of which {problems[0]}" if all(problems) else None
        kind = Sequence if self.ordered else Iterable
        is_one = isinstance(value, kind) or len(getattr(value, "shape", ())) > 0
        return (
            "must be a sequence" if isinstance(value, str | bytes | Signal) or not is_one else None
        )


NUMBERS = (1, 0, 2, -1, 0.5, np.ones(()))
"""Of which an argument that takes numbers takes one; entries of arrays may be traced."""


@dataclass(frozen=True)
class Mappings:
    """Values of one kind by name.

    Attributes:
      member: what is known of each.
    """

    member: Member

    def problem(self, value: object) -> str | None:
        """See `Domain`."""
        if not isinstance(value, Mapping):
            return "must be a mapping"
        return _first_problem((key, self.member, x) for key, x in value.items())


def _first_problem(entries: Iterable[tuple[object, Member, object]]) -> str | None:
    found = ((at, x, member.problem(x)) for at, member, x in entries)
    return next(
        (f"has {x!r} at {at!r}, which {problem}" for at, x, problem in found if problem), None
    )


@dataclass(frozen=True)
class AnyOf:
    """One of several kinds.

    Attributes:
      alternatives: the domains of each, all of which must be satisfied.
    """

    alternatives: tuple[tuple[Domain, ...], ...]

    def problem(self, value: object) -> str | None:
        """See `Domain`; what is of one of the kinds is told what that allows."""
        problems = []
        for domains in self.alternatives:
            found = next(filter(None, (domain.problem(value) for domain in domains)), None)
            if found is None:
                return None
            problems.append(found)
        others = [problem for problem in problems if not problem.startswith(MUST_BE)]
        kinds = dict.fromkeys(problem.removeprefix(MUST_BE) for problem in problems)
        return others[0] if others else MUST_BE + " or ".join(kinds)


MUST_BE = "must be "


def _is_truth(value: object) -> bool:
    """Whether it is an array of one truth value, which may be traced."""
    return isinstance(value, jax.Array) and value.shape == () and value.dtype == bool


def _holds_others(value: object) -> bool:
    """Whether it is NumPy's, of text, dates or objects."""
    return isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "OSUMm"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | jax.Array | np.ndarray | np.generic | Signal)


def _is_numerical(value: object) -> bool:
    is_one = _is_number(value) or isinstance(value, complex) or hasattr(value, "shape")
    return is_one and not _holds_others(value)
