"""The same training by many workers: every device of every process is one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from gradchain import optimizers
from gradchain.catalogue import get_schedule
from gradchain.transforms import flow
from gradchain.transforms.workers import mean_over

from .data import Text
from .model import Transformer, cross_entropy
from .plan import Settings

AXIS = "workers"
VALIDATION_WINDOWS = 96


def synchronous(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Any optimizer on the mean gradient: what all the others are compared with."""
    return flow(lambda g: mean_over(g, AXIS) >> inner)


def _rate(peak: float, settings: Settings) -> optax.ScalarOrSchedule:
    build = get_schedule("wsd").build
    assert build is not None
    return build(peak, settings.steps)


OPTIMIZERS: dict[str, Callable[[Settings], optax.GradientTransformation]] = {
    "adamw": lambda settings: synchronous(optimizers.adamw(_rate(4e-3, settings))),
    "diloco": lambda settings: optimizers.diloco(
        _rate(4e-3, settings), num_local_steps=settings.local_steps, axis_name=AXIS
    ),
    "demo": lambda settings: optimizers.demo(_rate(2e-3, settings), axis_name=AXIS),
    "power_sgd": lambda settings: optimizers.power_sgd(
        _rate(0.1, settings), rank=4, start_compressing_after_num_steps=10, axis_name=AXIS
    ),
}
"""Each is one transformation, whose workers pass their own gradients."""


class Training(NamedTuple):
    """What a worker carries from step to step."""

    params: Any
    opt_state: Any


@dataclass
class History:
    """What the report is made of. Validation is a list of (step, loss), by method."""

    train: dict[str, list[float]] = field(default_factory=dict)
    validation: dict[str, list[list[float]]] = field(default_factory=dict)


class Run:
    """The compiled steps, the states and the history of all methods.

    In every array the workers lie on the leading axis, which is spread over the devices: so each
    holds what is its own, and params may differ from worker to worker.
    """

    def __init__(self, settings: Settings, text: Text):
        self.settings, self.text, self.step = settings, text, 0
        self.history = History(
            {name: [] for name in settings.methods}, {name: [] for name in settings.methods}
        )
        self.workers = jax.device_count()
        kind = (jax.sharding.AxisType.Auto,)
        self.mesh = jax.make_mesh((self.workers,), (AXIS,), axis_types=kind)
        self.optimizers = {name: OPTIMIZERS[name](settings) for name in settings.methods}
        self.graph = nnx.graphdef(nnx.eval_shape(self._model, settings.seed))
        self._steps = {
            name: self.on_workers(self._step_of(opt), donate=True)
            for name, opt in self.optimizers.items()
        }
        self._loss = self.on_workers(self._validation_loss)
        seeds = self.placed(np.full(self.workers, settings.seed))
        self.states = {
            name: self.on_workers(self._begin_of(opt))(seeds)
            for name, opt in self.optimizers.items()
        }
        windows = text.validation_windows(VALIDATION_WINDOWS, settings.context)
        windows = windows[: len(windows) // self.workers * self.workers]
        self._windows = self.placed(windows.reshape(self.workers, -1, *windows.shape[1:]))

    def on_workers(self, fn: Callable[..., Any], donate: bool = False) -> Callable[..., Any]:
        """`fn`, what a worker does with its own, compiled for all of them at once."""

        def worker(*args: Any) -> Any:
            found = fn(*jax.tree.map(lambda x: x[0], args))
            return jax.tree.map(lambda x: x[None], found)

        mapped = jax.shard_map(
            worker, mesh=self.mesh, in_specs=jax.P(AXIS), out_specs=jax.P(AXIS), check_vma=True
        )
        return jax.jit(mapped, donate_argnums=(0,) if donate else ())

    def placed(self, array: np.ndarray) -> jax.Array:
        """An array that all processes have, its leading axis spread over all workers."""
        sharding = jax.NamedSharding(self.mesh, jax.P(AXIS))
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    def _model(self, seed: Any) -> Transformer:
        size = self.settings
        return Transformer(
            len(self.text.characters),
            size.width,
            size.layers,
            size.heads,
            nnx.Rngs(jax.random.key(seed)),
        )

    def params_of(self, seed: Any) -> Any:
        """Weights to start from, the same for a seed on all workers."""
        return nnx.as_pure(nnx.state(self._model(seed)))

    def _begin_of(self, opt: optax.GradientTransformation) -> Callable[..., Training]:
        def begin(seed: Any) -> Training:
            params = self.params_of(seed)
            return Training(params, opt.init(params))

        return begin

    def _loss_of(self, params: Any, windows: jax.Array) -> jax.Array:
        logits = nnx.merge(self.graph, params)(windows[:, :-1])
        return cross_entropy(logits, windows[:, 1:])

    def _step_of(self, opt: optax.GradientTransformation) -> Callable[..., Any]:
        def step(training: Training, batch: jax.Array) -> tuple[Training, jax.Array]:
            # The gradient of params that are a worker's own is its own. Of params that are the
            # same on all, JAX would give the sum over the workers.
            value, grads = jax.value_and_grad(self._loss_of)(training.params, batch)
            updates, opt_state = opt.update(grads, training.opt_state, training.params)
            params = optax.apply_updates(training.params, updates)
            return Training(params, opt_state), jax.lax.pmean(value, AXIS)

        return step

    def _validation_loss(self, training: Training, windows: jax.Array) -> jax.Array:
        weights = gradchain.eval_params(training.opt_state, training.params)
        return jax.lax.pmean(self._loss_of(weights, windows), AXIS)

    def advance(self) -> None:
        """One step of every method; each worker has a batch of its own."""
        size = self.settings
        batch = self.text.batch(self.step, self.workers * size.batch_size, size.context, size.seed)
        placed = self.placed(batch.reshape(self.workers, size.batch_size, -1))
        for name, step in self._steps.items():
            self.states[name], value = step(self.states[name], placed)
            self.history.train[name].append(_same_on_all(value))
        self.step += 1

    def evaluate(self) -> dict[str, float]:
        """Validation loss of every method's evaluation weights."""
        for name, training in self.states.items():
            loss = _same_on_all(self._loss(training, self._windows))
            self.history.validation[name].append([self.step, loss])
        return {name: losses[-1][1] for name, losses in self.history.validation.items()}

    def sent_bytes(self, name: str) -> float:
        """What a worker sends to the others in a step, as the mean over many."""
        params = jax.eval_shape(self.params_of, self.settings.seed)
        return gradchain.describe(self.optimizers[name], params).sent_bytes

    def results(self) -> dict[str, Any]:
        """The figures of the run."""
        shapes = jax.eval_shape(self.params_of, self.settings.seed)
        return {
            "workers": self.workers,
            "processes": jax.process_count(),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes)),
            "methods": {
                name: {
                    "train": self.history.train[name],
                    "validation": self.history.validation[name],
                    "sent_bytes_per_step": self.sent_bytes(name),
                }
                for name in self.settings.methods
            },
        }


def _same_on_all(values: jax.Array) -> float:
    """One of the equal numbers of all workers, from a device of this process."""
    return float(jnp.ravel(values.addressable_data(0))[0])
