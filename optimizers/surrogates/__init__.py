"""Surrogates: a step goes down a model of the loss, in several steps or in one solved exactly."""

from .convex_concave_fista import convex_concave_fista, ginzburg_landau_prox
from .greedy_block_descent import greedy_block_descent, greedy_block_mask
from .proxy_prox import proxy_prox
from .sso import armijo, sso

__all__ = [
    "armijo",
    "convex_concave_fista",
    "ginzburg_landau_prox",
    "greedy_block_descent",
    "greedy_block_mask",
    "proxy_prox",
    "sso",
]
