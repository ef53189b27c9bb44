"""ZO2: zeroth-order steps of a model that is larger than the accelerator's memory."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import FlowError, Key, NonNegative, PositiveConstant, transformation
from ...transforms.notation import draws
from ...transforms.notation.values import working
from ...transforms.trees.random import typed_key
from ...transforms.zeroth_order import draw_leaf

BlockFunction = Callable[[Any, Any], Any]
"""`(block, x) -> x`: what a block does with what comes from the block before; the last returns the
loss."""


class ZO2State(NamedTuple):
    """Where a run stands.

    Attributes:
      count: steps measured so far.
      slope: of the last one, whose update is pending.
      blocks: the params in host memory, without the pending update.
    """

    count: int  # type: ignore[assignment]  # a tuple's own count is a method
    slope: jax.Array
    blocks: tuple[Any, ...]


class ZO2(NamedTuple):
    """The functions of the method.

    Attributes:
      init: `blocks -> state`.
      step: `(state, functions, x) -> (state, loss)`; x enters the first block.
      flush: `state -> blocks`, with the pending update.
    """

    init: Callable[[Sequence[Any]], ZO2State]
    step: Callable[[ZO2State, Sequence[BlockFunction], Any], tuple[ZO2State, jax.Array]]
    flush: Callable[[ZO2State], tuple[Any, ...]]


@method(
    "Wang et al. 2025, ZO2: Scalable Zeroth-Order Fine-Tuning for Extremely Large Language Models "
    "with Limited GPU Memory",
    arxiv="2503.12668",
    kind="stepper",
    tags=("low-memory", "closure", "noise"),
    required={"learning_rate": 0.01},
)
@transformation()
def zo2(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: PositiveConstant = 1e-3,
    weight_decay: NonNegative = 0.0,
    key: Key = 0,
    device: jax.Device | None = None,
) -> ZO2:
    """MeZO on a model whose blocks visit the accelerator one at a time.

    The blocks live in host memory. At step t each is brought over once, and there:

        theta <- theta - lr (c_{t-1} z_{t-1} + wd theta)      the update of the step before
        x+ <- f(theta + eps z_t, x+),   x- <- f(theta - eps z_t, x-)

    before it goes back; z is redrawn from the key. The slope c_t = (l+ - l-) / (2 eps) is known
    after the last block, so its update is taken at the next visit: the losses are those of
    `mezo(...)` on the tuple of all blocks, and the pending update is taken by `flush`. While a
    block computes, the next one is on its way and the one before returns. Two blocks and the
    activations are all that the accelerator holds.

    Args:
      learning_rate: lr; number or schedule (0-based).
      perturbation_scale: eps, in units of the params.
      weight_decay: wd, multiplied by the rate.
      key: seed or key of the directions.
      device: the accelerator; default the first device.

    Returns:
      `init`, `step` and `flush`. `step` takes a function `(block, x) -> x` per block, the last one
      giving the loss; they are compiled once each, so pass the same functions at every step, and
      data as x. The loss that it returns is l+. Blocks keep their dtype on the way (bfloat16 halves
      the traffic); arithmetic is float32 at least.

    Raises:
      ValueError: for a hyper-parameter out of range, or as many functions as there are no blocks.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import zo2
      >>> layer = lambda w, x: jnp.tanh(x @ w)
      >>> loss = lambda w, x: jnp.mean((x @ w - 1.0) ** 2)
      >>> stepper, x = zo2(0.05), jnp.ones((4, 3))
      >>> state = stepper.init([jnp.eye(3), jnp.ones((3, 1))])
      >>> losses = []
      >>> for _ in range(50):
      ...     state, value = stepper.step(state, [layer, loss], x)
      ...     losses.append(float(value))
      >>> losses[-1] < 0.1 * losses[0]
      True

    References:
      Wang et al. 2025 (arXiv 2503.12668); liangyuwang/zo2 keeps generator states in a queue where
      we fold the number of the step into the key.
    """

    @cache  # not before `init`: building touches no device
    def places() -> tuple[Any, Any]:
        there = jax.devices()[0] if device is None else device
        far = jax.sharding.SingleDeviceSharding(there, memory_kind=_host_memory(there))
        return jax.sharding.SingleDeviceSharding(there), far

    visit = partial(_visit, rate=learning_rate, scale=perturbation_scale, decay=weight_decay)

    def init(blocks: Sequence[optax.Params]) -> ZO2State:
        _, far = places()
        return ZO2State(0, jnp.zeros(()), tuple(jax.device_put(block, far) for block in blocks))

    def step(
        state: ZO2State, functions: Sequence[BlockFunction], x: jax.Array
    ) -> tuple[ZO2State, jax.Array]:
        if len(functions) != len(state.blocks):
            raise FlowError(f"zo2: {len(functions)} functions for {len(state.blocks)} blocks")
        near, far = places()
        root, count = typed_key(key), jnp.asarray(state.count + 1)
        above = below = jax.device_put(x, near)
        offsets, returned = _offsets(state.blocks), []
        # Nothing here waits: the transfers of the next block and of the last one overlap.
        coming = jax.device_put(state.blocks[0], near)
        for i, function in enumerate(functions):
            block = coming
            if i + 1 < len(functions):
                coming = jax.device_put(state.blocks[i + 1], near)
            block, above, below = visit(
                function, block, above, below, root, count, state.slope, offsets[i]
            )
            returned.append(jax.device_put(block, far))
        slope = (above - below) / (2 * perturbation_scale)
        return ZO2State(state.count + 1, slope, tuple(returned)), above

    def flush(state: ZO2State) -> tuple[Any, ...]:
        near, far = places()
        root, count = typed_key(key), jnp.asarray(state.count + 1)
        pairs = zip(state.blocks, _offsets(state.blocks), strict=True)
        flushed = []
        for block, first in pairs:
            taken = _flushed(
                jax.device_put(block, near), root, count, state.slope, first, learning_rate,
                weight_decay,
            )  # fmt: skip
            flushed.append(jax.device_put(taken, far))
        return tuple(flushed)

    return ZO2(init, step, flush)


def _host_memory(device: jax.Device) -> str:
    """The host's memory as the device sees it; on a CPU that is the only one."""
    own: str = device.default_memory().kind
    kinds = {memory.kind for memory in device.addressable_memories()}
    return own if device.platform == "cpu" or "pinned_host" not in kinds else "pinned_host"


def _offsets(blocks: Sequence[jax.Array]) -> list[int]:
    """The place of each block's first leaf among the leaves of all."""
    sizes = [len(jax.tree.leaves(block)) for block in blocks]
    return [sum(sizes[:i]) for i in range(len(sizes))]


def _direction(block: optax.Params, root: jax.Array, count: jax.Array, first: int) -> optax.Params:
    leaves, structure = jax.tree.flatten(block)
    key = draws.fold_in(root, count - 1)
    drawn = [draw_leaf("gaussian", key, first + i, working(leaf)) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


def _taken(
    block: optax.Params,
    root: jax.Array,
    count: jax.Array,
    slope: jax.Array,
    first: int,
    rate: float | jax.Array,
    decay: jax.Array,
) -> optax.Params:
    """The block after the step before this one; the first step has none before it."""
    lr = rate(count - 2) if callable(rate) else rate
    lr = jnp.where(count > 1, lr, 0.0)
    z = _direction(block, root, count - 1, first)

    def moved(x: jax.Array, z: jax.Array) -> jax.Array:
        wide = working(x)
        return (wide - lr.astype(z.dtype) * (slope.astype(z.dtype) * z + decay * wide)).astype(
            x.dtype
        )

    return jax.tree.map(moved, block, z)


@partial(jax.jit, static_argnames=("rate",))
def _flushed(
    block: Any, root: Any, count: Any, slope: Any, first: int, rate: Any, decay: Any
) -> Any:
    return _taken(block, root, count, slope, first, rate, decay)


@partial(jax.jit, static_argnames=("function", "rate"), donate_argnames=("block",))
def _visit(
    function: BlockFunction,
    block: optax.Params,
    above: Any,
    below: Any,
    root: jax.Array,
    count: jax.Array,
    slope: jax.Array,
    first: int,
    rate: float | jax.Array,
    scale: jax.Array,
    decay: jax.Array,
) -> tuple[optax.Params, Any, Any]:
    block = _taken(block, root, count, slope, first, rate, decay)
    z = _direction(block, root, count, first)

    def at(sign: float) -> optax.Params:
        return jax.tree.map(lambda x, z: working(x) + (sign * scale) * z, block, z)

    return block, function(at(1.0), above), function(at(-1.0), below)
