"""Replays recorded federated runs: clients with gradients of their own, round by round."""

from collections.abc import Callable
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import numpy as np


def replayed(record: Any, factory: Callable[..., Any]) -> dict[str, Any]:
    """The server's params after each round."""
    start = jax.tree.map(lambda x: jnp.asarray(x[0]), record.series["params"])
    if record.api == "fedhyper_client_local":
        return {"params": one_round(record, factory, start)}
    rounds = record.steps
    participants, steps, started = tables(record, rounds)
    run = gradchain.federated.simulate(
        factory(**arguments_of(record)),
        start,
        gradient_of(record),
        participants,
        num_clients=len(record.series["problem"]["a/w"]),
        local_steps=steps,
        started=started,
        record=lambda params, state: params,
    )
    return {"params": run.recorded}


def one_round(record: Any, factory: Callable[..., Any], start: Any) -> Any:
    """The params of the only client after each of its steps."""
    opt, gradient = factory(**record.kwargs), gradient_of(record)
    change = {leaf: jnp.asarray(record.constants[f"global_update/{leaf}"]) for leaf in start}

    def step(carry: Any, k: Any) -> Any:
        params, state = carry
        g = gradient(params, 0, 0, k)
        updates, state = opt.update(g, state, params, global_update=change)
        params = jax.tree.map(jnp.add, params, updates)
        return (params, state), params

    return jax.lax.scan(step, (start, opt.init(start)), jnp.arange(record.steps))[1]


def arguments_of(record: Any) -> dict[str, Any]:
    """The recorded arguments; weights by the recorded scheme."""
    given = dict(record.kwargs)
    if record.api == "async_federated":
        weights = gradchain.optimizers.aggregation_weights(
            given.pop("scheme"),
            record.constants["importance"],
            record.constants["tau"],
            identical=given.pop("identical"),
        )
        given["weights"] = weights
    return given


def gradient_of(record: Any) -> Callable[..., Any]:
    """a x + b x^3 + c + xi (1 + x), with numbers of the client and a xi of round and step."""
    problem = jax.tree.map(jnp.asarray, record.series["problem"])
    noise = {k[6:]: jnp.asarray(x) for k, x in record.constants.items() if k.startswith("noise/")}

    def gradient(params: Any, client: Any, turn: Any, step: Any) -> Any:
        def of_leaf(leaf: str, x: Any) -> Any:
            a, b, c = (problem[f"{part}/{leaf}"][client] for part in "abc")
            xi = noise[leaf][turn, step, client] if noise else 0.0
            return a * x + b * x**3 + c + xi * (1 + x)

        return {leaf: of_leaf(leaf, x) for leaf, x in params.items()}

    return gradient


def tables(record: Any, rounds: int) -> tuple[Any, Any, Any]:
    """Participants, numbers of steps and versions to start from, one row a round."""
    if "schedule" in record.constants:
        schedule = record.constants["schedule"]
        everyone = np.broadcast_to(np.arange(schedule.shape[1]), schedule.shape)
        return np.where(schedule >= 0, everyone, -1), None, np.maximum(schedule, 0)
    if "participants" in record.series:
        there = record.series["participants"]
    else:
        rows = [record.constants[f"participants/{r}"] for r in range(1, rounds + 1)]
        widest = max(map(len, rows))
        there = np.stack([np.pad(r, (0, widest - len(r)), constant_values=-1) for r in rows])
    if "local_steps" not in record.constants:
        return there, None, None
    by_client = [record.constants[name] for name in ("local_steps", "start_version")]
    return there, *(np.take_along_axis(x, there, axis=1) for x in by_client)
