"""How a method or a schedule enters the catalogue: by decorating its factory.

    @method("Kingma & Ba 2015, Adam: A Method for Stochastic Optimization", arxiv="1412.6980")
    def adam(learning_rate, b1=0.9, ...): ...

Everything that must hold of every method is then tested, documented and offered by name without
another line being written for it. This module knows no method; `catalogue` shows them all.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

import optax

from .transforms import FlowError, chain
from .transforms.notation import needs
from .transforms.notation.checks import checked

Factory = TypeVar("Factory", bound=Callable[..., Any])

Kind = Literal[
    "transformation",
    "aggregator",
    "federated",
    "controller",
    "estimator",
    "loss",
    "measurement",
    "stepper",
    "rule",
    "per_example",
]
"""What a method is, and with that which catalogue-wide suite it enters:

- transformation: of one gradient; all of Optax's protocol.
- aggregator: of stacked gradients, into one.
- federated: a pair of client and server.
- controller: decides outside of jit, from step to step, and holds its own state.
- estimator: makes a gradient, from losses or from random directions.
- loss: a loss, or a term of one.
- measurement: a number about a model or a run.
- stepper: steps params by itself; no gradient is handed to it.
- rule: a function from the stacked gradients of workers, some of them faulty, to one.
- per_example: a transformation of the gradients of single examples, stacked.
"""

ScheduleKind = Literal["schedule", "combinator", "law", "measurement", "controller"]
"""What an entry of the schedules is:

- schedule: its factory gives `step -> value`.
- combinator: makes a schedule of schedules, or of a table.
- law: gives numbers that a schedule is made with.
- measurement: gathers in a run what a schedule is made from.
- controller: decides by what it is shown in the run.
"""

TAGS = {
    "adam": "Adam with a part exchanged",
    "bilevel": "an upper loss at the minimum of a lower one",
    "bounded": "steps or gradients are clipped to bounds",
    "cautious": "entries that disagree with the gradient are held back",
    "comparison": "measures and compares other methods",
    "closure": "evaluates the loss again, at points of its own",
    "curvature": "uses second derivatives of the loss",
    "decoupled-decay": "weight decay beside the gradient, not in it",
    "early-phase": "made for the first steps, a warm-up of its own",
    "evaluation-weights": "the weights to evaluate are not those that are trained",
    "flat-minima": "seeks points whose neighbourhood has a low loss, too",
    "games": "for games, in which every player descends on a loss of its own",
    "heavy-tails": "made for spikes and heavy-tailed noise",
    "kronecker": "a Kronecker-factored preconditioner",
    "large-batch": "made for large batches",
    "layerwise": "one scale per layer or leaf",
    "learned": "a network, trained on other tasks, makes the step",
    "loop": "decides outside of the step, and the training loop obeys",
    "low-memory": "less state than Adam",
    "low-rank": "works in a subspace of low rank",
    "manifolds": "params live on manifolds",
    "matrix": "treats matrices as matrices",
    "measurement": "a number about a model or a run",
    "momentum": "an average of gradients",
    "nesterov": "looks ahead along the momentum",
    "noise": "draws random numbers",
    "orthogonal": "removes the radial part, or makes the update orthogonal",
    "own-rate": "finds its learning rate, or part of it, by itself",
    "own-schedule": "brings the schedule of its rate along",
    "partitioned": "parts of the model are treated differently",
    "private": "hides what single examples do",
    "resets": "restarts its averages on the way",
    "robust": "some of the workers may send anything",
    "several-losses": "makes one update of the gradients of several losses",
    "sign": "the direction is a sign",
    "sparse": "params become zero, entry by entry or in structures, and stay so",
    "sums": "sums over all steps instead of averages",
    "tracked-mean": "a correction by gradients at another point",
    "workers": "workers each with a gradient of their own",
    "width-transfer": "rates carry over from narrow models to wide ones",
}
"""Tag -> what it says of a method. A folder is where a method lives, a tag is another way in."""


@dataclass(frozen=True, eq=False)
class Method:
    """One entry of the catalogue.

    Attributes:
      name: the factory's name, unique in the catalogue.
      factory: the public factory.
      paper: authors, year and title.
      arxiv: arXiv identifier, or None.
      family: the folder under `optimizers/` in which it lives.
      kind: what it is, see `Kind`.
      tags: of `TAGS`.
      learning_rate: a rate at which it trains a small model, a point to start a search from; None
        for a method that takes none, or takes it in another form.
      small_model: further arguments that go with that rate, where the defaults are made for large
        models and long runs.
      in_front: True for a transformation of gradients, without a learning rate, that stands in
        front of an optimizer.
      required: a value for each argument, beside the rate and an inner transformation, without
        which the factory refuses to build.
    """

    name: str
    factory: Callable[..., Any]
    paper: str
    arxiv: str | None
    family: str
    kind: Kind
    tags: tuple[str, ...]
    learning_rate: float | None
    small_model: Mapping[str, Any]
    in_front: bool
    required: Mapping[str, Any] = field(repr=False)

    @functools.cached_property
    def wraps(self) -> bool:
        """Whether its first argument is an inner transformation."""
        first = next(iter(inspect.signature(self.factory).parameters.values()), None)
        return first is not None and first.annotation is optax.GradientTransformation

    def arguments(
        self, learning_rate: optax.ScalarOrSchedule | None = None, **overrides: Any
    ) -> dict[str, Any]:
        """All arguments that the factory must be given, by name, and the overrides.

        Args:
          learning_rate: rate or schedule; default the method's `learning_rate`. A wrapper is put
            around Adam with that rate.
          **overrides: arguments of the factory.
        """
        arguments = {**self.required, **overrides}
        if self.in_front:
            return arguments
        if self.kind not in ("transformation", "per_example"):
            takes_rate = "learning_rate" in inspect.signature(self.factory).parameters
            if learning_rate is None or not takes_rate:
                return arguments
            return {**arguments, "learning_rate": learning_rate}
        rate = self.learning_rate if learning_rate is None else learning_rate
        if self.wraps:
            first = next(iter(inspect.signature(self.factory).parameters))
            return {first: METHODS["adam"].build(rate), **arguments}
        return arguments if rate is None else {"learning_rate": rate, **arguments}

    def build(self, learning_rate: optax.ScalarOrSchedule | None = None, **overrides: Any) -> Any:
        """The method by its name alone, with the defaults of its factory.

        A wrapper is put around Adam, what stands in front of an optimizer in front of Adam.

        Args:
          learning_rate: rate or schedule; default the method's `learning_rate`.
          **overrides: arguments of the factory.

        Returns:
          What the factory gives, for most methods an `optax.GradientTransformationExtraArgs`.

        Example:
          >>> from gradchain.catalogue import get_method
          >>> get_method("cautious").build(3e-4, eps=0.0).needs
          ('params',)
        """
        built = self.factory(**self.arguments(learning_rate, **overrides))
        if not self.in_front:
            return built
        rate = self.learning_rate if learning_rate is None else learning_rate
        return chain(built, METHODS["adam"].build(rate))

    def for_small_model(
        self, learning_rate: optax.ScalarOrSchedule | None = None, **overrides: Any
    ) -> Any:
        """As `build`, with the arguments of `small_model`."""
        return self.build(learning_rate, **{**self.small_model, **overrides})

    @functools.cached_property
    def needs(self) -> tuple[str, ...]:
        """Names of the inputs beside the gradient that its update needs, as built by name."""
        built = self.build()
        return needs(built) if hasattr(built, "update") else ()


@dataclass(frozen=True, eq=False)
class Schedule:
    """One schedule of the catalogue, or what is needed to make one.

    Attributes:
      name: the factory's name.
      factory: the public factory.
      paper: authors, year and title.
      arxiv: arXiv identifier, or None.
      kind: what it is, see `ScheduleKind`.
      build: `(peak_value, total_steps) -> schedule`, with choices that suit a short run.
    """

    name: str
    factory: Callable[..., Any]
    paper: str
    arxiv: str | None
    kind: ScheduleKind
    build: Callable[[float, int], optax.Schedule] | None = None


METHODS: dict[str, Method] = {}
SCHEDULES: dict[str, Schedule] = {}


def method(
    paper: str,
    *,
    arxiv: str | None = None,
    tags: tuple[str, ...] = (),
    kind: Kind = "transformation",
    learning_rate: float | None = 1e-3,
    small_model: Mapping[str, Any] | None = None,
    in_front: bool = False,
    required: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Callable[[Factory], Factory]:
    """Enters the decorated factory into the catalogue; see `Method` for the arguments.

    A class has another name there than its own.
    """

    def enter(factory: Factory) -> Factory:
        entry = name or factory.__name__
        unknown = [tag for tag in tags if tag not in TAGS]
        if unknown:
            raise ValueError(f"{entry}: unknown tags {unknown}; TAGS has {', '.join(TAGS)}")
        _check_entry(entry, kind, get_args(Kind), METHODS)
        if kind == "transformation":
            factory.is_method = True  # type: ignore[attr-defined]
        METHODS[entry] = Method(
            entry,
            factory,
            paper,
            arxiv,
            _family(factory.__module__),
            kind,
            tags,
            learning_rate,
            small_model or {},
            in_front,
            required or {},
        )
        return factory

    return enter


def schedule(
    paper: str,
    *,
    arxiv: str | None = None,
    kind: ScheduleKind = "schedule",
    build: Callable[[float, int], optax.Schedule] | None = None,
    name: str | None = None,
) -> Callable[[Factory], Factory]:
    """Enters the decorated schedule into the catalogue; see `Schedule` for the arguments.

    Those of the factory are checked by their annotations.
    """

    def enter(factory: Factory) -> Factory:
        entry = name or factory.__name__
        _check_entry(entry, kind, get_args(ScheduleKind), SCHEDULES)
        # a second name is that of the same function
        made = factory if hasattr(factory, "__wrapped__") else checked()(factory)
        SCHEDULES[entry] = Schedule(entry, made, paper, arxiv, kind, build)
        return made

    return enter


def _check_entry(name: str, kind: str, kinds: tuple[str, ...], entries: Mapping[str, Any]) -> None:
    if kind not in kinds:
        raise ValueError(f"{name}: kind must be one of {', '.join(kinds)}, got {kind!r}")
    if name in entries:
        raise ValueError(f"{name} is in the catalogue already: {entries[name].factory.__module__}")


def _family(module: str) -> str:
    """The folder right under `optimizers`, or the last folder of a method from elsewhere."""
    folders = module.split(".")[:-1]
    inside = folders.index("optimizers") + 1 if "optimizers" in folders else -1
    return folders[inside]


@checked()
def get_method(name: str) -> Method:
    """The method of that name; an unknown name is a ValueError that suggests the nearest."""
    return _lookup(METHODS, name, "optimizer")


@checked()
def get_schedule(name: str) -> Schedule:
    """The schedule of that name; an unknown name is a ValueError that suggests the nearest."""
    return _lookup(SCHEDULES, name, "schedule")


def factory_of(argument: str, inner: str | Callable[..., Any]) -> Callable[..., Any]:
    """The factory that is an argument of another, given itself or by its name.

    Args:
      argument: what the other calls it, for messages.
      inner: a factory, or a name.
    """
    if callable(inner):
        return inner
    try:
        return get_method(inner).factory
    except ValueError as error:
        raise FlowError(f"{argument}={inner!r}: {error}") from None


Entry = TypeVar("Entry", Method, Schedule)


def _lookup(entries: dict[str, Entry], name: str, kind: str) -> Entry:
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise ValueError(f"unknown {kind} {name!r}{hint}")
