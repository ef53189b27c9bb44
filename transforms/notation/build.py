"""Building a transformation from a function of signals: `flow`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import optax

from .advice import explained
from .errors import FlowError
from .foreign import owner_of
from .graph import Graph
from .program import Program
from .scope import Builder, building
from .signal import Signal
from .steps import input_signal
from .tracing import import_extensions


class Flow(optax.GradientTransformationExtraArgs):
    """An Optax transformation that knows what it is made of.

    All that it knows is in the program whose `init` and `update` are its two functions, so it can
    be taken apart and rebuilt like every named tuple.

    Attributes:
      program: what its functions belong to; None where they were replaced by others.
    """

    @classmethod
    def of(cls, program: Program) -> "Flow":
        """The flow that runs a program."""
        return cls(program.init, program.update)

    @property
    def program(self) -> Program | None:
        found: Program | None = owner_of(self)
        return found

    @property
    def own_program(self) -> Program:
        """The program; FlowError where the functions are no longer those of one."""
        if self.program is None:
            raise FlowError(
                "the init or update of this flow was replaced: nothing is known of its inside"
            )
        return self.program

    @property
    def graph(self) -> Graph:
        """Its signals."""
        return self.own_program.graph

    @property
    def label(self) -> str:
        """The method's name."""
        return self.own_program.label

    @property
    def arguments(self) -> dict[str, Any]:
        """Its hyper-parameters."""
        return dict(self.own_program.arguments)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the inputs that `update` must be given beside the gradients."""
        return () if self.program is None else self.program.needs

    def relabelled(
        self,
        label: str,
        arguments: Mapping[str, Any],
        remake: Callable[[], Any] | None = None,
        whole: bool = False,
    ) -> "Flow":
        """The same flow under the name and hyper-parameters of the factory that made it.

        Args:
          label: the factory's name.
          arguments: its arguments by name.
          remake: calls the factory again with them.
          whole: whether it makes a method.
        """
        program = self.own_program
        renamed = replace(program, label=label, arguments=dict(arguments))
        return Flow.of(replace(renamed, remake=remake, whole=whole))

    def under(self, state_name: str) -> "Flow":
        """The same flow whose state has a given name inside other flows."""
        return Flow.of(replace(self.own_program, state_name=state_name))

    def __repr__(self) -> str:
        if self.program is None:
            return f"Flow(init={self.init!r}, update={self.update!r})"
        return repr(self.program)


def flow(step: Callable[..., Any], name: str | None = None) -> Flow:
    """Builds a transformation from a function that reads like the algorithm box of a paper.

    Part of the notation.

    `step` is called once, here, on symbolic signals. Its first parameter is the incoming update;
    further parameters are inputs by name (`params`, `value`, `value_fn`, ...), which `update`
    then requires, unless they have the default None. The signal that it returns is the outgoing
    update.

    Args:
      step: function of signals that returns a signal.
      name: name in messages, tables and states; default that of the function, and of the factory
        around it where the function is called `step` or is a lambda.

    Returns:
      A `Flow`: an `optax.GradientTransformationExtraArgs` that can also be drawn, described and
      observed.

    Raises:
      FlowError: if the step is not one of signals, or leaves a delay open.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms import ema, flow, sign
      >>> signed = flow(lambda g: sign(g >> ema(0.5)), name="signed")
      >>> state = signed.init(jnp.zeros(2))
      >>> signed.update(jnp.array([1.0, -2.0]), state)[0].tolist()
      [1.0, -1.0]
    """
    if not callable(step):
        raise FlowError(f"flow: step={step!r} must be a function of signals")
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise FlowError(f"flow: name={name!r} must be an identifier: it names states")
    import_extensions()
    with building(Builder(name or _name_of(step))) as builder:
        output = _call(step, builder)
    _check_delays(builder)
    graph = Graph(builder, output, builder.observed)
    return Flow.of(Program(graph, builder.label, remake=partial(flow, step, name)))


def _call(step: Callable[..., Any], builder: Builder) -> Signal:
    first, *others = _parameters(step, builder.label)
    given = [input_signal(builder, "updates")] if first else []
    named = {p.name: input_signal(builder, p.name, p.default is None) for p in others}
    try:
        output = step(*given, **named)
    except Exception as error:
        better = explained(builder.label, error)
        if better is None:
            raise
        raise better from error
    if isinstance(output, optax.GradientTransformation) or hasattr(output, "receive"):
        raise FlowError(
            f"{builder.label}: the step returned a transformation, not a signal: "
            "send one through it, `g >> t`"
        )
    if not isinstance(output, Signal):
        raise FlowError(
            f"{builder.label}: the step must return a signal, it returned {type(output).__name__}"
        )
    return output


def _parameters(step: Callable[..., Any], label: str) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(step).parameters.values())
    if not parameters:
        raise FlowError(f"{label}: the step must take the incoming update as its first parameter")
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise FlowError(f"{label}: the step must name its inputs, not take *{parameter.name}")
    return parameters


def _check_delays(builder: Builder) -> None:
    for delay in builder.delays:
        if delay.written is None:
            raise FlowError(
                f"{builder.label}: delay `{delay.hint}` ({delay.site}) is never closed; "
                f"say what it becomes with `<<`"
            )


ANONYMOUS = {"step", "<lambda>"}
"""Steps that are called so have the name of the function around them."""


def _name_of(step: Callable[..., Any]) -> str:
    around = getattr(step, "__qualname__", "flow").replace(".<locals>", "").split(".")
    while len(around) > 1 and around[-1] in ANONYMOUS:
        around.pop()
    name = around[-1].strip("_")
    return name if name.isidentifier() else "flow"
