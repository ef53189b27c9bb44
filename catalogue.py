"""All methods and schedules by name: the public face of the registry.

What tests, documentation and examples are driven by.
"""

import fnmatch

# Importing them is what fills the registry.
from . import optimizers as _optimizers  # noqa: F401
from . import schedules as _schedules  # noqa: F401
from .registry import METHODS, SCHEDULES, TAGS, Method, Schedule, get_method, get_schedule
from .transforms import checked

__all__ = [
    "METHODS",
    "SCHEDULES",
    "TAGS",
    "Method",
    "Schedule",
    "find",
    "get_method",
    "get_schedule",
]


@checked()
def find(pattern: str = "*") -> list[str]:
    """Names of the methods that fit a shell pattern, in alphabetical order.

    Looked at, without regard to case, are a method's name, family, kind and tags, the inputs that
    it needs, its paper and the paper's arXiv number.

    Args:
      pattern: as in a shell: `*` is anything, `?` one character, `[ab]` either of two.

    Example:
      >>> from gradchain import find
      >>> find("sophia*")
      ['sophia_g', 'sophia_h']
      >>> find("logits_fn")
      ['sophia_g']
      >>> find("2302.06675"), find("*symbolic discovery*")
      (['lion'], ['lion'])
      >>> "lion_k" in find("sign")
      True
    """
    wanted = pattern.lower()
    return sorted(
        name
        for name, entry in METHODS.items()
        if any(fnmatch.fnmatchcase(text.lower(), wanted) for text in _searched(entry))
    )


def _searched(entry: Method) -> tuple[str, ...]:
    facts = (entry.name, entry.family, entry.kind, entry.paper, entry.arxiv or "")
    return (*facts, *entry.tags, *entry.needs)
