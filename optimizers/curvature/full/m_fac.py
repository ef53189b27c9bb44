"""M-FAC."""

import optax

from ....registry import method
from ....transforms import (
    Decay,
    DType,
    Flow,
    Mask,
    NonNegative,
    Positive,
    Signal,
    Size,
    chain,
    decay_weights,
    delay,
    ema,
    flatten_tree,
    flow,
    handed_on,
    is_neutral,
    named,
    on_leaves,
    scale_by_learning_rate,
    tap,
    transformation,
    unflatten_tree,
    where,
    window,
)
from ....transforms.accumulate import ring_slot
from ....transforms.curvature import all_finite
from .gram import gram_like, gram_update, lone_solve, window_solve


@transformation()
def scale_by_m_fac(
    num_grads: Size = 1024, damping: Positive = 1e-5, window_dtype: DType | None = None
) -> Flow:
    """The gradient times the inverse of the empirical Fisher matrix of a window of gradients.

        F_t = damping I + (1/m) sum of g g^T over the last m gradients, g_t among them
        u_t = F_t^{-1} g_t

    All leaves form one vector of d entries. F is never formed: an inner product with each kept
    gradient and a Cholesky decomposition of the m x m matrix of such products give u in
    O(d m + m^3). The divisor is m also while the window fills. A gradient that is not finite
    enters as zero (tap `gradient_is_finite`); where rounding has made the system of the window
    singular, the newest gradient is taken alone (tap `window_is_regular`).

    The state is m times the size of the model: that is the price of the method.

    Args:
      num_grads: m.
      damping: of the Fisher matrix, positive.
      window_dtype: storage dtype of the gradients, bfloat16 for half the memory; default at least
        float32.

    References:
      Frantar, Kurtic & Alistarh 2021, M-FAC: Efficient Matrix-Free Approximations of Second-Order
      Information (arXiv 2107.03356). The official code reaches the same vector by a recursion.
    """

    def step(g: Signal) -> Signal:
        flat = flatten_tree(g)
        kept = where(tap("gradient_is_finite", all_finite(flat)), flat, 0.0)
        rows = kept >> named("window", window(num_grads, dtype=window_dtype))
        slot = ring_slot(num_grads)
        gram = delay(gram_like(rows), name="gram")
        gram << gram_update(gram, rows, slot)
        u = window_solve(rows, gram.written, slot, damping)
        is_regular = tap("window_is_regular", all_finite(u))
        return unflatten_tree(where(is_regular, u, lone_solve(rows, slot, damping)), g)

    return flow(step)


@method(
    "Frantar, Kurtic & Alistarh 2021, M-FAC: Efficient Matrix-Free Approximations of Second-Order "
    "Information",
    arxiv="2107.03356",
    tags=("curvature", "low-rank"),
    learning_rate=1e-2,
    small_model={"num_grads": 8, "damping": 0.01},
)
@transformation(synonyms={"mask": "trainable"})
def m_fac(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    num_grads: Size = 1024,
    damping: Positive = 1e-5,
    momentum: Decay = 0.0,
    weight_decay: NonNegative = 0.0,
    trainable: Mask | None = None,
    window_dtype: DType | None = None,
) -> Flow:
    """M-FAC with coupled weight decay; the rule is that of `scale_by_m_fac`.

    The decay is added to the gradient before it enters the window; the momentum is a plain EMA of
    the directions, not debiased. The authors' recipe for a ResNet-20: 512 gradients, decay 3e-3,
    batches of 128.

    Args:
      learning_rate: number or schedule.
      num_grads, damping: see `scale_by_m_fac`.
      momentum: decay of the average of directions, in [0, 1).
      weight_decay: coefficient of the L2 term.
      trainable: leaves that are trained, and enter the window; the others are not moved. Default
        all.
      window_dtype: see `scale_by_m_fac`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import m_fac
      >>> params, opt = jnp.array([1.0, 1.0]), m_fac(1.0, num_grads=2, damping=0.5)
      >>> u, _ = opt.update(jnp.array([1.0, 0.0]), opt.init(params), params)
      >>> u.round(4).tolist()
      [-1.0, -0.0]
    """
    parts = [decay_weights(weight_decay), handed_on(scale_by_m_fac)]
    if not is_neutral(momentum):
        parts.append(named("mu", ema(momentum)))
    return on_leaves(trainable, chain(*parts, scale_by_learning_rate(learning_rate)))
