"""Settings of the methods for the small models of the tests, where the defaults suit larger ones.

A method has a row only where its defaults are made for a larger model or a longer run: periods
that would not end, ranks above a small layer's, or an option off that the tests should see on.
"""

from typing import Any

from gradchain.catalogue import METHODS, Method

SAMPLES: dict[str, dict[str, Any]] = {
    "adafactor": {"min_dim_size_to_factor": 2},
    "adaptive_braking": {"rho": 0.5},
    "brake": {"rho": 0.5},
    "distributed_shampoo": {
        "grafting": "adam",
        "block_size": 64,
        "target_ndim": 2,
        "eps": 1e-8,
        "momentum": 0.5,
        "update_interval": 2,
    },
    "fadam": {"weight_decay": 0.01},
    "frugal": {"update_interval": 10, "projection": "columns", "density": 0.5},
    "galore": {"rank": 2, "update_interval": 10, "scale": 1.0},
    "gravity": {"key": 0},
    "heavy_ball_step_decay": {"num_stages": 4},
    "k_fac": {"damping": 0.1},
    "lazy_cubic_newton": {"m": 10.0, "update_interval": 5},
    "lazy_newton": {"m": 10.0, "update_interval": 5},
    "m_fac": {"num_grads": 8, "damping": 0.01},
    "momentum_weight_interpolation": {"decay": 0.9},
    "multi_adam": {"num_groups": 1},
    "oasis": {"alpha": 0.1},
    "psgd_kron": {"mode": "whiten", "momentum": 0.9},
    "psgd_lra": {"mode": "whiten", "momentum": 0.9, "rank": 4},
    "psgd_xmat": {"mode": "whiten", "momentum": 0.9},
    "ranger21": {"warmup_steps": 10},
    "scaled_gd": {"damping": 0.1},
    "sgd": {"momentum": 0.9},
    "sgd_sai": {"eps": 1.0},
    "sgdp": {"momentum": 0.9},
    "shampoo": {"momentum": 0.9},
    "singd": {"damping": 0.1},
    "spam": {"reset_interval": 50, "warmup_steps": 10},
    "stable_spam": {"reset_interval": 50},
    "stochastic_newton_filter": {"ridge": 1.0, "max_halvings": 10, "sufficient_decrease": 0.1},
    "upgd": {"sigma": 0.01},
}

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
    return METHODS[name].arguments(**{**SAMPLES.get(name, {}), **overrides})


def sample(name: str, learning_rate: Any = None, **overrides: Any) -> Any:
    """The method as the tests build it."""
    return METHODS[name].build(learning_rate, **{**SAMPLES.get(name, {}), **overrides})
