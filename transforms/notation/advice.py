"""What to do where a signal was taken for an array."""

import re
from typing import TypeGuard

from . import functions
from .errors import FlowError, SignalError
from .signal import Signal
from .source import Call, failed_calls, site_of

INSTEAD = {
    "sum": "leaf_sum(g) or global_sum(g)",
    "mean": "leaf_mean(g) or global_mean(g)",
    "max": "maximum(a, b), leaf_max(g) or global_max(g)",
    "amax": "leaf_max(g) or global_max(g)",
    "min": "minimum(a, b)",
    "norm": "leaf_norm(g) or global_norm(g)",
    "dot": "leaf_dot(a, b) or global_dot(a, b)",
    "vdot": "leaf_dot(a, b) or global_dot(a, b)",
    "tree_norm": "global_norm(g)",
    "len": "leaf_size(g) or global_size(g)",
    "power": "a ** b",
    "abs": "abs(g)",
    "map": "lift(fn)(g): what is done to a signal is done leaf by leaf",
    "tree_map": "lift(fn)(g): what is done to a signal is done leaf by leaf",
    "asarray": "the signal as it is, lift(fn)(g) for a function of arrays",
    "array": "the signal as it is, lift(fn)(g) for a function of arrays",
    "cond": "g >> either(condition, a, b), or where(condition, a, b)",
}
"""Function of arrays -> what of `gradchain.transforms` stands for it, where names differ."""


_WRONG_CALL = re.compile(r"\(\) (missing|takes|got) |; its arguments are ")
"""Python's messages, and ours, about calls with too few, too many or unknown arguments."""


def explained(label: str, error: Exception) -> FlowError | None:
    """The error of a step, with what to write instead; None for one that signals have no part in.

    Args:
      label: the flow's name.
      error: what the step raised.
    """
    if isinstance(error, FlowError) and not isinstance(error, SignalError):
        return None
    if not isinstance(error, TypeError | AttributeError):
        return None
    failed = f"{label}: the step failed while it was built: {error}"
    if _WRONG_CALL.search(str(error)):
        return FlowError(failed)
    innermost, *others = failed_calls(error.__traceback__) or [None]
    around = "".join(f", or lift({c.function}) around it" for c in others if _is_of_arrays(c))
    if innermost is not None and _is_of_arrays(innermost):
        return FlowError(f"{label}: {_instead_of(innermost)}{around}")
    if isinstance(error, SignalError):
        return FlowError(f"{label}: {error}{around}{_at(error)}")
    if not isinstance(error, TypeError):
        return None
    return FlowError(
        f"{failed}{_at(error)}. Inside a step use the functions of gradchain.transforms, "
        "or lift(fn) for your own"
    )


def _at(error: Exception) -> str:
    """The user's line that an error came out of, in parentheses."""
    site = site_of(error.__traceback__)
    return f" ({site})" if site else ""


def _is_of_arrays(call: Call | None) -> TypeGuard[Call]:
    """Whether a signal was handed to something that does not know signals."""
    if call is None or hasattr(call.called, "receive"):
        return False
    return any(isinstance(value, Signal) for value in call.arguments)


def _instead_of(call: Call) -> str:
    name = call.function.rsplit(".", 1)[-1]
    if name in INSTEAD:
        instead = INSTEAD[name]
    elif _stands_for_itself(name):
        instead = f"{name} of gradchain.transforms"
    else:
        instead = f"lift({call.function})"
    return (
        f"`{call.text}` ({call.site}) is a function of arrays that was given a signal, which has "
        f"no value while the flow is built: use {instead}"
    )


def _stands_for_itself(name: str) -> bool:
    """Whether there is a function of signals of that name."""
    found = getattr(functions, name, None)
    return hasattr(found, "receive") or getattr(found, "__module__", "") == functions.__name__
