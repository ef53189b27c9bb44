"""Errors that name the method and the node."""


class FlowError(ValueError, TypeError):
    """Something is wrong in a flow: the message names the method, the node and what is wrong.

    It is a ValueError and a TypeError, as the fault may be either and is often both.
    """


class SignalError(FlowError):
    """A signal was taken for an array."""


class MissingAttributeError(SignalError, AttributeError):
    """A signal was asked for what only an array has."""
