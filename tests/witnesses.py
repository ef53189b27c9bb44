"""Whether the tests that `at_rest.json` names do move the arguments that they stand for.

    python tests/witnesses.py              # all: lists the arguments that no named test moves
    python tests/witnesses.py zo_ rsgd     # those of functions whose name begins so

A test moves an argument that takes a value, while it runs, which no recorded run has.
"""

import functools
import inspect
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent


class Spy:
    """Keeps what functions are called with, by the file of the test that runs."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str, str], set[str]] = defaultdict(set)

    def pytest_configure(self) -> None:
        from gradchain import schedules
        from gradchain.transforms.notation.arguments import Argument

        check = Argument.check

        def spied(argument: Argument, label: str, value: Any) -> None:
            self._keep(label, argument.name, value)
            check(argument, label, value)

        Argument.check = spied  # type: ignore[method-assign]
        for name, schedule in inspect.getmembers(schedules, inspect.isfunction):
            setattr(schedules, name, self._watched(schedule))

    def _watched(self, schedule: Callable[..., Any]) -> Callable[..., Any]:
        """A schedule, whose arguments have no annotations that check them."""
        signature = inspect.signature(schedule)

        @functools.wraps(schedule)
        def watched(*args: Any, **kwargs: Any) -> Any:
            for name, value in signature.bind(*args, **kwargs).arguments.items():
                self._keep(schedule.__name__, name, value)
            return schedule(*args, **kwargs)

        return watched

    def _keep(self, label: str, name: str, value: Any) -> None:
        running = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
        key = running.removeprefix("tests/"), label, name
        self.seen[key].add(json.dumps(value, default=str))


def at_rest_in_runs(api: str, argument: str) -> set[str]:
    """The values of an argument in the recorded runs of its function."""
    import noticing
    import replay

    default = inspect.signature(replay.public(api)).parameters[argument].default
    runs = [replay.description(path) for path in noticing.RECORDS]
    given = [meta["kwargs"] for meta in runs if meta.get("api") == api]
    return {json.dumps(kwargs.get(argument, default), default=str) for kwargs in given}


def unmoved(prefixes: tuple[str, ...]) -> list[str]:
    """The entries of the list that the tests named there leave at rest as well."""
    table = json.loads((TESTS / "at_rest.json").read_text())
    entries = {entry: why for entry, why in table.items() if entry.startswith(prefixes)}
    files = {entry: re.findall(r"[\w/]*test_\w+\.py", why) for entry, why in entries.items()}
    spy = Spy()
    named = sorted({str(TESTS / name) for names in files.values() for name in names})
    pytest.main([*named, "-q", "--rootdir", str(TESTS.parent)], plugins=[spy])
    return [
        entry
        for entry, names in files.items()
        if not _moved(spy, names, *entry.split(": ")) - at_rest_in_runs(*entry.split(": "))
    ]


def _moved(spy: Spy, files: list[str], api: str, argument: str) -> set[str]:
    labels = api, f"scale_by_{api}"
    return {v for name in files for label in labels for v in spy.seen[name, label, argument]}


if __name__ == "__main__":
    found = unmoved(tuple(sys.argv[1:]) or ("",))
    sys.exit("\n".join(["at rest in the tests, too:", *found]) if found else 0)
