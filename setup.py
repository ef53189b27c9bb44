"""Names the packages: the repository root is `gradchain`, its folders are the subpackages."""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = find_packages(include=["transforms*", "optimizers*", "schedules*", "layers*"])


class WithoutThisFile(build_py):  # type: ignore[misc]  # setuptools has no types
    """Builds the package at the root without the script that lies there."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if module[1] != "setup"]


setup(
    packages=["gradchain", *(f"gradchain.{folder}" for folder in FOLDERS)],
    cmdclass={"build_py": WithoutThisFile},
)
