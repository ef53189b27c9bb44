"""Hooks of `replay.py` for the zeroth-order methods: how they take the recorded draws.

Their samplers count from 1: the draws of the first step are asked for with count 1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

APIS = (
    "mezo",
    "zo_sgd",
    "zo_sgd_momentum",
    "zo_sign_sgd",
    "zo_sgd_conservative",
    "zo_adam",
    "zo_block_coordinate",
    "forward_gradient",
)


def _from_1(recorded: Any) -> Callable[..., Any]:
    table = jax.tree.map(jnp.asarray, recorded)
    return lambda key, count, params: jax.tree.map(lambda x: x[count - 1], table)


def _drawn(record: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    if record.api == "mezo":  # leaf b is named bias in the source, and does not decay
        arguments = {**arguments, "mask": {"w": True, "b": False, "s": True}}
    return {**arguments, "sampler": _from_1(record.series["draws"])}


def _sparse(record: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    return {**_drawn(record, arguments), "mask_fn": _from_1(record.series["masks"])}


def _annealed(record: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for name, values in record.series["draws"].items():
        part, leaf = name.split("/")
        parts.setdefault(part, {})[leaf] = values
    schedules = {
        name: (lambda count, table=record.constants[f"schedule/{name}"]: jnp.asarray(table)[count])
        for name in ("alpha", "b1", "b2")
    }
    return {**arguments, **schedules, "sampler": _from_1(parts)}


ARGUMENTS = {**dict.fromkeys(APIS, _drawn), "zo_sparse": _sparse, "zo_adamu": _annealed}
EXTRAS = {"project_onto_guess": lambda step: {"guess": step["guess"]}}
