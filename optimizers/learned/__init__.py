"""Learned optimizers: a network, trained on other tasks, makes a step of the gradient."""

from .mu_lo import mu_lo, mu_lo_weights, mu_lo_width_multipliers

__all__ = [
    "mu_lo",
    "mu_lo_weights",
    "mu_lo_width_multipliers",
]
