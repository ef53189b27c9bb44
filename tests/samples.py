"""How the tests build the methods of the catalogue by name."""

from typing import Any

from gradchain.catalogue import METHODS, Method

SAMPLES: dict[str, dict[str, Any]] = {
    "adafactor": {"min_dim_size_to_factor": 2},  # the tests' matrices are factored too
}
"""Arguments that the tests need beside those for a small model; few methods have any."""

REAL_ONLY = frozenset(
    {
        "adahessian", "egn", "k_fac", "lazy_cubic_newton", "lazy_newton", "mkor", "mkor_h",
        "mup_second_order", "oasis", "psgd_kron", "psgd_lra", "psgd_xmat", "scaled_gd", "singd",
        "sophia_g", "sophia_h", "stochastic_newton_filter", "upgd",
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
    """The method as the tests build it."""
    return METHODS[name].for_small_model(learning_rate, **{**SAMPLES.get(name, {}), **overrides})
