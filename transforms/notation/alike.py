"""The tie: an operation by which a compiler spreads one array over a mesh as another.

JAX 0.12 has none of its own. Shardy's groups are what JAX's `shard_alike` was made of before; the
partitioner before Shardy is told nothing.
"""

import itertools
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.extend.mlir.dialects import sdy
from jax.interpreters import ad, batching, mlir

_groups = itertools.count(2**32)
"""Numbers of Shardy's groups, none of the user's."""


class Tie:
    """One tie: JAX lowers operations of one type and one tie once.

    It equals no other but prints as all do, so that programs that are alike print alike.
    """

    def __repr__(self) -> str:
        return "tie"


tie_p = Primitive("gradchain_tie")
"""(other, leaf) -> leaf. Param: tie, one of its own."""


def spread_alike(other: jax.Array, leaf: jax.Array) -> jax.Array:
    """The leaf, which lies as the other does.

    Args:
      other: an array of the same shape.
      leaf: an array.
    """
    tied: jax.Array = tie_p.bind(other, leaf, tie=Tie())
    return tied


def _tied_batch(
    args: tuple[jax.Array, jax.Array], dims: tuple[int | None, int | None], *, tie: Tie
) -> tuple[jax.Array, int | None]:
    other, leaf = args
    return (tie_p.bind(other, leaf, tie=tie) if dims[0] == dims[1] else leaf), dims[1]


def _tied_program(_: object, other: Any, leaf: Any, *, tie: Tie) -> list[Any]:
    config: Any = jax.config
    if config.jax_use_shardy_partitioner:
        group = next(_groups)
        for value in (other, leaf):
            sdy.sharding_group(value, group)
    return [leaf]


tie_p.def_impl(lambda other, leaf, tie: leaf)
tie_p.def_abstract_eval(lambda other, leaf, tie: leaf)
ad.primitive_jvps[tie_p] = lambda primals, tangents, tie: (
    tie_p.bind(*primals, tie=tie),
    tangents[1],
)
batching.primitive_batchers[tie_p] = _tied_batch
mlir.register_lowering(tie_p, _tied_program)
