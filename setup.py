"""Names the packages: the repository root is `gradchain`, its folders are the subpackages."""

from setuptools import find_packages, setup

FOLDERS = find_packages(include=["transforms*", "optimizers*", "schedules*", "layers*"])

setup(packages=["gradchain", *(f"gradchain.{folder}" for folder in FOLDERS)])
