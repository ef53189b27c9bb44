"""The training loop: all optimizers in step, on the same batches, from the same start."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from .contender import Contender, Training, begin, extra_inputs, make_step
from .control import Search
from .data import Text
from .model import Transformer, cross_entropy

TIMED_ROUNDS = 30
VALIDATION_WINDOWS = 96
RATE = np.float32


@dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers of a run; `--resume` reads it back from the folder."""

    optimizers: tuple[str, ...] = (
        "adamw:4e-3",
        "lion:2e-3",
        "sophia_h:1e-3",
        "schedule_free_adamw:1e-2:constant",
    )
    schedule: str = "wsd"
    controller: str | None = None
    steps: int = 600
    batch_size: int = 16
    context: int = 64
    width: int = 64
    layers: int = 2
    heads: int = 4
    seed: int = 0
    eval_every: int = 25
    checkpoint_every: int = 100
    sample_length: int = 400


@dataclass
class History:
    """What the report is made of. Validation is a list of (step, loss), by optimizer."""

    train: dict[str, list[float]] = field(default_factory=dict)
    validation: dict[str, list[list[float]]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    sgd_seconds: list[float] = field(default_factory=list)
    searches: dict[str, dict[str, Any]] = field(default_factory=dict)


class Stop:
    """Turns the first Ctrl-C or SIGTERM into a request; a second one acts as usual."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "Stop":
        self.before = {
            number: signal.signal(number, self._request)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _request(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        self.__exit__()


class TooLargeError(ValueError):
    """A method needs more memory for this model than there is."""


class Run:
    """The compiled steps, the states and the history of all optimizers.

    Building it traces every step, so a method that this model or loop does not suit fails here,
    before anything is written.
    """

    def __init__(self, settings: Settings, text: Text, contenders: list[Contender]):
        self.settings, self.text, self.contenders = settings, text, contenders
        self.step = 0
        self.history = History()
        # One compilation makes all the weights; eagerly each shape would take its own.
        model = nnx.jit(lambda: _model(settings, len(text.characters)))()
        self.graph, params = nnx.split(model)
        self.params = nnx.as_pure(params)
        self.states: dict[str, Training] = {}
        self.searches: dict[str, Search] = {}
        self._lowered: dict[str, Any] = {}
        self._steps: dict[str, Callable[..., tuple[Training, jax.Array]]] = {}
        for contender in contenders:
            extra_inputs(contender)
            check_memory(contender, self.params)
            if contender.controlled:
                assert contender.learning_rate is not None
                search = Search(
                    contender.label, contender.learning_rate, settings.steps, settings.seed
                )
                self.searches[contender.label] = search
            try:
                self._add(contender, model)
            except Exception as error:  # whatever a method raises, its user gets one line
                first_line = str(error).strip().partition("\n")[0]
                raise ValueError(
                    f"{contender.label} cannot train this model: {first_line}"
                ) from error
            self.history.train[contender.label] = []
            self.history.validation[contender.label] = []
            self.history.seconds[contender.label] = []
        self._windows = jnp.asarray(text.validation_windows(VALIDATION_WINDOWS, settings.context))
        # Plain gradient descent runs along for the first rounds: the unit of time per step.
        self._sgd = Contender("", 0.1, None, lambda step: 0.1, optax.sgd(0.1))
        self._add(self._sgd, model)

    def _add(self, contender: Contender, model: Transformer) -> None:
        state = begin(contender, self.params)
        options = gradchain.compiler_options()
        step = jax.jit(make_step(contender, model), donate_argnums=0, compiler_options=options)
        self._lowered[contender.label] = step.lower(state, self._batch(0), RATE(0))
        self.states[contender.label] = state
        self._obey(contender.label)

    def _batch(self, step: int) -> np.ndarray:
        size = self.settings
        return self.text.batch(step, size.batch_size, size.context, size.seed)

    def compile(self, announce: Callable[[str], None]) -> None:
        """Compiles all steps ahead of the first, so that no timing contains a compilation."""
        timed = [self._sgd] if self.step < TIMED_ROUNDS else []
        for contender in [*self.contenders, *timed]:
            announce(contender.label or "sgd, for comparison of times")
            compiled = self._lowered.pop(contender.label).compile()
            check_workspace(contender.label, compiled)
            self._steps[contender.label] = compiled

    def advance(self) -> None:
        """One step of every optimizer on the next batch."""
        batch = self._batch(self.step)
        for contender in self.contenders:
            value, seconds = self._timed_step(contender.label, batch)
            self.history.train[contender.label].append(value)
            self.history.seconds[contender.label].append(seconds)
        if self.step < TIMED_ROUNDS:
            self.history.sgd_seconds.append(self._timed_step(self._sgd.label, batch)[1])
        self.step += 1
        for label, search in self.searches.items():
            search.report(self.history.train[label][-1])
            if self.step < self.settings.steps:
                self._obey(label)

    def _obey(self, label: str) -> None:
        if label in self.searches:
            self.states[label] = self.searches[label].obey(
                self.step, self.states[label], partial(jax.tree.map, jnp.copy), self._validation
            )

    def _timed_step(self, label: str, batch: np.ndarray) -> tuple[float, float]:
        rate = self.searches[label].rate if label in self.searches else 0.0
        start = time.perf_counter()
        result = self._steps[label](self.states[label], batch, RATE(rate))
        self.states[label], value = jax.block_until_ready(result)
        return float(value), time.perf_counter() - start

    def evaluate(self) -> None:
        """Validation loss of every optimizer's evaluation weights."""
        for contender in self.contenders:
            loss = self._validation(self.best(contender.label))
            self.history.validation[contender.label].append([self.step, loss])

    def _validation(self, training: Training) -> float:
        return float(_mean_loss(self.graph, weights_of(training), self._windows))

    def best(self, label: str) -> Training:
        """The state of an optimizer, or that before the search that its controller is at."""
        training = self.states[label]
        return self.searches[label].best(training) if label in self.searches else training

    def weights(self, label: str) -> Any:
        """The weights to use."""
        return weights_of(self.best(label))

    def rate(self, contender: Contender) -> float:
        """The learning rate of the next step; NaN for methods that have their own."""
        search = self.searches.get(contender.label)
        return contender.rate(self.step) if search is None else search.rate

    def saved(self) -> tuple[dict[str, Training], dict[str, Training]]:
        """The part of the state a checkpoint holds: all optimizers', and what controllers keep."""
        own = {contender.label: self.states[contender.label] for contender in self.contenders}
        return own, {label: search.kept for label, search in self.searches.items()}

    def recorded(self) -> dict[str, Any]:
        """The other part, for JSON."""
        self.history.searches = {label: search.to_dict() for label, search in self.searches.items()}
        return asdict(self.history)

    def resume(self, step: int, saved: Any, recorded: dict[str, Any]) -> None:
        """Goes on where another run stood."""
        states, kept = saved
        self.step = step
        self.states.update(states)
        self.history = History(**recorded)
        for label, search in self.searches.items():
            search.resume(self.history.searches[label], kept[label])


def weights_of(training: Training) -> Any:
    """The weights to use: an average for some methods, the params for most."""
    return gradchain.eval_params(training.opt_state, training.params)


def check_memory(contender: Contender, params: Any) -> None:
    """Refuses a state beyond the machine, as of a dense Hessian, before it is allocated."""
    described = gradchain.describe(contender.optimizer, jax.eval_shape(lambda: params))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    _refuse_beyond_machine(
        contender.label, described.state_bytes, f"would keep {{}} of state for {size:,} parameters"
    )


def check_workspace(label: str, compiled: Any) -> None:
    """Refuses a step beyond the machine, as of a system in all outputs, before it is run."""
    analysis = compiled.memory_analysis()
    if analysis is not None:
        _refuse_beyond_machine(label, analysis.temp_size_in_bytes, "needs {} to compute a step")


def _refuse_beyond_machine(label: str, needed: int, what: str) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise TooLargeError(
            f"{label} {what.format(f'{needed / 1e9:.1f} GB')}, and this machine has "
            f"{memory / 1e9:.1f} GB; choose a smaller --width, --context or --batch-size, or fewer "
            "--layers"
        )


def _model(settings: Settings, vocabulary: int) -> Transformer:
    return Transformer(
        vocabulary,
        settings.width,
        settings.layers,
        settings.heads,
        nnx.Rngs(settings.seed),
    )


@partial(jax.jit, static_argnums=0)
def _mean_loss(graph: nnx.GraphDef[Transformer], params: Any, windows: jax.Array) -> jax.Array:
    return cross_entropy(nnx.merge(graph, params)(windows[:, :-1]), windows[:, 1:])
