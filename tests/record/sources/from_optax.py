"""Runs of Optax."""

import jax.numpy as jnp
import optax
import optax.contrib
from cases import DROP, SQUARE_ROOT, WARMUP, case
from optax_driver import by_optax, same

same("adam", "nesterov", optax.adam, "optax", learning_rate=0.05, b1=0.8, b2=0.95, nesterov=True)
same("adam", "eps_root", optax.adam, "optax", learning_rate=WARMUP, eps=1e-3, eps_root=1e-2)
same(
    "adamw",
    "nesterov_decay",
    optax.adamw,
    "optax",
    learning_rate=DROP,
    b1=0.8,
    b2=0.95,
    eps_root=1e-3,
    weight_decay=0.2,
    nesterov=True,
)
same(
    "amsgrad",
    "paper_no_correction",
    optax.amsgrad,
    "optax",
    learning_rate=0.02,
    b1=0.8,
    b2=0.7,
    bias_correction_mu=False,
    bias_correction_nu=False,
)
same(
    "amsgrad",
    "schedule_eps",
    optax.amsgrad,
    "optax",
    learning_rate=DROP,
    b1=0.7,
    b2=0.6,
    eps=1e-2,
    eps_root=1e-3,
)
same(
    "adamax",
    "decay",
    optax.adamaxw,
    "optax",
    learning_rate=WARMUP,
    b1=0.8,
    b2=0.9,
    weight_decay=0.3,
)
same("lion", "optax_defaults", optax.lion, "optax", learning_rate=0.02)
same(
    "adabelief",
    "optax",
    optax.adabelief,
    "optax",
    learning_rate=SQUARE_ROOT,
    b1=0.8,
    b2=0.95,
    eps=1e-5,
    eps_root=1e-5,
    ours={"eps_root": None, "rectify": False},
)
# adafactor

FACTOR = {"w": (6, 4), "c": (3, 4, 5), "b": (5,), "s": ()}


def adafactor(name, ours, **arguments):
    kwargs = {
        k: v
        for k, v in arguments.items()
        if k not in ("clipping_threshold", "weight_decay_rate", "momentum", "dtype_momentum")
    }
    case(
        "adafactor",
        name,
        by_optax(optax.adafactor)(**arguments),
        {**kwargs, **ours},
        "optax",
        shapes=FACTOR,
        notes="the package evaluates its second-moment decay in float32",
    )


adafactor(
    "unfactored_unscaled",
    {"clip_threshold": None},
    learning_rate=SQUARE_ROOT,
    factored=False,
    multiply_by_parameter_scale=False,
    clipping_threshold=None,
    decay_rate=0.7,
)
adafactor(
    "momentum_decay",
    {"b1": 0.8, "weight_decay": 0.02, "scale_weight_decay": False, "clip_threshold": 0.7},
    learning_rate=0.1,
    min_dim_size_to_factor=3,
    clipping_threshold=0.7,
    momentum=0.8,
    dtype_momentum=jnp.float64,
    weight_decay_rate=0.02,
)
adafactor(
    "factored_schedule",
    {"clip_threshold": 0.5},
    learning_rate=WARMUP,
    min_dim_size_to_factor=4,
    decay_rate=0.9,
    eps=1e-3,
    clipping_threshold=0.5,
    multiply_by_parameter_scale=False,
)
same_momo = {"learning_rate": 0.5, "beta": 0.6, "lower_bound": 0.1}
case(
    "momo",
    "optax",
    by_optax(optax.contrib.momo)(**same_momo),
    same_momo,
    "optax",
    kind="quadratic",
    steps=10,
)
same(
    "ademamix",
    "optax_decay",
    optax.contrib.ademamix,
    "optax",
    learning_rate=SQUARE_ROOT,
    b1=0.8,
    b2=0.95,
    b3=0.99,
    alpha=2.0,
    eps=1e-3,
    eps_root=1e-4,
    weight_decay=0.3,
)
same(
    "novograd",
    "optax_decay",
    optax.novograd,
    "optax",
    learning_rate=WARMUP,
    b1=0.9,
    b2=0.25,
    eps=1e-2,
    weight_decay=0.3,
)
same(
    "lamb",
    "decay_schedule",
    optax.lamb,
    "optax",
    learning_rate=WARMUP,
    b1=0.8,
    b2=0.95,
    eps=1e-3,
    eps_root=1e-3,
    weight_decay=0.5,
)
same(
    "lars",
    "nesterov_decay_schedule",
    optax.lars,
    "optax",
    learning_rate=[100 * x for x in DROP],
    weight_decay=0.3,
    nesterov=True,
    momentum=0.8,
    eps=1e-2,
    trust_coefficient=0.02,
)
same(
    "lars",
    "unmasked",
    optax.lars,
    "optax",
    learning_rate=0.05,
    weight_decay=0.3,
    weight_decay_mask=False,
    trust_ratio_mask=False,
    momentum=0.8,
)
