"""Which arguments a recorded run notices: each is changed by one per cent, integers by one.

A record that is followed whatever an argument is says nothing about it. For every argument of
every function the runs are asked in turn until one of them departs from its record:

    python tests/noticing.py             # all methods: lists what no run notices
    python tests/noticing.py psgd sgd    # those whose name begins so

Numbers are traced, so that a run is compiled once for all of them. An argument that is 0, None, a
switch or a name is left alone here; `at_rest` lists those that stand so in every run.
"""

import dataclasses
import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any

import gradchain
import jax
import numpy as np
import replay
from gradchain.transforms.notation.arguments import Argument, arguments_of
from gradchain.transforms.notation.domains import Interval, Switch

RECORDS = [
    *(replay.REFERENCES / name for name in replay.collect()),
    *sorted((replay.REFERENCES / "schedules").glob("*.npz")),
]
SCHEDULES = [getattr(gradchain.schedules, name) for name in gradchain.schedules.__all__]


def arguments(record: replay.Record) -> dict[str, Any]:
    """The numeric arguments of a recorded run, defaults included."""
    parameters = inspect.signature(replay.public(record.api)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    given = {**defaults, **record.kwargs}
    given.pop("key", None)  # draws are recorded
    return {name: value for name, value in given.items() if _is_numeric(value)}


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_numeric, value)) and any(value)
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(value)


def changed(value: Any) -> Any:
    """One per cent more, or one more."""
    if isinstance(value, list):
        return [1.01 * v for v in value] if isinstance(value[0], float) else [v + 1 for v in value]
    if isinstance(value, int):
        return value + 1
    # decays, fractions and probabilities leave their range by a per cent more
    return 1.01 * value if not 0.9 < value <= 1 else 0.99 * value


def changed_back(value: Any) -> Any:
    """The other way, where a run does not allow one more."""
    if isinstance(value, list):
        return [0.99 * v for v in value] if isinstance(value[0], float) else [v - 1 for v in value]
    return value - 1 if isinstance(value, int) else 2 * value - changed(value)


def noticed(record: replay.Record, names: list[str]) -> Iterator[tuple[str, bool]]:
    """Whether the replay departs from the record when each of the arguments is changed."""
    values = arguments(record)
    wanted = [name for name in names if name in values]
    floats = [name for name in wanted if isinstance(values[name], float)]
    try:
        run = _traced(record, floats)
        run(values)
    except Exception:  # some number of this run has to be known: one program for each of them
        run = None
    for name in wanted:
        yield name, _departs(record, run if name in floats else None, name, values)


def _departs(record: replay.Record, run: Any, name: str, values: dict[str, Any]) -> bool:
    for value in (changed(values[name]), changed_back(values[name])):
        try:
            now = run({**values, name: value}) if run else _run(record, {name: value})
            return any(replay.deviations(record, now))
        except (ValueError, TypeError, IndexError, AssertionError):
            continue
    return True  # the shapes of the run leave it no other value


def _run(record: replay.Record, kwargs: dict[str, Any]) -> dict[str, Any]:
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _outcome(record, kwargs))


def _outcome(record: replay.Record, kwargs: dict[str, Any]) -> dict[str, Any]:
    now = dataclasses.replace(record, kwargs={**record.kwargs, **kwargs})
    factory = replay.public(record.api)
    if factory in SCHEDULES:
        return _values(now, factory)
    return replay.KINDS[record.kind](now, None)


def _values(record: replay.Record, factory: Any) -> dict[str, Any]:
    """What a recorded schedule, or law of schedules, is at the recorded steps."""
    groups = {name: x for name, x in record.constants.items() if name.startswith("problem/")}
    problem = {name.removeprefix("problem/"): x for name, x in groups.items()}
    made = factory(**problem, **record.kwargs)
    if record.kind == "law":
        return {name: getattr(made, name, made) for name in replay.expected(record)}
    schedule = made if callable(made) else gradchain.schedules.as_schedule(made)
    return {"values": jax.vmap(schedule)(record.constants["steps"])}


def _traced(record: replay.Record, floats: list[str]) -> Any:
    def outcome(numbers: dict[str, Any]) -> Any:
        return _outcome(record, numbers)

    compiled = jax.jit(outcome)

    def run(now: dict[str, Any]) -> dict[str, Any]:
        with jax.enable_x64(True):
            numbers = {name: np.float64(now[name]) for name in floats}
            return jax.tree.map(np.asarray, compiled(numbers))

    return run


def unnoticed(api: str, records: list[replay.Record]) -> list[str]:
    """The arguments of a function that none of its recorded runs notices."""
    left = list(dict.fromkeys(name for record in records for name in arguments(record)))
    for record in records:
        found = dict(noticed(record, left))
        left = [name for name in left if not found.get(name, False)]
    return [f"{api}: {name}" for name in left]


def at_rest() -> list[str]:
    """Numbers that are 0 or None, and switches in one position, in all runs of their function."""
    seen: dict[tuple[str, str], set[Any]] = {}
    for path in RECORDS:
        meta = replay.description(path)
        if meta["kind"] == "manifold_ops":
            continue
        factory = replay.public(meta["api"])
        for name, parameter in inspect.signature(factory).parameters.items():
            if _moves(arguments_of(factory)[name]):
                value = meta["kwargs"].get(name, parameter.default)
                seen.setdefault((meta["api"], name), set()).add(json.dumps(value, default=str))
    rests = ({"null", "0", "0.0", "false"}, {"true"})
    return [
        f"{api}: {name}"
        for (api, name), values in seen.items()
        if values in rests or values <= rests[0]
    ]


def _moves(argument: Argument) -> bool:
    return any(isinstance(domain, Interval | Switch) for domain in argument.domains)


def recorded() -> list[str]:
    """The methods with recorded runs, by the names of the files."""
    return sorted({path.name.partition("__")[0] for path in RECORDS})


def by_api(method: str) -> dict[str, list[replay.Record]]:
    """The recorded runs of a method, by the function that was run."""
    found: dict[str, list[replay.Record]] = {}
    for path in RECORDS:
        if path.name.partition("__")[0] == method:
            record = replay.load(path)
            if record.kind != "manifold_ops":  # a room of functions, not one
                found.setdefault(record.api, []).append(record)
    return found


if __name__ == "__main__":
    import compilation

    compilation.set_environment()
    prefixes = tuple(sys.argv[1:]) or ""
    for method in recorded():
        if method.startswith(prefixes):
            for api, records in by_api(method).items():
                for line in unnoticed(api, records) or [f"{api}: all noticed"]:
                    print(line, flush=True)
