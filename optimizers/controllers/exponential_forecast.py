"""Where a noisy loss is going: an exponential fitted to what is left without outliers."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ...transforms import FlowError, Positive, checked

Array = np.ndarray[Any, Any]

SHORTEST = 16
"""Fewer losses than these, and the share of outliers would round to none, or to all."""
SHARE, ROUNDS = 0.03, 10


class Exponential(NamedTuple):
    """The curve a exp(b x) + c, with b < 0."""

    a: float
    b: float
    c: float

    def __call__(self, x: float) -> float:
        return float(self.a * np.exp(self.b * x) + self.c)


@checked()
def exponential_forecast(losses: ArrayLike, horizon: Positive, training_loss: bool = True) -> float:
    """The loss at x = horizon, of a series at x = 0, 1, ..., n - 1.

    1. Outliers go: those of the first half of the series among the 3 % farthest from a smoothing
       spline of degree 2, ten times; of a validation loss only the farthest, once.
    2. The spline of the rest, at all x, takes the place of the series.
    3. a exp(b x) + c with b < 0 is fitted by least squares.

    Args:
      losses: at least 16 finite numbers.
      horizon: where to look, counted as x is: from the start of the series.
      training_loss: whether it is a training loss, noisier than a validation loss.

    Returns:
      The forecast.

    Raises:
      ValueError: for other losses, or a horizon that is not positive.

    Example:
      >>> import numpy as np
      >>> from gradchain.optimizers import exponential_forecast
      >>> losses = 2.0 + np.exp(-0.02 * np.arange(50))
      >>> round(exponential_forecast(losses, horizon=500), 2)
      1.94

    References:
      Jin et al. 2021, AutoLRS: Automatic Learning-Rate Schedule by Bayesian Optimization on the Fly
      (arXiv 2105.10762), and the authors' code, YuchenJin/autolrs.
    """
    values = np.asarray(losses, np.float64)
    if values.ndim != 1 or values.size < SHORTEST or not np.isfinite(values).all():
        raise FlowError(
            f"exponential_forecast: losses must be at least {SHORTEST} finite numbers, "
            f"got {losses!r}"
        )
    return fitted(values, training_loss)(float(horizon))  # type: ignore[arg-type]


def fitted(losses: Array, training_loss: bool) -> Exponential:
    """The curve of a series, see `exponential_forecast`."""
    from scipy.optimize import minimize  # heavy, and seldom needed

    x = np.arange(losses.size, dtype=float)
    smooth = _spline(*_without_outliers(x, losses, training_loss))(x)
    # tolerances and start are those of the code, whose fit stops as early
    found = minimize(
        partial(_misfit, x=x, y=smooth), 0.0, method="Nelder-Mead",
        options={"xatol": 1e-5, "fatol": 1e-5},
    )  # fmt: skip
    beta = float(found.x[0])
    a, c = _least_squares(beta, x, smooth)
    return Exponential(float(a), -float(np.exp(beta)), float(c))


def _without_outliers(x: Array, y: Array, training_loss: bool) -> tuple[Array, Array]:
    first_half = x[(x.size - 1) // 2]
    for _ in range(ROUNDS if training_loss else 1):
        farthest = np.argsort(np.abs(y - _spline(x, y)(x)), kind="stable")
        count = round(SHARE * x.size) if training_loss else 1
        outliers = [i for i in farthest[x.size - count :] if i < first_half]
        x, y = np.delete(x, outliers), np.delete(y, outliers)
    return x, y


def _spline(x: Array, y: Array) -> Callable[[Array], Array]:
    from scipy.interpolate import UnivariateSpline

    with warnings.catch_warnings():
        # of losses that leap, it stops short of the smoothness asked for, and serves all the same
        warnings.simplefilter("ignore")
        return UnivariateSpline(x, y, k=2)


def _columns(beta: float, x: Array) -> Array:
    return np.stack([np.exp(-np.exp(beta) * x), np.ones_like(x)], axis=1)


def _least_squares(beta: float, x: Array, y: Array) -> Array:
    return np.linalg.lstsq(_columns(beta, x), y, rcond=None)[0]


def _misfit(beta: Array, x: Array, y: Array) -> float:
    at = float(np.squeeze(beta))
    return float(np.sum((_columns(at, x) @ _least_squares(at, x, y) - y) ** 2))
