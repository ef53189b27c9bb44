"""What JAX's own extensions say; they bring in a compiler, so the package imports none of them."""

from typing import Any


def import_extensions() -> None:
    """Before anything is traced: JAX 0.12 traces a second time what it traced without them."""

    from . import alike  # noqa: F401


def trace_state() -> Any:
    """What tells the trace that is under way from every other."""
    from jax.extend.core import get_opaque_trace_state

    return get_opaque_trace_state()


def is_program(value: object) -> bool:
    """Whether it is a jaxpr, closed or not."""
    return hasattr(value, "eqns")


def is_literal(atom: object) -> bool:
    """Whether what an operation reads is a number that stands in the program."""
    return hasattr(atom, "val")
