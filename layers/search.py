"""Finding the marks in a trace, and which param each kernel is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from jax.extend import core

from ..transforms.notation.errors import FlowError
from .marks import mark_p

Atom: TypeAlias = core.Var | core.Literal
"""What an equation of a trace reads: a variable or a constant."""


@dataclass(frozen=True)
class Origin:
    """Which param a value is: its leaf, whether something was computed from it on the way, and
    the scans that took a slice of it, outermost first."""

    leaf: int
    computed: bool = False
    slicing: tuple[int, ...] = ()


@dataclass(frozen=True)
class Mark:
    """One call of a layer in the trace."""

    params: dict[str, Any]
    x: Any
    y: Any
    origin: Origin | None
    scans: tuple[tuple[int, int], ...] = ()


@dataclass
class Search:
    """Walks a trace for marks, in the order in which `evaluate` meets them."""

    marks: list[Mark] = field(default_factory=list)
    scans: list[tuple[int, int]] = field(default_factory=list)
    opened: int = 0

    def visit(self, jaxpr: core.Jaxpr, origins: Sequence[Origin | None]) -> list[Origin | None]:
        """The origins of the outputs, given those of the inputs."""
        known = dict(zip(jaxpr.invars, origins, strict=True))

        def of(atom: Atom) -> Origin | None:
            return None if isinstance(atom, core.Literal) else known.get(atom)

        for eqn in jaxpr.eqns:
            outputs = self._equation(eqn, [of(atom) for atom in eqn.invars])
            known.update(zip(eqn.outvars, outputs, strict=True))
        return [of(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: core.JaxprEqn, origins: list[Origin | None]) -> list[Origin | None]:
        if eqn.primitive is mark_p:
            x, y, _ = (atom.aval for atom in eqn.invars)
            self.marks.append(Mark(dict(eqn.params), x, y, origins[2], tuple(self.scans)))
            return [origins[1]]
        inner = inner_jaxpr(eqn)
        if eqn.primitive.name == "scan":
            return self._scan(eqn, inner, origins)
        if inner is not None:
            return self.visit(inner, origins)
        for sub in core.jaxprs_in_params(eqn.params):
            name = first_mark(sub)
            if name is not None:
                raise FlowError(
                    f"the layer {name} is called inside `{eqn.primitive.name}`, where its inputs "
                    f"cannot be read: skip=({name!r},) leaves it out"
                )
        if eqn.primitive.name in _PASSING:
            return [origins[0]]
        derived = next((o for o in origins if o is not None), None)
        if derived is not None:
            derived = Origin(derived.leaf, True, derived.slicing)
        return [derived] * len(eqn.outvars)

    def _scan(
        self, eqn: core.JaxprEqn, body: core.Jaxpr, origins: list[Origin | None]
    ) -> list[Origin | None]:
        consts, carry = eqn.params["num_consts"], eqn.params["num_carry"]
        self.opened += 1
        level = self.opened
        inner: list[Origin | None] = []
        for i, origin in enumerate(origins):
            if origin is None:
                inner.append(None)
            elif i < consts or (i < consts + carry and body.outvars[i - consts] is body.invars[i]):
                inner.append(origin)
            elif i < consts + carry:
                inner.append(Origin(origin.leaf, True, origin.slicing))
            else:
                inner.append(Origin(origin.leaf, origin.computed, (*origin.slicing, level)))
        self.scans.append((level, eqn.params["length"]))
        out = self.visit(body, inner)
        self.scans.pop()
        kept = [o if i < carry else None for i, o in enumerate(out)]
        return kept


_PASSING = frozenset(
    {"convert_element_type", "copy", "copy_p", "sharding_constraint", "optimization_barrier"}
)
_INLINED = frozenset({"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "scan"})


def inner_jaxpr(eqn: core.JaxprEqn) -> Any:
    """The inner trace of a call, None for anything else."""
    if eqn.primitive.name not in _INLINED:
        return None
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    return inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner


def first_mark(jaxpr: core.Jaxpr | core.ClosedJaxpr) -> str | None:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for eqn in jaxpr.eqns:
        if eqn.primitive is mark_p:
            return str(eqn.params["name"])
        for sub in core.jaxprs_in_params(eqn.params):
            found = first_mark(sub)
            if found is not None:
                return found
    return None


def has_mark(eqn: core.JaxprEqn) -> bool:
    return any(first_mark(sub) is not None for sub in core.jaxprs_in_params(eqn.params))
