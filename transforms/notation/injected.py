"""Whether arrays among the hyper-parameters are known to be the same at every step."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_constant: ContextVar[bool] = ContextVar("gradchain_arrays_are_constant", default=False)


@contextmanager
def constant_arrays() -> Iterator[None]:
    """Within it, arrays given to factories are numbers that do not follow a schedule."""
    token = _constant.set(True)
    try:
        yield
    finally:
        _constant.reset(token)


def arrays_are_constant() -> bool:
    """Whether an array stays what it is at other steps, as far as anybody has said."""
    return _constant.get()
