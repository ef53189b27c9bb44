"""The list of all methods and schedules: what tests, documentation and examples are driven by.

A method enters by decorating its factory:

    @method("Kingma & Ba 2015, Adam: A Method for Stochastic Optimization", arxiv="1412.6980")
    def adam(learning_rate, b1=0.9, ...): ...

Everything that must hold of every method is then tested, documented and offered by name without
another line being written for it.
"""

import difflib
import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import optax

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Method:
    """One optimizer, gradient method or wrapper of the catalogue.

    Attributes:
      name: the factory's name, unique in the catalogue.
      factory: the public factory.
      paper: authors, year and title.
      arxiv: arXiv identifier, or None.
      family: the folder under `optimizers/` in which it lives.
      learning_rate: a rate at which it trains the small models of the tests and examples; None for
        a method that takes its rates in another form, as part of `sample`.
      sample: further arguments for those, where the defaults do not suit a small model.
      wraps: True when the first argument is an inner transformation; `build` then wraps Adam.
      complex_ok: False where the mathematics has no complex form.
      front: True for a transformation of gradients, without a learning rate, that stands in front
        of an optimizer; `build` then puts it in front of Adam.
    """

    name: str
    factory: Callable[..., optax.GradientTransformationExtraArgs]
    paper: str
    arxiv: str | None
    family: str
    learning_rate: float | None
    sample: Mapping[str, Any] = field(default_factory=dict)
    wraps: bool = False
    complex_ok: bool = True
    front: bool = False

    def build(
        self, learning_rate: optax.ScalarOrSchedule | None = None, **overrides: Any
    ) -> optax.GradientTransformationExtraArgs:
        """The method with its sample arguments, `overrides` replacing them.

        Args:
          learning_rate: rate or schedule; default the method's `learning_rate`.
          **overrides: arguments of the factory.
        """
        rate: Any = self.learning_rate if learning_rate is None else learning_rate
        arguments = {**self.sample, **overrides}
        if self.wraps or self.front:
            from .optimizers import adam
            from .transforms import chain

            inner = arguments.pop("inner", None) or adam(rate)
            if self.front:
                return chain(self.factory(**arguments), inner)
            return self.factory(inner, **arguments)
        return self.factory(**arguments) if rate is None else self.factory(rate, **arguments)


@dataclass(frozen=True)
class Schedule:
    """One schedule of the catalogue, or a law that gives a schedule its peak.

    Attributes:
      name: the factory's name.
      factory: the public factory; a schedule's returns `step -> value`.
      paper: authors, year and title.
      arxiv: arXiv identifier, or None.
      build: `(peak_value, total_steps) -> schedule`, with choices that suit a short run.
    """

    name: str
    factory: Callable[..., Any]
    paper: str
    arxiv: str | None
    build: Callable[[float, int], optax.Schedule] | None = None


METHODS: dict[str, Method] = {}
SCHEDULES: dict[str, Schedule] = {}


def method(
    paper: str,
    *,
    arxiv: str | None = None,
    learning_rate: float | None = 1e-3,
    sample: Mapping[str, Any] | None = None,
    wraps: bool = False,
    complex_ok: bool = True,
    front: bool = False,
) -> Callable[[Factory], Factory]:
    """Enters the decorated factory into the catalogue; see `Method` for the arguments."""

    def enter(factory: Factory) -> Factory:
        name = factory.__name__
        family = _family(factory.__module__)
        METHODS[name] = Method(
            name,
            factory,
            paper,
            arxiv,
            family,
            learning_rate,
            sample or {},
            wraps,
            complex_ok,
            front,
        )
        return factory

    return enter


def _family(module: str) -> str:
    """The folder right under `optimizers`, or the last folder of a method from elsewhere."""
    folders = module.split(".")[:-1]
    inside = folders.index("optimizers") + 1 if "optimizers" in folders else -1
    return folders[inside]


def schedule(
    paper: str,
    *,
    arxiv: str | None = None,
    build: Callable[[float, int], optax.Schedule] | None = None,
    name: str | None = None,
) -> Callable[[Factory], Factory]:
    """Enters the decorated schedule into the catalogue; see `Schedule` for the arguments."""

    def enter(factory: Factory) -> Factory:
        entry = name or factory.__name__
        SCHEDULES[entry] = Schedule(entry, factory, paper, arxiv, build)
        return factory

    return enter


def get_method(name: str) -> Method:
    """The method of that name; an unknown name is a ValueError that suggests the nearest."""
    return _lookup(METHODS, name, "optimizer")


def get_schedule(name: str) -> Schedule:
    """The schedule of that name; an unknown name is a ValueError that suggests the nearest."""
    return _lookup(SCHEDULES, name, "schedule")


def find(pattern: str = "*") -> list[str]:
    """Names of the methods that match a shell pattern, such as `*adam*`, in alphabetical order."""
    return sorted(fnmatch.filter(METHODS, pattern))


Entry = TypeVar("Entry", Method, Schedule)


def _lookup(entries: dict[str, Entry], name: str, kind: str) -> Entry:
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise ValueError(f"unknown {kind} {name!r}{hint}")
