"""Whether the tests that the lists name notice a change of the argument that they stand for.

    python tests/witnesses.py              # all: lists the arguments that no named test notices
    python tests/witnesses.py zo_ rsgd     # those of functions whose name begins so

`unnoticed.json` and `at_rest.json` name tests for the arguments that no recorded run notices, or
moves. These are run with the argument changed wherever its function is called: by one per cent,
integers by one, switches turned; values at which it rests in all runs are left alone. Some test has
to fail. What is rounded or decided by a threshold is changed by half at last, and listed as such.
"""

import contextlib
import functools
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import noticing
import pytest
import replay
from gradchain.transforms.notation import checks

TESTS = Path(__file__).parent
LISTS = ("unnoticed", "at_rest")
BY_HALF = "by half alone"

_inside: ContextVar[bool] = ContextVar("inside", default=False)


def changed(value: Any, how: str) -> Any:
    """Another value of an argument; the same where there is none."""
    if isinstance(value, bool):
        return not value
    if callable(value) and not isinstance(value, type):
        return lambda *args: 1.01 * value(*args)
    if not isinstance(value, int | float) or not value:
        return value
    if how == BY_HALF:
        return 1.5 * value if isinstance(value, float) else value + 2
    return (noticing.changed if how == "up" else noticing.changed_back)(value)


def change(function: Callable[..., Any], name: str, how: str, rests: set[str]) -> None:
    """Lets a decorated function see another value of an argument from now on."""
    cell = _cell_of(function)
    inner = cell.cell_contents
    signature = inspect.signature(inner)

    @functools.wraps(inner)
    def mutated(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        old = bound.arguments.get(name)
        if _inside.get() or json.dumps(old, default=str) in rests:
            return inner(*args, **kwargs)
        token = _inside.set(True)
        try:
            bound.arguments[name] = changed(old, how)
            with contextlib.suppress(Exception), _handing_on(name, bound.arguments[name]):
                return inner(*bound.args, **bound.kwargs)
            return inner(*args, **kwargs)  # it may have no other value
        finally:
            _inside.reset(token)

    if name in signature.parameters:
        cell.cell_contents = mutated


@contextlib.contextmanager
def _handing_on(name: str, value: Any) -> Iterator[None]:
    """What `handed_on` hands to a direction is changed, too."""
    given = checks._given.get()
    if given is None or name not in given:
        yield
        return
    old, given[name] = given[name], value
    try:
        yield
    except Exception:
        given[name] = old
        raise


def _cell_of(function: Callable[..., Any]) -> Any:
    """Where a decorator keeps what it decorates."""
    while True:
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        if found := cells.get("factory") or cells.get("function"):
            return found
        function = function.__wrapped__


class About:
    """Runs the tests that speak of a function, or all; remembers whether one failed."""

    def __init__(self, name: str) -> None:
        self.name, self.failed = name, False

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        spoken = [i for i in items if self.name in i.nodeid + inspect.getsource(i.function)]
        items[:] = spoken or items

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed


def fails(entry: str, files: list[str], how: str, rests: set[str], speaking: bool) -> bool:
    """Whether a test of the files fails, in a process of its own, where the argument is changed."""
    api, argument = entry.split(": ")
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for label in (api, f"scale_by_{api}"):
        with contextlib.suppress(LookupError):
            change(replay.public(label), argument, how, rests)
    about = About(api if speaking else "")
    paths = [str(TESTS / name) for name in files]
    chosen = ["-m", "by_hand or not by_hand", "-x", "-q", "--rootdir", str(TESTS.parent)]
    pytest.main([*paths, *chosen, "-p", "no:cacheprovider"], plugins=[about])
    os._exit(about.failed)


def at_rest_in_runs(api: str, argument: str) -> set[str]:
    """The values of an argument in the recorded runs of its function."""
    default = inspect.signature(replay.public(api)).parameters[argument].default
    runs = [replay.description(path) for path in noticing.RECORDS]
    given = [meta["kwargs"] for meta in runs if meta.get("api") == api]
    return {json.dumps(kwargs.get(argument, default), default=str) for kwargs in given}


def unnoticed(prefixes: tuple[str, ...]) -> Iterator[str]:
    """The entries of the lists of whose change no named test takes notice."""
    for name in LISTS:
        for entry, why in json.loads((TESTS / f"{name}.json").read_text()).items():
            files = re.findall(r"[\w/]*test_\w+\.py", why)
            if not files or not entry.startswith(prefixes):
                continue
            rests = at_rest_in_runs(*entry.split(": ")) if name == "at_rest" else {"null"}
            tries = [(how, speaking) for speaking in (True, False) for how in ("up", "down")]
            if any(fails(entry, files, how, rests, speaking) for how, speaking in tries):
                continue
            by_half = fails(entry, files, BY_HALF, rests, False)
            print(f"{entry}: {BY_HALF if by_half else 'unnoticed'}", flush=True)
            if not by_half:
                yield entry


if __name__ == "__main__":
    import compilation

    compilation.set_environment()
    found = list(unnoticed(tuple(sys.argv[1:]) or ("",)))
    sys.exit(f"unnoticed by the tests, too: {', '.join(found)}" if found else 0)
