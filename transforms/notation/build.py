"""Building a graph: `flow`, and sending a signal through a transformation."""

import contextvars
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import optax

from .errors import FlowError
from .foreign import foreign_kernel
from .signal import Clock, Delay, Function, Input, Machine, Signal, Slot


class Scope:
    """A place in the hierarchy of names: one per transformation that a signal is sent through.

    Attributes:
      parent: the scope around it, None for the flow itself.
      hint: the name of its state.
      explicit: True where the user chose the name.
      label: the transformation's name.
      arguments: its hyper-parameters, for tables and drawings.
      output: the signal that leaves it.
    """

    def __init__(
        self,
        parent: "Scope | None",
        hint: str,
        explicit: bool = False,
        label: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.parent = parent
        self.hint = hint
        self.explicit = explicit
        self.label = label or hint
        self.arguments = dict(arguments or {})
        self.output: Signal | None = None


class Builder:
    """Collects what the step of one flow makes."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.scope = Scope(None, label)
        self.inputs: dict[str, Input] = {}
        self.clock: Clock | None = None
        self.delays: list[Delay] = []
        self.taps: dict[str, Signal] = {}
        self.observed: dict[str, Signal] = {}

    def input(self, name: str, optional: bool = False) -> Input:
        """The input of that name, one node however often it is asked for."""
        if name not in self.inputs:
            self.inputs[name] = Input(name, optional)
        self.inputs[name].optional &= optional
        return self.inputs[name]

    def tick(self) -> Clock:
        """The step count, one node for the whole flow."""
        if self.clock is None:
            self.clock = Clock()
        return self.clock

    def tap(self, name: str, signal: Signal) -> None:
        """Enters a signal under a name that is free."""
        taken, unique = 1, name
        while unique in self.taps:
            taken += 1
            unique = f"{name}_{taken}"
        self.taps[unique] = signal


_building: contextvars.ContextVar[tuple[Builder, ...]] = contextvars.ContextVar(
    "gradchain_flows_being_built", default=()
)


def current_builder(what: str = "this") -> Builder:
    """The flow being built; raises FlowError outside a step."""
    stack = _building.get()
    if not stack:
        raise FlowError(f"`{what}` makes a signal; signals exist only inside the step of a flow")
    return stack[-1]


@dataclass(frozen=True)
class Graph:
    """What a step amounts to: the signals, from the inputs to the output.

    Attributes:
      builder: whose nodes these are.
      output: the outgoing update.
      observed: the signals that are kept in the state, by name.
      replaced: nodes that stand in for those that the step made, by index.
      nodes: everything that the step made and that leads somewhere, taps included, each node
        after what it is computed from.
      live: those that the output and the observed signals depend on: what runs.
    """

    builder: Builder
    output: Signal
    observed: Mapping[str, Signal]
    replaced: Mapping[int, Signal] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> tuple[Signal, ...]:
        return self._leading_to(*self.builder.taps.values())

    @cached_property
    def live(self) -> tuple[Signal, ...]:
        return self._leading_to()

    @property
    def taps(self) -> Mapping[str, Signal]:
        """The signals that can be observed under a name of their own."""
        return self.builder.taps

    @cached_property
    def inputs(self) -> dict[str, Input]:
        """The inputs by name, without the incoming update."""
        return {n.name: n for n in self.live if isinstance(n, Input) and n.name != "updates"}

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The nodes that keep state."""
        return tuple(node for node in self.live if isinstance(node, Slot))

    @cached_property
    def uses_clock(self) -> bool:
        """Whether the step count is part of the state."""
        return any(isinstance(node, Clock) for node in self.live)

    def _leading_to(self, *more: Signal) -> tuple[Signal, ...]:
        evaluated = [d for d in self.builder.delays if d.evaluation is not None]
        pending: list[Any] = [self.output, *self.observed.values(), *evaluated, *more]
        found: dict[int, Signal] = {}
        while pending:
            node = pending.pop()
            if not isinstance(node, Signal) or node.index in found:
                continue
            if node.builder is not self.builder:
                continue
            found[node.index] = self.replaced.get(node.index, node)
            pending.extend(node.args)
            if isinstance(node, Delay):
                pending.append(node.written)
        return tuple(found[index] for index in sorted(found))


class Flow(optax.GradientTransformationExtraArgs):
    """An Optax transformation that knows what it is made of.

    Attributes:
      graph: its signals.
      runner: walks them.
      label: the method's name.
      arguments: its hyper-parameters.
      state_name: the name that its state gets inside another flow.
      parts: what a `chain` was made of, else empty.
    """

    graph: Graph
    runner: Any
    label: str
    arguments: dict[str, Any]
    state_name: str | None
    parts: tuple[Any, ...]

    def __new__(
        cls,
        graph: Graph,
        label: str,
        arguments: Mapping[str, Any] | None = None,
        state_name: str | None = None,
        parts: tuple[Any, ...] = (),
    ) -> "Flow":
        from .run import Runner

        runner = Runner(graph, label, is_chain=bool(parts))
        self = super().__new__(cls, runner.init, runner.update)
        self.runner, runner.flow = runner, self
        self.graph, self.label, self.parts = graph, label, parts
        self.arguments, self.state_name = dict(arguments or {}), state_name
        return self

    def relabelled(self, label: str, arguments: Mapping[str, Any]) -> "Flow":
        """The same flow under the name and hyper-parameters of the factory that made it."""
        return Flow(self.graph, label, arguments, self.state_name, self.parts)

    def under(self, state_name: str) -> "Flow":
        """The same flow whose state has a given name inside other flows."""
        return Flow(self.graph, self.label, self.arguments, state_name, self.parts)

    def watching(
        self, observed: Mapping[str, Signal], replaced: Mapping[int, Signal] | None = None
    ) -> "Flow":
        """The same flow that keeps the given signals in its state.

        Args:
          observed: the signals by name.
          replaced: nodes that watch something within themselves, by the index of those that they
            stand in for.
        """
        graph = replace(
            self.graph,
            observed={**self.graph.observed, **observed},
            replaced={**self.graph.replaced, **(replaced or {})},
        )
        return Flow(graph, self.label, self.arguments, self.state_name, self.parts)

    @property
    def is_observed(self) -> bool:
        """Whether it keeps signals in its state for logging."""
        return bool(self.graph.observed or self.graph.replaced)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the inputs that `update` must be given beside the gradients."""
        from .needs import needs

        return needs(self)

    def _repr_svg_(self) -> str:
        from .draw import draw

        return draw(self).svg()

    def __repr__(self) -> str:
        named_values = (f"{name}={brief(value)}" for name, value in self.arguments.items())
        inside = ", ".join(named_values) or ", ".join(map(brief, self.parts))
        return f"{self.label}({inside})"


def flow(step: Callable[..., Any], name: str | None = None) -> Flow:
    """Builds a transformation from a function that reads like the algorithm box of a paper.

    `step` is called once, here, on symbolic signals. Its first parameter is the incoming update;
    further parameters are inputs by name (`params`, `value`, `value_fn`, ...), which `update`
    then requires, unless they have the default None. The signal that it returns is the outgoing
    update.

    Args:
      step: function of signals that returns a signal.
      name: name of the method in messages and tables; default the factory around `step`.

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
    if name is not None and not name.isidentifier():
        raise FlowError(f"flow: name={name!r} must be an identifier: it names states")
    builder = Builder(name or _factory_name(step))
    token = _building.set((*_building.get(), builder))
    try:
        output = _call(step, builder)
    finally:
        _building.reset(token)
    _check_delays(builder)
    return Flow(Graph(builder, output, builder.observed), builder.label)


def _call(step: Callable[..., Any], builder: Builder) -> Signal:
    first, *others = _parameters(step, builder.label)
    given = [builder.input("updates")] if first else []
    named = {p.name: builder.input(p.name, p.default is None) for p in others}
    try:
        output = step(*given, **named)
    except FlowError:
        raise
    except TypeError as error:
        raise FlowError(
            f"{builder.label}: the step failed while it was built: {error}. Inside a step use the "
            "functions of gradchain.transforms, or lift(fn) for your own"
        ) from error
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


Reader = Callable[[Delay | Machine, Signal], Signal]


def send(
    signal: Signal, target: Any, reader: Reader | None = None, clock: Signal | None = None
) -> Signal:
    """`signal >> target`: the signal after a transformation, or after a lifted function.

    Args:
      signal: what is sent.
      target: a transformation, or a function made by `lift`.
      reader: what the inner nodes read in place of each delay, and of each node with a hand-written
        state, of the target, given the original and its copy.
      clock: what the inner nodes read in place of the step count.
    """
    if isinstance(target, Flow):
        return _splice(signal, target, reader, clock)
    if isinstance(target, optax.GradientTransformation):
        kernel = foreign_kernel(target)
        return Machine(kernel, (signal,), kernel.name, explicit=False)
    if getattr(target, "is_lifted", False):
        return target(signal)
    raise FlowError(
        f"a signal cannot be sent into {target!r}: expected a gradient transformation, "
        "or a function made with lift()"
    )


def _splice(signal: Signal, inner: Flow, reader: Reader | None, clock: Signal | None) -> Signal:
    """Copies the inner flow's nodes into the flow that is being built, under a scope of its own."""
    builder = current_builder(inner.label)
    scopes = _Scopes(inner, builder)
    copies: dict[int, Any] = {}
    delays: list[tuple[Delay, Any]] = []

    def copied(value: Any) -> Any:
        return copies.get(value.index, value) if isinstance(value, Signal) else value

    for node in inner.graph.nodes:
        if isinstance(node, Input):
            fed = node.name == "updates"
            copies[node.index] = signal if fed else builder.input(node.name, node.optional)
        elif isinstance(node, Clock):
            copies[node.index] = builder.tick() if clock is None else clock
        else:
            copy = node.rewired(tuple(map(copied, node.args)))
            copy.scope, copy.site = scopes[node.scope], node.site
            copies[node.index] = copy
            if isinstance(node, Delay):
                delays.append((node, copy))
            if reader and isinstance(node, Delay | Machine):
                copies[node.index] = reader(node, copy)
                copies[node.index].scope, copies[node.index].site = copy.scope, copy.site
    for original, copy in delays:
        copy.written = copied(original.written)
    for name, tapped in inner.graph.taps.items():
        builder.tap(name, copied(tapped))
    for name, seen in inner.graph.observed.items():
        builder.observed[name] = copied(seen)
    output = copied(inner.graph.output)
    scopes.finish(copied)
    return _marked(output, scopes[inner.graph.builder.scope])


def _marked(output: Signal, scope: Scope) -> Signal:
    scope.output = output
    return output


class _Scopes:
    """The inner flow's scopes, copied under the scope that is being built."""

    def __init__(self, inner: Flow, builder: Builder) -> None:
        root = inner.graph.builder.scope
        name = inner.state_name or inner.label
        top = Scope(builder.scope, name, inner.state_name is not None, inner.label, inner.arguments)
        self.copies: dict[int, tuple[Scope, Scope]] = {id(root): (root, top)}

    def __getitem__(self, scope: Scope) -> Scope:
        if id(scope) not in self.copies:
            assert scope.parent is not None
            copy = Scope(
                self[scope.parent], scope.hint, scope.explicit, scope.label, scope.arguments
            )
            self.copies[id(scope)] = (scope, copy)
        return self.copies[id(scope)][1]

    def finish(self, copied: Callable[[Any], Any]) -> None:
        for original, copy in self.copies.values():
            if original.output is not None:
                copy.output = copied(original.output)


def named(name: str, transformation: optax.GradientTransformation) -> Flow:
    """Gives the state of a transformation a name, under which checkpoints and tools see it.

    Args:
      name: a valid Python identifier.
      transformation: any transformation.

    Raises:
      FlowError: if the name is not an identifier.
    """
    if not name.isidentifier() or name.startswith("_"):
        raise FlowError(f"name={name!r} must be an identifier that does not start with `_`")
    if isinstance(transformation, Flow):
        return transformation.under(name)
    label = foreign_kernel(transformation).name
    return flow(lambda g: g >> transformation, name=label).under(name)


def chain(*parts: optax.GradientTransformation) -> Flow:
    """Applies transformations one after another, as `optax.chain`, with states that have names.

    A part's state is named after the part, so it does not depend on the position in the chain;
    parts without state leave no trace in it, and a chain inside a chain is the longer chain.

    Args:
      *parts: transformations, ours or Optax's; give one a name with `named(name, part)`.

    Returns:
      The composed transformation, whose state is a NamedTuple with one field per stateful part,
      and a `count` if any part needs the step count.

    Raises:
      FlowError: if a part is not a transformation.
    """
    flat = tuple(_flat_parts(parts))

    def step(g: Signal) -> Signal:
        for part in flat:
            g = g >> part
        return g

    built = flow(step, name="chain")
    return Flow(built.graph, "chain", None, None, flat or (optax.identity(),))


def _flat_parts(parts: tuple[Any, ...]) -> Iterator[Any]:
    for part in parts:
        is_plain = isinstance(part, Flow) and part.state_name is None and not part.is_observed
        if is_plain and part.parts:
            yield from part.parts
        else:
            yield part


def tap(name: str, signal: Signal) -> Signal:
    """Makes a signal readable from outside under a name; see `observe`.

    Nothing is computed or stored for a tap that nobody observes.

    Args:
      name: an identifier.
      signal: what to read.

    Returns:
      The signal itself.
    """
    current_builder(name).tap(name, signal)
    return signal


def step_count() -> Signal:
    """The number of the step as an int32 scalar signal: 1 at the first update."""
    return current_builder("step_count").tick()


def scheduled(value: Any, ahead: int = 0) -> Any:
    """A hyper-parameter that may be a schedule: the number itself, or its value at this step.

    Schedules are functions of the number of updates made before, so 0 at the first update.

    Args:
      value: number, array, signal, or function of the count.
      ahead: how many steps later than this one its value is taken.
    """
    if isinstance(value, Signal) or not callable(value):
        return value
    schedule = value
    return Function(lambda t: schedule(t - 1 + ahead), (step_count(),), "schedule")


def delay(
    like: Any,
    start: Any = None,
    *,
    name: str | None = None,
    dtype: Any = None,
    evaluation: tuple[Any, Any] | None = None,
) -> Delay:
    """A unit delay: the value that was written to it at the previous step.

    Close it with `<<`:

        past = delay(g)
        m = decay * past + (1 - decay) * g
        past << m

    Args:
      like: a signal whose shapes it has, or a number for a scalar that starts there. A delay of
        the `params` input starts at the params; of any other signal, at zeros.
      start: number at which every entry starts instead, or a function that turns a leaf into
        what it starts at: a param where the signal is shaped like the params, else zeros. With
        the attribute `of_tree` it is called once, with all `Leaves`.
      name: name of the state; default after the transformation around it.
      dtype: storage dtype; default the signal's, at least float32.
      evaluation: `(weight, params_weight)` if the method's evaluation weights are
        `weight * stored + params_weight * params`; see `eval_params`.
    """
    return Delay(like, start, dtype, name or "delay", name is not None, evaluation)


def stateful(kernel: Any, *args: Signal, name: str | None = None) -> Signal:
    """A node with a hand-written state; for primitives that no composition expresses.

    Args:
      kernel: a `Kernel`.
      *args: the signals that it reads.
      name: name of its state; default the kernel's.
    """
    return Machine(kernel, args, name or kernel.name, name is not None)


def _factory_name(step: Callable[..., Any]) -> str:
    outer = getattr(step, "__qualname__", "flow").split(".<locals>")
    name = outer[-2] if len(outer) > 1 else outer[-1]
    name = name.rsplit(".", 1)[-1]
    return name if name.isidentifier() else "flow"


def brief(value: Any) -> str:
    if value is None or isinstance(value, Flow | float | int | str | bool):
        return repr(value)
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return str(value) if getattr(value, "shape", None) == () else type(value).__name__
