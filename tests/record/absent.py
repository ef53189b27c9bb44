"""Packages that others import and that the runs here do not need."""

import sys
import types


def leave_out(name: str, **attributes: object) -> None:
    """Puts an empty module, with these attributes, in the place of a package and those above it."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        above = ".".join(parts[:end])
        sys.modules.setdefault(above, types.ModuleType(above))
    vars(sys.modules[name]).update(attributes)


def leave_out_transformers() -> None:
    """For GaLore and what descends from its code: a check of versions, and states in 8 bits."""
    leave_out("transformers.utils.versions", require_version=lambda *_: None)
    leave_out("bitsandbytes.functional")
    leave_out("bitsandbytes.optim.optimizer", Optimizer2State=object)
    sys.modules["bitsandbytes"].functional = sys.modules["bitsandbytes.functional"]
