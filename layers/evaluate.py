"""Running a trace while zeros are added to the marked outputs."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import jax
from jax.extend import core

from .marks import mark_p
from .search import Atom, has_mark, inner_jaxpr


def evaluate(
    jaxpr: core.Jaxpr,
    consts: Sequence[jax.Array],
    args: list[jax.Array],
    added: Iterator[jax.Array],
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Runs a trace; the next of `added` is added to every marked output.

    Returns:
      The outputs, and the marked inputs in the order of the marks.
    """
    env: dict[core.Var, jax.Array] = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    inputs: list[jax.Array] = []

    def read(atom: Atom) -> jax.Array:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        if eqn.primitive is mark_p:
            inputs.append(values[0])
            out = [values[1] + next(added)]
        elif inner_jaxpr(eqn) is not None and has_mark(eqn):
            out, more = _call(eqn, values, added)
            inputs += more
        else:
            out = _apply(jaxpr, eqn, values)
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(atom) for atom in jaxpr.outvars], inputs


def _apply(jaxpr: core.Jaxpr, eqn: core.JaxprEqn, values: list[jax.Array]) -> list[Any]:
    """Runs one equation: as a trace of its own, so that jax keeps its rules of differentiation."""
    given = {atom: x for atom, x in zip(eqn.invars, values, strict=True) if _is_variable(atom)}
    wanted = [atom for atom in eqn.outvars if not isinstance(atom, core.DropVar)]
    alone = jaxpr.replace(constvars=[], invars=list(given), outvars=wanted, eqns=[eqn])
    found = core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*given.values())
    named = dict(zip(wanted, found, strict=True))
    return [named.get(atom) for atom in eqn.outvars]


def _is_variable(atom: Atom) -> TypeGuard[core.Var]:
    return not isinstance(atom, core.Literal)


def _call(
    eqn: core.JaxprEqn, values: list[jax.Array], added: Iterator[jax.Array]
) -> tuple[list[jax.Array], list[jax.Array]]:
    closed = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    inner, consts = inner_jaxpr(eqn), getattr(closed, "consts", ())
    mine = [next(added) for _ in range(_count_marks(inner))]
    if eqn.primitive.name == "scan":
        return _run_scan(eqn, inner, consts, values, mine)

    def run(
        values: list[jax.Array], mine: list[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        return evaluate(inner, consts, values, iter(mine))

    if eqn.primitive.name in ("remat2", "checkpoint"):
        chosen = {key: eqn.params[key] for key in ("prevent_cse", "policy")}
        return jax.checkpoint(run, **chosen)(values, mine)
    return run(values, mine)


def _count_marks(jaxpr: core.Jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        inner = inner_jaxpr(eqn)
        total += 1 if eqn.primitive is mark_p else _count_marks(inner) if inner else 0
    return total


def _run_scan(
    eqn: core.JaxprEqn,
    body: core.Jaxpr,
    consts: Sequence[jax.Array],
    values: list[jax.Array],
    mine: list[jax.Array],
) -> tuple[list[jax.Array], list[jax.Array]]:
    fixed, carried = eqn.params["num_consts"], eqn.params["num_carry"]
    shared, carry, scanned = (
        values[:fixed],
        values[fixed : fixed + carried],
        values[fixed + carried :],
    )

    def step(
        carry: list[jax.Array], slices: tuple[list[jax.Array], list[jax.Array]]
    ) -> tuple[list[jax.Array], tuple[list[jax.Array], list[jax.Array]]]:
        scanned, mine = slices
        out, inputs = evaluate(body, consts, [*shared, *carry, *scanned], iter(mine))
        return out[:carried], (out[carried:], inputs)

    chosen = {key: eqn.params[key] for key in ("length", "reverse", "unroll")}
    carry, (stacked, inputs) = jax.lax.scan(step, carry, (scanned, mine), **chosen)
    return [*carry, *stacked], inputs
