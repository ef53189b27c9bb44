"""Adam's direction: a momentum over the root of a second moment."""

from ..accumulate.ema import ema
from ..accumulate.moments import MomentumForm, debiased_root, divide, momentum, running_max
from ..notation import Flow, Signal, flow, named, sqrt, square, transformation
from ..notation.hyperparameters import Decay, DType, NonNegative


@transformation()
def scale_by_adam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    amsgrad: bool = False,
    bias_correction: bool = True,
    eps_before_correction: bool = False,
) -> Flow:
    """Momentum over the root of the mean squared gradient, entry by entry.

    A transformation to send signals through.

        m_t = b1 m_{t-1} + (1 - b1) g_t
        v_t = b2 v_{t-1} + (1 - b2) g_t^2
        u_t = m_t / (1 - b1^t) / (sqrt(v_t / (1 - b2^t) + eps_root) + eps)

    Both averages start at zero; the first update is nearly sign(g). What is 0/0, even with an eps
    that is 0 or underflows to it, is 0.

    Args:
      b1: decay of the momentum, in [0, 1); exactly 0 keeps none.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, after bias correction.
      eps_root: added under the root; needed to differentiate through an update at zero gradients.
      mu_dtype: storage dtype of m; default at least float32.
      nesterov: put b1 m_t / (1 - b1^(t+1)) + (1 - b1) g_t / (1 - b1^t) in the numerator (NAdam, as
        Optax has it).
      amsgrad: divide by the root of the largest v so far.
      bias_correction: False leaves out both corrections.
      eps_before_correction: add eps to sqrt(v_t), before v is debiased: some implementations
        derived from the first one in PyTorch do. Without effect if nothing is corrected.

    References:
      Kingma & Ba 2015, Adam: A Method for Stochastic Optimization (arXiv 1412.6980): Algorithm 1,
      as in Optax and PyTorch. The form at the end of the paper's section 2 is
      `eps_before_correction`.
    """
    form: MomentumForm = "debiased" if bias_correction else "ema"

    def step(g: Signal) -> Signal:
        m = g >> named("mu", momentum(b1, form, nesterov, dtype=mu_dtype))
        v = square(g) >> named("nu", ema(b2))
        if amsgrad:
            v = v >> named("nu_max", running_max())
        if not bias_correction:
            return divide(m, sqrt(v + eps_root) + eps, eps)
        root = debiased_root(v, b2, eps, eps_root, eps_before_correction=eps_before_correction)
        return divide(m, root, eps)

    return flow(step)
