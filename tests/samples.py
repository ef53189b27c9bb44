"""How the tests build the methods of the catalogue by name."""

import functools
from typing import Any

from gradchain.catalogue import METHODS, Method

ZEROTH_ORDER = (
    "mezo", "zeroflow", "zo_adam", "zo_adamu", "zo_block_coordinate", "zo_sgd",
    "zo_sgd_conservative", "zo_sgd_momentum", "zo_sign_sgd", "zo_sparse",
)  # fmt: skip

SAMPLES: dict[str, dict[str, Any]] = {
    # At 1e-3 the differences of float32 losses have three digits: too few to compare two programs.
    **{name: {"perturbation_scale": 0.03} for name in ZEROTH_ORDER},
    "zeroflow": {"perturbation_scale": 0.03, "history": 0.5},
    "adafactor": {"min_dim_size_to_factor": 2},  # the tests' matrices are factored too
}
"""Arguments that the tests need beside those for a small model; few methods have any."""

REAL_ONLY = frozenset(
    {
        "adahessian", "adopt", "cocob", "egn", "k_fac", "lazy_cubic_newton", "lazy_newton",
        "micro_adam", "mkor", "mkor_h", "mu_lo", "mup_second_order", "oasis", "psgd_kron",
        "psgd_lra", "psgd_xmat", "scaled_gd", "singd", "sm3", "soap", "sophia_g", "sophia_h", "sso",
        "stochastic_newton_filter", "upgd",
    }
)  # fmt: skip
"""Methods whose mathematics has no complex form."""


def method_named(name: str) -> Method:
    """The catalogue's entry."""
    return METHODS[name]


def arguments_of(name: str, **overrides: Any) -> dict[str, Any]:
    """All arguments of the method's factory in the tests, by name."""
    entry = METHODS[name]
    return entry.arguments(**{**entry.small_model, **SAMPLES.get(name, {}), **overrides})


def sample(name: str, learning_rate: Any = None, **overrides: Any) -> Any:
    """The method as the tests build it; the same value again, as it never changes."""
    if learning_rate is None and not overrides:
        return _plain(name)
    return METHODS[name].for_small_model(learning_rate, **{**SAMPLES.get(name, {}), **overrides})


@functools.cache
def needs_of(name: str) -> tuple[str, ...]:
    """What the method must be given beside gradients: asked of all methods by many a file."""
    return sample(name).needs


@functools.lru_cache(maxsize=4)
def _plain(name: str) -> Any:
    return METHODS[name].for_small_model(None, **SAMPLES.get(name, {}))
