"""Running a transformation in subspaces of the gradient."""

from typing import Any, Literal

import jax
import optax

from ..control.holding import changes, with_previous
from ..control.restarts import restarting, steps_since
from ..notation.build import Flow, flow
from ..notation.checks import checked, transformation
from ..notation.compose import as_flow, named
from ..notation.context import Context
from ..notation.errors import FlowError
from ..notation.functions import lift_tree
from ..notation.hyperparameters import Mask, Number
from ..notation.parts import merge, split
from ..notation.program import Program
from ..notation.selection import matrices
from ..notation.signal import CellNode, Delay, Signal
from ..notation.splicing import Reader
from ..notation.storage import zeros
from ..notation.values import Leaves
from .bases import project, unproject
from .bases import residual as outside
from .transport import transporting

Moments = Literal["keep", "reset", "transport"]


@checked()
def in_subspace(
    g: Signal,
    inner: optax.GradientTransformation,
    basis: optax.GradientTransformation,
    moments: Moments = "keep",
) -> tuple[Signal, Signal, Signal]:
    """Runs a transformation on the coordinates of a signal: what `low_rank` is made of.

    A function of signals.

    Args:
      g: a tree signal.
      inner, basis, moments: see `low_rank`.

    Returns:
      The subspaces, the coordinates of g in them, and what the transformation makes of these.
    """
    program = named("low", inner).own_program
    finder = named("basis", basis).own_program
    read_ahead = _ReadAhead(g, finder, program)
    subspace = finder.receive(g, inputs=read_ahead.states)
    fresh = changes(subspace)
    past = None
    if moments == "transport":
        past, subspace = with_previous(subspace)
    low = project(subspace, g)
    reader: Reader | None = None
    count: Signal | None = None
    if past is not None:
        reader = transporting(fresh, past, subspace, low)
    elif moments == "reset":
        reader, count = restarting(fresh, restart_count=True), steps_since(fresh)
    moved = program.receive(low, read_ahead.around(reader), count)
    read_ahead.close()
    return subspace, low, moved


class _ReadAhead:
    """The inner states that a basis reads: they are read before the inner transformation runs."""

    def __init__(self, g: Signal, finder: Program, program: Program) -> None:
        slots = program.layout.slots()
        self.states: dict[str, Signal] = {}
        self.early: dict[int, Delay] = {}
        self.copies: list[tuple[Delay, Any]] = []
        for name in finder.needs:
            found = [slot for path, slot in slots.items() if path.split(".")[-1] == name]
            if name == "params" or not found:
                continue
            slot = found[0]
            if len(found) > 1 or not isinstance(slot, Delay):
                raise FlowError(
                    f"low_rank: {finder.label} reads the state `{name}` of the inner "
                    f"transformation; {program.label} has {', '.join(slots) or 'none'}"
                )
            self.early[slot.index] = slot.rewired((_coordinates_of(g, finder),))
            self.states[name] = self.early[slot.index]

    def around(self, reader: Reader | None) -> Reader | None:
        """The reader that gives the copied nodes the states that were read before."""
        if not self.early:
            return reader

        def read(original: Delay | CellNode, copy: Any) -> Signal:
            past = self.early.get(original.index)
            if past is None:
                return copy if reader is None else reader(original, copy)
            past.scope, past.site, past.dtype = copy.scope, copy.site, copy.dtype
            self.copies.append((past, copy))
            return past if reader is None else reader(original, past)

        return read

    def close(self) -> None:
        """Writes to them what the copied nodes were to hold."""
        for past, copy in self.copies:
            past.written = copy.written


def _coordinates_of(g: Signal, finder: Program) -> Signal:
    """Zeros in the shapes of the coordinates, which are known before the subspaces are."""

    def shapes(context: Context, tree: Leaves) -> Leaves:
        abstract = tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype))
        found = finder.output_shape(abstract)
        low: Leaves = found.map(
            lambda b, x: jax.eval_shape(lambda b, x: b.project(x), b, x), abstract
        )
        return low

    def coordinates(context: Context, tree: Leaves) -> Leaves:
        return zeros(shapes(context, tree))

    return lift_tree(coordinates, "coordinates", context=True, out=shapes)(g)


@transformation()
def low_rank(
    inner: optax.GradientTransformation,
    basis: optax.GradientTransformation,
    *,
    residual: optax.GradientTransformation | None = None,
    moments: Moments = "keep",
    scale: Number = 1.0,
    select: Mask = matrices,
) -> Flow:
    """Runs a transformation on the coordinates of gradients in subspaces.

    A transformation to send signals through.

        u_t = scale (P_t inner(P_t^T g_t) + residual(g_t - P_t P_t^T g_t))

    with P_t the subspaces that `basis` gives. When they change is its own affair:
    `every(k, svd_basis(rank))` at t = 1, k + 1, 2k + 1, ...;
    `every(k, svd_basis(rank), phase=0, also_first=True)` at t = 1, k, 2k, ...; `svd_basis(rank)` at
    every step. Leaves that are not selected go through `inner` as they are, without the scale: in
    `describe` their state is called `rest`.

    Args:
      inner: any transformation; its state has the shapes of the coordinates.
      basis: what finds the subspaces: `svd_basis`, `sketched_basis`, `random_basis`,
        `random_coordinates`, `selected_slices`, `active_leaves`, `descending_basis`,
        `correlation_aware_basis`, held by `every` or `when` or not. An input of its step that has
        the name of a state of `inner`, as "mu", is that state before the step.
      residual: what is done with the part outside the subspaces; None drops it.
      moments: what becomes of the inner state when the subspaces change. "keep" reads it in the new
        coordinates as it is; "reset" starts anew, step count included (see `reset_when`);
        "transport" carries it over: m becomes the coordinates in the new subspace of what it was in
        the old one, and so do the roots of second moments.
      scale: factor of the updates of selected leaves.
      select: the leaves to be projected: a predicate of a leaf, a tree of booleans, or a function
        of the params; default the matrices.

    Raises:
      FlowError: in `init`, for a rank above the smaller side of a selected leaf.
    """

    def step(g: Signal) -> Signal:
        chosen, others = split(g, select)
        subspace, _, moved = in_subspace(chosen, inner, basis, moments)
        u = unproject(subspace, moved)
        if residual is not None:
            u = u + (outside(subspace, chosen) >> residual)
        return merge(scale * u, others >> named("rest", as_flow(inner)))

    return flow(step)
