"""One optimizer of the run: which, at what rate, and how it takes a step."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradchain
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from gradchain.catalogue import Method, get_method, get_schedule
from gradchain.layers import LayerGradients, nnx_layer_gradients
from gradchain.training import nnx_logits_fn, nnx_value_fn
from gradchain.transforms import quantize_state, store_state
from gradchain.transforms.notation.arguments import arguments_of

from .control import CONTROLLERS
from .model import Transformer, cross_entropy

# Behind a name: in which form the state is kept between the steps.
STORED: dict[str, Callable[[optax.GradientTransformation], Any]] = {
    "8bit": lambda inner: quantize_state(
        inner, block_size=256, signed=lambda path: "nu" not in path
    ),
    "bfloat16": store_state,
}

# In place of a schedule's name: for methods that are made to go without, as schedule-free ones.
CONSTANT = "constant"


@dataclass(frozen=True)
class Contender:
    """An optimizer of the catalogue with its learning rate.

    Attributes:
      label: its name in tables and plots.
      learning_rate: the schedule's peak; None where the method takes none.
      schedule: the name of its schedule, or of the controller in its place; "own" where it is part
        of the method, None where there is no rate.
      rate: step -> learning rate, where it is known beforehand.
      optimizer: the transformation; where the schedule is a controller, one that keeps its rate
        in `state.hyperparams`.
    """

    label: str
    learning_rate: float | None
    schedule: str | None
    rate: Callable[[int], float]
    optimizer: optax.GradientTransformationExtraArgs

    @property
    def controlled(self) -> bool:
        """Whether a controller sets the rate."""
        return self.schedule in CONTROLLERS


class Training(NamedTuple):
    """What one optimizer carries from step to step.

    `previous_params` is () unless the method asks for this batch's gradient there.
    """

    params: Any
    opt_state: Any
    previous_params: Any


def contenders(specs: list[str], schedule: str, total_steps: int) -> list[Contender]:
    """The optimizers of `name[-stored][:rate[:schedule]]` specifications.

    The name of a controller may take the place of a schedule's.

    Raises:
      ValueError: a malformed specification, an unknown name, the same specification twice.
    """
    twice = next((spec for spec in specs if specs.count(spec) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice")
    # A misspelt default is an error even where every optimizer names a schedule of its own.
    if schedule not in CONTROLLERS:
        _rate(schedule, 1.0, total_steps)
    names = [spec.partition(":")[0] for spec in specs]
    return [
        _contender(spec, name if names.count(name) == 1 else spec, schedule, total_steps)
        for spec, name in zip(specs, names, strict=True)
    ]


def _contender(spec: str, label: str, default_schedule: str, total_steps: int) -> Contender:
    name, *rest = spec.split(":")
    name, _, form = name.partition("-")
    if form and form not in STORED:
        raise ValueError(f"{form!r} in {spec!r} is not a form of storage: {', '.join(STORED)}")
    plain = _plain_contender(spec, name, rest, label, default_schedule, total_steps)
    stored = STORED[form] if form else lambda inner: inner
    if not plain.controlled:
        return dataclasses.replace(plain, optimizer=stored(plain.optimizer))
    return dataclasses.replace(plain, optimizer=_injected(get_method(name), plain, stored))


def _plain_contender(
    spec: str, name: str, rest: list[str], label: str, default_schedule: str, total_steps: int
) -> Contender:
    """The optimizer as it stores its state by itself."""
    if len(rest) > 2 or not all([name, *rest]):
        raise ValueError(f"{spec!r} is not of the form name[:rate[:schedule]], as in adamw:3e-4")
    method = get_method(name)
    if method.kind != "transformation":
        raise ValueError(f"{name} is no transformation of one gradient: its kind is {method.kind}")
    peak = method.learning_rate
    if rest:
        try:
            peak = float(rest[0])
        except ValueError:
            peak = math.nan
        if not (math.isfinite(peak) and peak > 0):
            raise ValueError(f"{rest[0]!r} in {spec!r} is not a learning rate, as in {name}:3e-4")
    if peak is None:
        return Contender(label, None, None, lambda step: math.nan, method.for_small_model())
    if _has_own_schedule(method):
        if len(rest) == 2:
            raise ValueError(f"{name} has a schedule of its own and takes no other, as in {spec!r}")
        optimizer = method.for_small_model(peak, total_steps=total_steps)
        return Contender(label, peak, "own", lambda step: math.nan, optimizer)
    schedule = rest[1] if len(rest) == 2 else _schedule_for(method, default_schedule)
    if schedule in CONTROLLERS:
        if _schedule_for(method, schedule) != schedule:
            raise ValueError(f"{name} adapts the rate it starts with; {schedule} cannot set it")
        return Contender(label, peak, schedule, lambda step: math.nan, method.for_small_model(peak))
    rate = _rate(schedule, peak, total_steps)
    shown = rate if callable(rate) else lambda step: peak
    optimizer = method.for_small_model(
        rate, **_other_arguments(method, schedule, peak, total_steps)
    )
    return Contender(label, peak, schedule, lambda step: float(shown(step)), optimizer)


def _injected(
    method: Method, plain: Contender, stored: Callable[[optax.GradientTransformation], Any]
) -> optax.GradientTransformationExtraArgs:
    """The optimizer whose rate is part of its state: a new one compiles nothing."""
    assert plain.learning_rate is not None
    arguments = _other_arguments(method, CONSTANT, plain.learning_rate, 0)

    def build(learning_rate: optax.ScalarOrSchedule) -> Any:
        return stored(method.for_small_model(learning_rate, **arguments))

    return gradchain.inject_hyperparams(build)(plain.learning_rate)


def _has_own_schedule(method: Method) -> bool:
    """Whether the schedule is part of the method, which then has to know the run's length."""
    length = inspect.signature(method.factory).parameters.get("total_steps")
    return length is not None and length.default is inspect.Parameter.empty


def _schedule_for(method: Method, default: str) -> str:
    """None for a rate that adapts itself from its first value on, which is 0 in a warm-up."""
    rate = arguments_of(method.factory).get("learning_rate")
    if rate is not None and not rate.takes_schedules:
        return CONSTANT
    adaptive = inspect.signature(method.factory).parameters.get("adaptive")
    return CONSTANT if adaptive is not None and adaptive.default is True else default


def _other_arguments(
    method: Method, schedule: str, peak: float, total_steps: int
) -> dict[str, Any]:
    """Which loss it is, and rates that a warm-up from 0 would leave without a meaning.

    By default methods take the schedule relative to its first value.
    """
    accepted = inspect.signature(method.factory).parameters
    arguments: dict[str, Any] = {}
    if "loss" in accepted:
        arguments["loss"] = "ce"
    for reference in ("base_learning_rate", "reference_lr"):
        if reference in accepted:
            arguments[reference] = peak
    if "learning_rate_1d" in accepted:
        default = accepted["learning_rate_1d"].default
        arguments["learning_rate_1d"] = _rate(schedule, default, total_steps)
    return arguments


def _rate(schedule: str, peak: float, total_steps: int) -> optax.ScalarOrSchedule:
    if schedule == CONSTANT:
        return peak
    build = get_schedule(schedule).build
    if build is None:
        raise ValueError(f"schedule {schedule!r} needs more than a peak and a number of steps")
    return build(peak, total_steps)


# What a method may ask `update` for, and how this loop makes it.
INPUTS: dict[str, Callable[["Here"], Any]] = {
    "value": lambda here: here.value,
    "value_fn": lambda here: here.value_fn,
    "grad_fn": lambda here: jax.grad(here.value_fn),
    "operator_fn": lambda here: jax.grad(here.value_fn),
    "logits_fn": lambda here: here.logits_fn,
    "outputs_fn": lambda here: here.logits_fn,
    "outputs_loss_fn": lambda here: lambda logits: cross_entropy(logits, here.batch[:, 1:]),
    "previous_grads": lambda here: jax.grad(here.value_fn)(here.previous_params),
    "per_example_grads": lambda here: jax.vmap(
        lambda one: jax.grad(lambda params: here.loss_of(params, one[None]))(here.params)
    )(here.batch),
    "layer_inputs": lambda here: here.layers().layer_inputs,
    "layer_cotangents": lambda here: here.layers().layer_cotangents,
}


class Here(NamedTuple):
    """The current step, from which the inputs of `INPUTS` are made."""

    params: Any
    previous_params: Any
    batch: jax.Array
    value: jax.Array
    value_fn: Callable[[Any], jax.Array]
    logits_fn: Callable[[Any], jax.Array]
    loss_of: Callable[[Any, jax.Array], jax.Array]
    layers: Callable[[], LayerGradients]


def extra_inputs(contender: Contender) -> list[str]:
    """Names of the inputs the method needs beside gradients and params.

    Raises:
      ValueError: one that this example cannot make.
    """
    names = [name for name in gradchain.needs(contender.optimizer) if name != "params"]
    for name in names:
        if name not in INPUTS:
            raise ValueError(
                f"{contender.label} needs {name!r}, which this example cannot give it "
                f"(it has {', '.join(INPUTS)})"
            )
    return names


def begin(contender: Contender, params: Any) -> Training:
    """The state before the first step; `params` stay the caller's."""
    params = jax.tree.map(jnp.copy, params)
    keeps_previous = "previous_grads" in extra_inputs(contender)
    previous = jax.tree.map(jnp.copy, params) if keeps_previous else ()
    return Training(params, jax.jit(contender.optimizer.init)(params), previous)


def make_step(
    contender: Contender, model: Transformer
) -> Callable[[Training, jax.Array, jax.Array], tuple[Training, jax.Array]]:
    """`step(training, batch, rate) -> (training, loss)`, to be jitted.

    Only `model`'s shape matters, and the rate only to a contender that is controlled.
    """
    names = extra_inputs(contender)

    def loss_of(params: Any, batch: jax.Array) -> jax.Array:
        def loss_fn(model: Transformer) -> jax.Array:
            return cross_entropy(model(batch[:, :-1]), batch[:, 1:])

        return nnx_value_fn(model, loss_fn)(params)

    def step(training: Training, batch: jax.Array, rate: jax.Array) -> tuple[Training, jax.Array]:
        params, opt_state, previous_params = training
        if contender.controlled:
            opt_state = opt_state._replace(
                hyperparams={**opt_state.hyperparams, "learning_rate": rate}
            )

        def value_fn(params: Any) -> jax.Array:
            return loss_of(params, batch)

        value, grads = jax.value_and_grad(value_fn)(params)
        logits_fn = nnx_logits_fn(model, batch[:, :-1])

        @functools.cache
        def layers() -> LayerGradients:
            here = nnx.merge(nnx.graphdef(model), params)
            return nnx_layer_gradients(
                here, lambda model: cross_entropy(model(batch[:, :-1]), batch[:, 1:])
            )

        here = Here(params, previous_params, batch, value, value_fn, logits_fn, loss_of, layers)
        extra = {name: INPUTS[name](here) for name in names}
        updates, opt_state = contender.optimizer.update(grads, opt_state, params, **extra)
        previous_params = params if "previous_grads" in names else ()
        return Training(optax.apply_updates(params, updates), opt_state, previous_params), value

    return step
