"""Which arguments a recorded run notices: each is changed by one per cent, integers by one.

A record that is followed whatever an argument is says nothing about it. For every argument of
every method the runs are asked in turn until one of them departs from its record:

    python tests/noticing.py             # all methods: lists what no run notices
    python tests/noticing.py psgd sgd    # those whose name begins so

Numbers are traced, so that a run is compiled once for all of them. An argument that is 0, None, a
switch or a name is left alone.
"""

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import replay

TRAINED = [kind for kind, run in replay.KINDS.items() if run is replay._training]


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


def noticed(record: replay.Record, names: list[str]) -> Iterator[tuple[str, bool]]:
    """Whether the replay departs from the record when each of the arguments is changed."""
    values = arguments(record)
    wanted = {name: changed(values[name]) for name in names if name in values}
    floats = [name for name, value in wanted.items() if isinstance(value, float)]
    try:
        run = _traced(record, floats)
        run(values)
    except Exception:  # some number of this run has to be known: one program for each of them
        run = lambda now: _run(record, {n: now[n] for n in wanted if now[n] != values[n]})  # noqa: E731
    for name, value in wanted.items():
        now = {**values, name: value}
        try:
            got = run(now) if name in floats else _run(record, {name: value})
        except (ValueError, TypeError):
            yield name, True  # not an allowed value for this run
        else:
            yield name, any(replay.deviations(record, got))


def _run(record: replay.Record, kwargs: dict[str, Any]) -> dict[str, Any]:
    return replay.replay(dataclasses.replace(record, kwargs={**record.kwargs, **kwargs}))


def _traced(record: replay.Record, floats: list[str]) -> Any:
    def outcome(numbers: dict[str, Any]) -> Any:
        traced = dataclasses.replace(record, kwargs={**record.kwargs, **numbers})
        return replay.KINDS[record.kind](traced, None)

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


def recorded() -> list[str]:
    """The methods with recorded runs, by the names of the files."""
    return sorted({name.partition("__")[0] for name in replay.collect()})


def by_api(method: str) -> dict[str, list[replay.Record]]:
    """The recorded runs of a method, by the function that was run."""
    found: dict[str, list[replay.Record]] = {}
    for path in sorted(replay.REFERENCES.glob(f"{method}__*.npz")):
        record = replay.load(path)
        if record.kind in TRAINED:
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
