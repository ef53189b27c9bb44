"""What a compressor leaves out is not lost: it is sent later."""

from typing import Literal

from ..notation.build import Flow, flow
from ..notation.checks import transformation
from ..notation.context import Context
from ..notation.functions import saturate
from ..notation.hyperparameters import Count, Fraction, Number
from ..notation.signal import Signal
from ..notation.steps import delay, step_count
from ..notation.values import Leaves
from ..workers import axis
from ..workers.signals import exchanged, of_worker
from .compressor import Compression, Weights, exchange, shares_of, workers_of


@transformation()
def compress_with_error_feedback(
    compressor: Compression,
    axis_name: str | None = None,
    *,
    decay: Fraction = 1.0,
    uncompressed_steps: Count = 0,
) -> Flow:
    """Sends compressed what comes in and what was not sent before.

    A transformation to send signals through. Worker i keeps its error e_i, which starts at 0:

        p_i = decay e_i + g_i,    e_i <- p_i - C(p_i),    u = mean_i C(p_i)

    Args:
      compressor: C, see `exchange`.
      axis_name: the axis along which the workers lie; None: there is one.
      decay: of the error.
      uncompressed_steps: so many steps at first, in which everything is sent.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.transforms.compression import compress_with_error_feedback, top_k
      >>> opt = compress_with_error_feedback(top_k(1))
      >>> g = jnp.array([2.0, 3.0])
      >>> first, state = opt.update(g, opt.init(g))
      >>> second, state = opt.update(g, state)
      >>> first.tolist(), second.tolist()
      ([0.0, 3.0], [4.0, 0.0])

    References:
      Seide et al. 2014, 1-bit stochastic gradient descent; Karimireddy et al. 2019, Error Feedback
      Fixes SignSGD and other Gradient Compression Schemes (arXiv 1901.09847).
    """

    def step(g: Signal) -> Signal:
        mine = of_worker(g, axis_name)
        error = delay(mine, name="error")
        p = saturate(decay * error + mine)
        at_first = isinstance(uncompressed_steps, int) and uncompressed_steps == 0
        whole = None if at_first else step_count() <= uncompressed_steps
        sent, mean = exchange(p, compressor, axis_name, whole=whole)
        error << p - sent
        return mean

    return flow(step)


@transformation()
def compress_differences(
    compressor: Compression,
    axis_name: str | None = None,
    *,
    weights: Weights | None = None,
    start: Literal["full", "compressed", "zero"] = "full",
    error_weight: Number | None = None,
) -> Flow:
    """Sends compressed how far the signal is from what the others know of it.

    A transformation to send signals through. All know G_i of worker i, which starts at 0, and keep
    their mean G:

        D_i = C(a_i - G_i),    G_i <- G_i + D_i,    u = G = sum_i w_i G_i

    where a_i = g_i / (n w_i), so that G follows the mean of the signals whatever the weights are.
    With an `error_weight` eta the accumulated difference e_i is sent along, too:

        D_i = C(eta e_i + a_i - G_i),    e_i <- e_i + a_i - G_i - D_i

    Args:
      compressor: C, see `exchange`.
      axis_name: the axis along which the workers lie; None: there is one.
      weights: w, a positive number for each worker, scaled to sum 1; None: equal ones.
      start: "full": the first signal is sent in full; "compressed" or "zero": it is compressed.
      error_weight: eta; None keeps no error.
    """

    def step(g: Signal) -> Signal:
        mine = of_worker(g, axis_name) if weights is None else _over_share(g, weights, axis_name)
        known = delay(mine, name="estimate")
        difference = saturate(mine - known)
        whole = step_count() == 1 if start == "full" else None
        if error_weight is None:
            sent, mean = exchange(difference, compressor, axis_name, weights=weights, whole=whole)
        else:
            error = delay(mine, name="error")
            p = saturate(error_weight * error + difference)
            sent, mean = exchange(p, compressor, axis_name, weights=weights, whole=whole)
            error << saturate(error + difference) - sent
        known << known + sent
        average = delay(mean, name="average")
        return average << average + mean

    return flow(step)


def _over_share(g: Signal, weights: Weights | None, axis_name: str | None) -> Signal:
    """Each worker's signal over n w_i."""

    def scaled(context: Context, tree: Leaves) -> Leaves:
        shares = shares_of(context.label, weights, axis_name, context.scalar_dtype)
        factor = 1 / (len(shares) * shares[axis.worker_index(axis_name)])
        return tree.map(lambda x: (factor * x).astype(x.dtype))

    return exchanged(scaled, "over_share", axis_name, lambda *_: 0.0, workers_of(weights))(g)
