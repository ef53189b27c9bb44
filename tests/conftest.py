"""Settings of the whole suite."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    " --xla_force_host_platform_device_count=8"
)

from pathlib import Path

import pytest

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the catalogue's tests of one method on one worker, to share what they compile."""
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")
        if "catalogue" in item.path.parts and isinstance(name, str):
            item.add_marker(pytest.mark.xdist_group(name))
