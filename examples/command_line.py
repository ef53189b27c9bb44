"""What the command lines of the examples share; imports nothing heavy."""

import argparse
from typing import NoReturn

USAGE_ERROR = 2
"""Exit code of wrong arguments."""


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message}\n")


def positive(text: str) -> int:
    """An integer of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
