"""In which dtype the moments of a method are stored: `mu_dtype` and `nu_dtype`."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from jax.typing import DTypeLike

from .scope import Scope

FIRST_MOMENTS = frozenset(
    {
        "mu",
        "m1",
        "m2",
        "trace",
        "momentum",
        "velocity",
        "displacement",
        "delta",
        "real",
        "imaginary",
        "exp_avg",
        "last",
        "before_last",
        "utility",
    }
)
"""Names of states that average or sum gradients."""

SECOND_MOMENTS = frozenset(
    {
        "nu",
        "nu_max",
        "nu_mean",
        "nu_root",
        "hessian",
        "fim",
        "v",
        "v_row",
        "v_col",
        "exp_avg_sq",
        "sum_of_squares",
        "grad_sum_sq",
        "accumulators",
    }
)
"""Names of states that average or sum squares or curvature."""

KNOWN = FIRST_MOMENTS | SECOND_MOMENTS


class _Storage(NamedTuple):
    """What the factory that is running was told: dtypes of first and second moments, or None."""

    mu_dtype: DTypeLike | None
    nu_dtype: DTypeLike | None


_storage: ContextVar[_Storage | None] = ContextVar("gradchain_storage", default=None)


@contextmanager
def storing(mu_dtype: DTypeLike | None, nu_dtype: DTypeLike | None) -> Iterator[None]:
    """Within it, delays that are named as moments are stored in these dtypes.

    A factory that was not told leaves it to the one around it.

    Args:
      mu_dtype: of first moments, None for the usual one.
      nu_dtype: of second moments.
    """
    around = _storage.get()
    if around is not None:
        mu_dtype = around.mu_dtype if mu_dtype is None else mu_dtype
        nu_dtype = around.nu_dtype if nu_dtype is None else nu_dtype
    token = _storage.set(_Storage(mu_dtype, nu_dtype))
    try:
        yield
    finally:
        _storage.reset(token)


def stored_as(
    dtype: DTypeLike | None, hint: str, explicit: bool, scope: Scope | None
) -> DTypeLike | None:
    """The storage dtype of a delay: its own, or what the running factory was told.

    Args:
      dtype: its own, None if it has none.
      hint: its name.
      explicit: whether that was chosen.
      scope: where it belongs.
    """
    storage = _storage.get()
    if dtype is not None or storage is None:
        return dtype
    for name in _names(hint, explicit, scope):
        if name in FIRST_MOMENTS:
            return storage.mu_dtype
        if name in SECOND_MOMENTS:
            return storage.nu_dtype
    return None


def moment_name(hint: str, explicit: bool, scope: Scope | None) -> str:
    """Which moment a delay is by its name, empty if none; see `stored_as`."""
    return next((name for name in _names(hint, explicit, scope) if name in KNOWN), "")


def _names(hint: str, explicit: bool, scope: Scope | None) -> Iterator[str]:
    """What a delay, and the scopes around it, are called, from the inside out."""
    if explicit:
        yield hint
    while scope is not None:
        yield scope.hint
        scope = scope.parent
