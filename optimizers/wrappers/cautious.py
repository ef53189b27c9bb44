"""Cautious updates."""

import optax

from ...catalogue import method
from ...transforms import (
    Flow,
    Signal,
    check_choice,
    flow,
    leaf_mean,
    leaf_size,
    leaf_sum,
    maximum,
    positive,
    transformation,
)

SCALES = ("mean", "count", None)


@method("Liang et al. 2024, Cautious Optimizers", arxiv="2411.16085", wraps=True)
@transformation(min_mean=positive)
def cautious(
    inner: optax.GradientTransformation, scale: str | None = "mean", min_mean: float = 1e-3
) -> Flow:
    check_choice("cautious", "scale", scale, SCALES)

    def step(g: Signal) -> Signal:
        u = g >> inner
        keep = u * g < 0
        if scale == "mean":
            return u * keep / maximum(leaf_mean(keep), min_mean)
        if scale == "count":
            return u * keep * (leaf_size(u) / (leaf_sum(keep) + 1))
        return u * keep

    return flow(step)
