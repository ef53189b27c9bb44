"""The next rate to try, by a Gaussian process over the logarithm of the rates tried."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...transforms import NonNegative, checked

GRID = 1000
"""Rates among which the best is looked for."""


@checked()
def gp_lcb(
    trials: Sequence[tuple[float, float]],
    min_learning_rate: float,
    max_learning_rate: float,
    random: np.random.Generator,
    kappa: NonNegative = 1e6,
) -> float:
    """The rate with the lowest confidence bound, mean - kappa deviation, of the loss.

    The process has a Matern kernel of smoothness 5/2 with a free scale, free noise, and losses in
    units of their own deviation, over log(rate). Without trials the rate is drawn, uniformly in its
    logarithm.

    Args:
      trials: (rate, loss) of the rates tried.
      min_learning_rate: the smallest rate, above 0.
      max_learning_rate: the largest one.
      random: what is drawn is drawn with it.
      kappa: how much the unknown attracts; the default looks only where least is known.

    Returns:
      A rate.

    Raises:
      ImportError: without scikit-learn.

    Example:
      >>> import numpy as np
      >>> from gradchain.optimizers import gp_lcb
      >>> trials = [(1e-4, 2.0), (1e-3, 1.0), (1e-1, 3.0)]
      >>> rate = gp_lcb(trials, 1e-4, 1e-1, np.random.default_rng(0))
      >>> 3e-3 < rate < 3e-2
      True

    References:
      Jin et al. 2021, AutoLRS (arXiv 2105.10762), and the authors' code, which takes process and
      kappa from scikit-optimize. The bound is minimised on a grid here.
    """
    low, high = np.log(min_learning_rate), np.log(max_learning_rate)
    if not trials:
        return float(np.exp(random.uniform(low, high)))
    process = _process(int(random.integers(2**31)))
    rates, losses = np.array(trials, np.float64).T
    grid = np.linspace(0.0, 1.0, GRID)
    with warnings.catch_warnings():
        # of a few points, a parameter of the kernel often ends at its bound
        warnings.simplefilter("ignore")
        process.fit((np.log(rates) - low)[:, None] / (high - low), losses)
        mean, deviation = process.predict(grid[:, None], return_std=True)
    best = grid[np.argmin(mean - kappa * deviation)]
    return float(np.exp(low + best * (high - low)))


def _process(seed: int) -> Any:
    try:
        from sklearn.gaussian_process import GaussianProcessRegressor, kernels
    except ImportError as error:
        raise ImportError(
            "gp_lcb needs scikit-learn: pip install 'gradchain[controllers]'"
        ) from error
    scaled = kernels.ConstantKernel(1.0, (0.01, 1000.0)) * kernels.Matern(
        1.0, (0.01, 100.0), nu=2.5
    )
    return GaussianProcessRegressor(
        scaled + kernels.WhiteKernel(),
        normalize_y=True,
        n_restarts_optimizer=2,
        random_state=seed,
    )
