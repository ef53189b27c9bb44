"""ZO-SGD, block by block."""

import optax

from ...registry import method
from ...transforms import Flow, Key, Positive, Sampler, Signal, flow, scheduled, transformation
from ...transforms.trees import stored_key
from ...transforms.zeroth_order import BlockNames, BlockSteps, Directions, block_steps


@method(
    "Zhang et al. 2024, Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: "
    "A Benchmark",
    arxiv="2402.11592",
    tags=("partitioned", "closure", "noise"),
    learning_rate=0.01,
)
@transformation()
def zo_block_coordinate(
    learning_rate: optax.ScalarOrSchedule,
    perturbation_scale: Positive = 1e-3,
    blocks: BlockNames = None,
    sequential: bool = True,
    one_sided: bool = False,
    key: Key = 0,
    sampler: Sampler | None = None,
) -> Flow:
    """A zeroth-order step for each block of the params, one after the other.

        z_k = z on block k, 0 elsewhere,   for k = 1 ... K:
        c_k = (L(theta + eps z_k) - L(theta - eps z_k)) / (2 eps)
        theta <- theta - lr c_k z_k

    With `sequential` off all slopes are taken at the params before the step. The slope of a block
    has less variance than that of the whole model, at 2 K evaluations of the loss. Leaves outside
    every block do not move. The rate is part of the loop, so nothing that rescales the update
    belongs behind it.

    Args:
      learning_rate: lr; number or schedule.
      blocks: the names of the leaves, or of modules, of each block, "layer/kernel"; or a function
        of the params that returns a tree of labels, one per block, None for leaves that stay;
        default one block for every top-level key.
      sequential: later blocks see the new values of earlier ones.
      perturbation_scale, one_sided, key: see `spsa_gradient`.
      sampler: `(key, count, params) -> tree` of directions for all blocks; count is 1 at first.

    Returns:
      The optimizer; `update` needs `params` and `value_fn`, the same batch for all evaluations. Its
      state is a counter and a key.

    Raises:
      ValueError: for a hyper-parameter out of range, a missing input, an unknown leaf, or blocks
        that overlap (in `init`).

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import zo_block_coordinate
      >>> opt = zo_block_coordinate(0.1, blocks=[["b"]])
      >>> params = {"a": jnp.ones(2), "b": jnp.ones(2)}
      >>> loss = lambda p: jnp.sum(p["a"] ** 2) + jnp.sum(p["b"] ** 2)
      >>> u, _ = opt.update(None, opt.init(params), params, value_fn=loss)
      >>> u["a"].tolist(), bool(jnp.all(u["b"] != 0))
      ([0.0, 0.0], True)

    References:
      Zhang et al. 2024 (arXiv 2402.11592). ZO-Bench/ZO-LLM seeds every block alike, so that leaves
      at the same place of two blocks share their direction; ours are independent.
    """
    how = BlockSteps(blocks, Directions("gaussian", sampler, 1), sequential, one_sided)

    def step(g: Signal, params: Signal) -> Signal:
        rate, scale = scheduled(learning_rate), scheduled(perturbation_scale)
        return block_steps(params, stored_key(key), rate, scale, how)

    return flow(step)
