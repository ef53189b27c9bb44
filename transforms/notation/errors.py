"""Errors that name the method and the node."""


class FlowError(ValueError, TypeError):
    """Something is wrong in a flow: the message names the method, the node and what is wrong.

    It is a ValueError and a TypeError, as the fault may be either and is often both.
    """


class SignalError(FlowError):
    """A signal was taken for an array."""


_SHAPES = "lift(lambda x: ...)(g), in which x is an array"
ATTRIBUTES = {
    "shape": _SHAPES,
    "ndim": _SHAPES,
    "dtype": _SHAPES,
    "size": "leaf_size(g) or global_size(g)",
    "sum": "leaf_sum(g) or global_sum(g)",
    "mean": "leaf_mean(g) or global_mean(g)",
    "max": "leaf_max(g) or global_max(g)",
    "dot": "a @ b, leaf_dot(a, b) or global_dot(a, b)",
    "transpose": "transpose(g) or g.T",
    "mT": "g.T",
}
"""What an array has and a signal has not -> what to use instead."""


class MissingAttributeError(SignalError, AttributeError):
    """A signal was asked for what only an array has."""

    @classmethod
    def of(cls, label: str, name: str) -> "MissingAttributeError":
        """The error for a signal and an attribute."""
        instead = ATTRIBUTES.get(name, f"lift(lambda x: x.{name} ...)")
        return cls(
            f"`{label}` is a signal and has no `{name}` while the flow is built: use {instead}"
        )
