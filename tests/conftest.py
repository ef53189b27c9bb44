"""Settings of the whole suite."""

from collections.abc import Iterator
from pathlib import Path

import compilation
import pytest

compilation.set_environment()
compilation.collect_garbage_seldom()

ROOT = Path(__file__).parent.parent


class PlainRoot:
    """Collects the repository root as a plain directory.

    The root is the package `gradchain` itself: left alone, pytest would import its `__init__.py`
    a second time under the name of the checkout's folder.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(
        self, path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(PlainRoot())


def pytest_collection_finish() -> None:
    compilation.write_down_what_took_long()
    compilation.pass_over_what_stands()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Forgets compiled programs, best between two methods or files, where they fill the memory."""
    result = yield
    if nextitem is not None:
        together = _group(item) == _group(nextitem)
        compilation.forget_if_large(compilation.MUCH if together else 1.0)
    return result


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    return marker.args[0] if marker else _method(item) or item.path.relative_to(ROOT).as_posix()


def _method(item: pytest.Item) -> str | None:
    """The name of the method that a test of the catalogue is about."""
    name = getattr(item, "callspec", None) and item.callspec.params.get("name")
    return name if "catalogue" in item.path.parts and isinstance(name, str) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Brings the tests of a method in the catalogue, or of a file, into one process.

    They share what they compile, and their fixtures. The methods come last, one by one: small
    groups, which end at the same time in all processes.
    """
    first: dict[str, int] = {}
    for item in items:
        group = _group(item)
        first.setdefault(group, len(first) + len(items) * (group == _method(item)))
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: first[_group(item)])


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for a test, by `pytestmark = pytest.mark.usefixtures("x64")`."""
    import jax  # after the environment is set

    with jax.enable_x64(True):
        yield
