"""A graph that runs: the `init` and `update` of a flow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import optax

from .boundary import check_outgoing, checked, matching, outgoing
from .carried import only_arrays, template_of
from .context import Context
from .errors import FlowError
from .foreign import Owner, brief, owner_of
from .graph import Graph
from .layout import COUNT, OBSERVED, Group, arrange, field_of, title_of
from .members import all_axes_of, all_varying
from .needs import missing_input, needs_of, reads_updates
from .places import sharing_places
from .placing import kept_in_place, placed
from .plain import own_arrays, owned, plain
from .scope import Scope, current_builder
from .shapes import UNKNOWN, Shapes, abstract, few_shapes
from .signal import Function, Input, Signal
from .splicing import Reader, splice
from .storage import filled
from .values import Leaves, scalar_dtype, working
from .walk import check_delays, first_states, walk


@dataclass(frozen=True, eq=False, repr=False)
class Program(Owner):
    """A graph with its names; `init` and `update` walk it. It never changes.

    Attributes:
      graph: its signals.
      label: the method's name.
      arguments: its hyper-parameters.
      state_name: the name that its state gets inside another flow; None: that of the method.
      parts: what a `chain` was made of, else empty.
      given: what it was given, of which those that are chains are its parts one by one.
      remake: makes the same transformation again, by which it is pickled; None: node by node.
      whole: whether it is a method, whose states are called alike in a chain and alone.
    """

    graph: Graph
    label: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    state_name: str | None = None
    parts: tuple[Any, ...] = ()
    given: tuple[Any, ...] = ()
    remake: Callable[[], Any] | None = None
    whole: bool = False

    def __copy__(self) -> "Program":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "Program":
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[object, ...]:
        if self.remake is None:
            return super().__reduce_ex__(protocol)
        return _remade, (self.remake, self.state_name)

    def __repr__(self) -> str:
        named_values = (f"{name}={brief(value)}" for name, value in self.arguments.items())
        inside = ", ".join(named_values) or ", ".join(map(brief, self.parts))
        return f"{self.label}({inside})"

    def watching(self, observed: Mapping[str, Signal], replaced: Mapping[int, Signal]) -> "Program":
        """The same program that keeps the given signals in its state.

        Args:
          observed: the signals by name.
          replaced: nodes that watch something within themselves, by the index of those that they
            stand in for.
        """
        graph = replace(
            self.graph,
            observed={**self.graph.observed, **observed},
            replaced={**self.graph.replaced, **replaced},
        )
        return replace(self, graph=graph, remake=None)

    @property
    def is_observed(self) -> bool:
        """Whether it keeps signals in its state for logging."""
        return bool(self.graph.observed or self.graph.replaced)

    @property
    def name(self) -> str:
        """What its state is called inside another flow."""
        return self.state_name or self.label

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """Names of the inputs that `update` must be given beside the gradients."""
        return needs_of(self.graph)

    @cached_property
    def is_stateless(self) -> bool:
        """Whether there is nothing to store."""
        return not (self.layout.fields or self.graph.uses_clock or self.graph.observed)

    @cached_property
    def is_leafwise(self) -> bool:
        """Whether it stores nothing and every leaf is made of that leaf of the gradient alone."""
        own = (
            node.is_leafwise if isinstance(node, Function) else isinstance(node, Input)
            for node in self.graph.live
        )
        return self.is_stateless and not self.needs and all(own)

    @cached_property
    def layout(self) -> Group:
        """Names and order of the states."""
        title = title_of("chain" if self.parts else self.graph.builder.label)
        return arrange(self.graph.slots, self.graph.builder.scope, title)

    def receive(
        self,
        signal: Signal,
        reader: Reader | None = None,
        clock: Signal | None = None,
        narrow: Callable[[Signal], Signal] | None = None,
        inputs: Mapping[str, Signal] | None = None,
        in_chain: bool = False,
    ) -> Signal:
        """`signal >> flow`: its nodes, copied into the flow that is being built; see `splice`."""
        around = current_builder(self.label).scope
        explicit = self.state_name is not None
        top = Scope(around, self.name, explicit, self.label, self.arguments, self.given)
        top.method = self.whole
        top.whole = in_chain and self.whole and not explicit
        return splice(signal, self.graph, top, reader, clock, narrow, inputs)

    def init(self, params: optax.Params) -> optax.OptState:
        """The state before the first step; abstract params give an abstract state."""
        params = only_arrays(params)
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)):
            return jax.eval_shape(self.init, params)
        return placed(self._first, params)

    def _first(self, params: optax.Params) -> optax.OptState:
        """The state of params that are arrays."""
        leaves = checked(Leaves.of(params), "params", self.label)
        state = self.init_on(leaves.map(working), leaves)
        try:
            self._check_shapes(few_shapes(leaves))
        except FlowError:
            self._check_shapes(leaves.map(abstract))
        return owned(state, params)

    def init_on(
        self, examples: Leaves, given: Leaves | None = None, outer: Context | None = None
    ) -> optax.OptState:
        """The state for a signal like `examples`: the params, or zeros of other shapes."""
        shapes = Shapes(self.starting(examples, given, outer))
        observed = all_varying(self._nothing_observed(shapes), all_axes_of(examples.values))
        return self._packed(first_states(self.graph, shapes), observed, jnp.zeros((), jnp.int32))

    def _check_shapes(self, given: Leaves) -> None:
        """Refuses in `init` what `update` would: other shapes than those of params and delays."""
        shapes = Shapes(self.starting(given.map(working), given))
        check_delays(self.graph, shapes)
        value = shapes.guess(self.graph.output)
        if value is not UNKNOWN:
            check_outgoing(value, given, given, self.label)

    def output_shape(self, examples: Leaves) -> Any:
        """Abstract value of what comes out for a signal like `examples`."""
        return Shapes(self.starting(examples)).require(self.graph.output, self.label)

    def starting(
        self, examples: Leaves, given: Leaves | None = None, outer: Context | None = None
    ) -> Context:
        """What is known before the first step, of a signal like `examples`."""
        label, dtype = self._label_in(outer), scalar_dtype(examples.present())
        return Context(label, examples.treedef, examples, {}, None, dtype, given, outer)

    def _nothing_observed(self, shapes: Shapes) -> dict[str, optax.Params]:
        zeros = {}
        for name, signal in self.graph.observed.items():
            shape = shapes.require(signal, f"observing {name!r}")
            zeros[name] = jax.tree.map(lambda leaf: filled(leaf, None), _exposed(shape))
        return zeros

    def update(
        self,
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        """One step: the outgoing update, in the dtype of the params, and the new state."""
        if updates is None and params is not None:
            updates = self._nothing_read(params)
        carried = None if params is None else template_of(updates, params)
        if carried is not None:
            params = carried.arrays
            extra = {name: carried.closure(value) for name, value in extra.items()}
        incoming = checked(Leaves.of(updates), "updates", self.label)
        given = None if params is None else matching(incoming, params, self.label)
        is_finite = self.graph.bounds.is_finite(self.graph.output)
        with sharing_places():
            value, new = self.run(incoming, own_arrays(state), given, extra)
            leaving = outgoing(value, incoming, given, self.label, is_finite)
        before = ((given or incoming).tree(), state)
        leaving, new = kept_in_place((leaving, new), before)
        return leaving, owned(new, leaving, updates, params, extra)

    def _nothing_read(self, params: optax.Params) -> optax.Updates:
        """What stands in for gradients that were not given, if no node looks at them."""
        if reads_updates(self.graph):
            raise FlowError(f"{self.label}: the gradient is None, but the method reads it")
        return jax.tree.map(jnp.zeros_like, params)

    def run(
        self,
        incoming: Leaves,
        state: optax.OptState,
        given: Leaves | None,
        extra: Mapping[str, Any],
        outer: Context | None = None,
    ) -> tuple[Any, optax.OptState]:
        """One step on flattened trees; what comes out may have any shape."""
        label = self._label_in(outer)
        stored, count = self._read(state, label)
        params = None if given is None else given.once(working)
        dtype = scalar_dtype((given or incoming).present())
        context = Context(label, incoming.treedef, params, extra, count, dtype, given, outer)
        self._demand_inputs(context)
        env = walk(self.graph, incoming, stored, context)
        observed = {name: _exposed(env[s.index]) for name, s in self.graph.observed.items()}
        observed = all_varying(observed, all_axes_of((given or incoming).values))
        return env[self.graph.output.index], self._packed(stored, observed, context.count)

    def _label_in(self, outer: Context | None) -> str:
        return self.label if outer is None else f"{outer.label}: {self.label}"

    def _demand_inputs(self, context: Context) -> None:
        for name, node in self.graph.inputs.items():
            value = context.given if name == "params" else context.extra.get(name)
            if value is None and not node.optional:
                raise FlowError(missing_input(self._label_of_user(node, context), name))

    def _label_of_user(self, node: Signal, context: Context) -> str:
        """The method's name; of a chain also that of the part that uses the node."""
        users = (n.scope for n in self.graph.live if any(arg is node for arg in n.args))
        scope = next(users, self.graph.builder.scope)
        while scope.parent is not None and scope.parent.parent is not None:
            scope = scope.parent
        is_part = bool(self.parts) and self.label == "chain" and scope.parent is not None
        return f"{context.label}: {scope.label}" if is_part else context.label

    def _read(
        self, state: optax.OptState, label: str
    ) -> tuple[dict[int, optax.OptState], jax.Array | None]:
        """What the slots hold, by node index, and the number of this step."""
        stored: dict[int, optax.OptState] = {}
        count: Any
        try:
            self.layout.unpack(state, stored)
            count = optax.safe_increment(field_of(state, COUNT)) if self.graph.uses_clock else None
        except FlowError as error:
            raise FlowError(f"{label}: {error}") from error
        return stored, count

    def _packed(
        self,
        values: dict[int, optax.OptState],
        observed: dict[str, optax.Params],
        count: jax.Array | None,
    ) -> optax.OptState:
        extra: dict[str, optax.OptState | None]
        extra = {COUNT: count} if self.graph.uses_clock else {}
        if observed:
            extra[OBSERVED] = observed
        return self.layout.pack(values, **extra)


def _remade(remake: Callable[[], Any], state_name: str | None) -> Program:
    """What unpickling a program calls."""
    return replace(owner_of(remake()), state_name=state_name)


def _exposed(value: Any) -> Any:
    """What is kept of an observed signal, or of its shape: the tree itself, flags as they are."""
    if not isinstance(value, Leaves):
        return value if isinstance(value, jax.ShapeDtypeStruct) else jnp.asarray(value)
    return value.map(lambda leaf: leaf if hasattr(leaf, "dtype") else plain(leaf)).tree()
