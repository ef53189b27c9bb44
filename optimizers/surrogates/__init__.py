"""Surrogates: a step goes down a model of the loss, in several steps or in one solved exactly."""

from .convex_concave_fista import convex_concave_fista, ginzburg_landau_prox
from .proxy_prox import proxy_prox
from .sso import armijo, sso

__all__ = [
    "armijo",
    "convex_concave_fista",
    "ginzburg_landau_prox",
    "proxy_prox",
    "sso",
]
