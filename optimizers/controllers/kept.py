"""What a controller is made with and where it stands, as a dictionary that JSON takes."""

from collections.abc import Mapping
from typing import Any, Self

from ...transforms import FlowError


class Kept:
    """Base of the controllers: `to_dict` and `from_dict`.

    Attributes:
      settings: the arguments it was made with, but for functions.
      state: where it stands: numbers, text, None, and lists of them.
    """

    settings: dict[str, Any]
    state: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Settings and state, for `json.dump`; the functions it was given are not in it."""
        return {"settings": dict(self.settings), "state": _copied(self.state)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **functions: Any) -> Self:
        """A controller that goes on where another stood.

        Args:
          values: what that one's `to_dict` gave.
          **functions: the functions that it was made with, by the names of the arguments.

        Raises:
          ValueError: for a dictionary that is no such controller's.
        """
        made = set(values) == {"settings", "state"} and cls(**functions, **values["settings"])
        if not made or set(made.state) != set(values["state"]):
            raise FlowError(f"{cls.__name__}.from_dict: not what to_dict gives: {dict(values)!r}")
        made.state = _copied(values["state"])
        return made


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copy(value) for name, value in state.items()}


def _copy(value: Any) -> Any:
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value
