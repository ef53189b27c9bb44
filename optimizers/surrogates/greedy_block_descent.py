"""Descent in the block of params that promises most."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...registry import method
from ...transforms import (
    Flow,
    FlowError,
    Signal,
    Size,
    flow,
    lift,
    lift_tree,
    norm_factors,
    scale_by_learning_rate,
    transformation,
    where,
)
from ...transforms.notation import linalg
from ...transforms.notation.crowds import of_stacks
from ...transforms.notation.known import is_known
from ...transforms.notation.mapping import numbers_of, one_each
from ...transforms.notation.ordering import kth_largest
from ...transforms.notation.roots import maximum_over
from ...transforms.notation.sharding import replicated
from ...transforms.notation.stacks import TINY
from ...transforms.notation.values import Leaves, is_missing

Rule = Literal["gs", "gsl", "gsd", "gsq"]
Blocks = Literal["leaves", "entries"]


@transformation()
def greedy_block_mask(
    rule: Rule = "gs",
    blocks: Blocks = "leaves",
    block_size: Size | None = None,
    lipschitz: optax.Params | None = None,
) -> Flow:
    r"""Sets the gradient to zero outside of the block that promises most.

    With s the step of the rule, the block is that of the largest :math:`\langle g_b, s_b \rangle`:

    - "gs": s = g;
    - "gsl": :math:`s_b = g_b / L_b`, L the largest bound of the block;
    - "gsd": :math:`s_i = g_i / D_i`;
    - "gsq": :math:`s_b = H_b^{-1} g_b`.

    For the last three that is the decrease that is certain, times 2, where the loss lies below the
    quadratic model with this curvature; "gs" favours large blocks.

    Args:
      rule: "gs", "gsl", "gsd" or "gsq".
      blocks: "leaves"; or "entries": the `block_size` entries of largest :math:`g_i s_i` in the
        whole tree, and those that tie with the last of them, with rule "gs" or "gsd".
      block_size: how many entries.
      lipschitz: tree of bounds on the curvature, positive: for each leaf a number or, entry by
        entry, an array ("gsl", "gsd"), or a symmetric matrix over its n entries, (n, n) ("gsq").

    Returns:
      The transformation; it has no state. Weight decay belongs before it, a momentum behind it
      would move the other blocks.

    Raises:
      ValueError: for a rule without its `lipschitz`, bounds that are not above 0 or that the rule
        "gs" has no use for, entries without `block_size`, or entries with a rule of whole blocks.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import greedy_block_mask
      >>> opt, g = greedy_block_mask(), {"a": jnp.array([2.0, 2.0]), "b": jnp.array([-2.5])}
      >>> {k: v.tolist() for k, v in opt.update(g, opt.init(g))[0].items()}
      {'a': [2.0, 2.0], 'b': [0.0]}

    References:
      Nutini, Laradji & Schmidt 2022, Let's Make Block Coordinate Descent Converge Faster
      (arXiv 1712.08859). The authors' code was not examined.
    """
    _check(rule, blocks, block_size, lipschitz)

    def step(g: Signal) -> Signal:
        inside, _ = _chosen(g, rule, blocks, block_size, lipschitz)
        return where(inside, g, 0.0)

    return flow(step)


@method(
    "Nutini, Laradji & Schmidt 2022, Let's Make Block Coordinate Descent Converge Faster: Faster "
    "Greedy Rules, Message-Passing, Active-Set Complexity, and Superlinear Convergence",
    arxiv="1712.08859",
    tags=("partitioned",),
    learning_rate=0.1,
)
@transformation()
def greedy_block_descent(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    rule: Rule = "gs",
    blocks: Blocks = "leaves",
    block_size: Size | None = None,
    lipschitz: optax.Params | None = None,
) -> Flow:
    r"""Block coordinate descent in the block that promises most.

    .. math::
        b = \arg\max_b \langle g_b, s_b \rangle, \qquad x_b \leftarrow x_b - \eta s_b

    with the steps s of `greedy_block_mask`. The whole gradient is needed to choose by: it saves no
    time, it is a yardstick for methods that update parts of a model.

    Args:
      learning_rate: eta; number or schedule. 1 is the minimum of the quadratic model for all rules
        but "gs", which has no curvature.
      rule, blocks, block_size, lipschitz: see `greedy_block_mask`.

    Returns:
      The optimizer; it has no state but the count of a schedule.

    Raises:
      ValueError: as `greedy_block_mask`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import greedy_block_descent
      >>> bounds = {"a": jnp.array([4.0, 8.0]), "b": jnp.array([1.0])}
      >>> opt = greedy_block_descent(rule="gsd", lipschitz=bounds)
      >>> g = {"a": jnp.array([4.0, 4.0]), "b": jnp.array([2.0])}
      >>> {k: v.tolist() for k, v in opt.update(g, opt.init(g))[0].items()}   # 4 + 2 against 4
      {'a': [-1.0, -0.5], 'b': [-0.0]}

    References:
      See `greedy_block_mask`.
    """
    _check(rule, blocks, block_size, lipschitz)

    def step(g: Signal) -> Signal:
        inside, down = _chosen(g, rule, blocks, block_size, lipschitz)
        return where(inside, down, 0.0) >> scale_by_learning_rate(learning_rate)

    return flow(step)


def _check(rule: str, blocks: str, block_size: int | None, lipschitz: optax.Params | None) -> None:
    if rule != "gs" and lipschitz is None:
        raise FlowError(f"rule={rule!r} needs lipschitz, bounds on the curvature")
    if rule == "gs" and lipschitz is not None:
        raise FlowError("rule='gs' has no curvature: lipschitz goes with 'gsl', 'gsd' and 'gsq'")
    _check_bounds(rule, lipschitz)
    if blocks == "entries" and block_size is None:
        raise FlowError("blocks='entries' needs block_size")
    if blocks == "entries" and rule in ("gsl", "gsq"):
        raise FlowError(
            f"rule={rule!r} is one of whole blocks; entries are chosen by 'gs' or 'gsd'"
        )


def _check_bounds(rule: str, lipschitz: optax.Params | None) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(lipschitz):
        at, shape = f"lipschitz{jax.tree_util.keystr(path)}", jnp.shape(leaf)
        if rule == "gsq" and (len(shape) != 2 or shape[0] != shape[1]):
            raise FlowError(f"{at} must be a symmetric matrix for rule='gsq', its shape is {shape}")
        if is_known(leaf):
            bounds = np.asarray(leaf, float)
            least = np.min(np.diagonal(bounds) if rule == "gsq" else bounds, initial=np.inf)
            if not least > 0:
                raise FlowError(f"{at} must be above 0, a bound is {least}")


def _chosen(
    g: Signal, rule: str, blocks: str, block_size: int | None, lipschitz: optax.Params | None
) -> tuple[Signal, Signal]:
    """Whether each leaf, or entry, is in the block, and the step of all."""
    size, _ = norm_factors(g)
    down = _step(g, rule=rule, lipschitz=lipschitz)
    promise = _promise(g / size, down / size)
    if blocks == "leaves":
        return _largest_leaf(promise), down
    return _largest_entries(promise, size=block_size), down


def _solved(g: jax.Array, matrix: jax.Array) -> jax.Array:
    return linalg.solve(matrix, replicated(g).ravel()).reshape(g.shape)


STEPS = {
    "gs": lambda g, bound: g,
    "gsl": lambda g, bound: g / maximum_over(bound),
    "gsd": lambda g, bound: g / bound,
    "gsq": _solved,
}


def _steps(tree: Leaves, rule: str, lipschitz: optax.Params | None) -> Leaves:
    if rule == "gs":
        return tree
    assert lipschitz is not None  # every other rule needs it
    bounds = Leaves.given(tree.treedef, lipschitz, "lipschitz")
    return tree.map(lambda g, d: STEPS[rule](g, jnp.asarray(d, jnp.finfo(g.dtype).dtype)), bounds)


_step = lift_tree(_steps, "surrogate_step", out=0)
_promise = lift(lambda g, s: jnp.real(jnp.conj(g) * s), "promise")


@of_stacks
def _first_largest(promise: Leaves) -> Leaves:
    there = [i for i, leaf in enumerate(promise.held) if not is_missing(leaf)]
    if not there:
        return promise
    best = jnp.asarray(there)[jnp.argmax(numbers_of(jnp.sum, promise, most=TINY))]
    is_best = jnp.arange(len(promise), dtype=best.dtype) == best
    return one_each(is_best, promise).only(set(there).__contains__)


_largest_leaf = lift_tree(
    _first_largest,
    "largest_leaf",
    out=lambda _, tree: tree.map(lambda leaf: jax.ShapeDtypeStruct((), jnp.bool_)),
)


def _among_largest(promise: Leaves, size: int) -> Leaves:
    entries = [replicated(leaf).ravel() for leaf in promise.present()]
    total = sum(leaf.size for leaf in entries)
    if not total:
        return promise.map(lambda leaf: jnp.zeros(leaf.shape, bool))
    least = kth_largest(jnp.concatenate(entries), min(size, total) - 1)
    return promise.map(lambda leaf: leaf >= least.astype(leaf.dtype))


_largest_entries = lift_tree(
    _among_largest,
    "largest_entries",
    out=lambda _, tree: tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bool_)),
)
