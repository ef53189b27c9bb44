"""Runs of pytorch_optimizer."""

import numpy as np
import pytorch_optimizer
import torch
from cases import BETAS, CASES, DROP, MATRICES, MIXED, SMALL, VECTORS, WARMUP, Case, case
from torch_driver import Separable, by_torch

case(
    "sgdw",
    "decay_schedule",
    by_torch(pytorch_optimizer.SGDW)(DROP, momentum=0.7, weight_decay=0.5, foreach=False),
    {"learning_rate": DROP, "momentum": 0.7, "weight_decay": 0.5},
    "pytorch_optimizer",
)
case(
    "sgdw",
    "no_momentum",
    by_torch(pytorch_optimizer.SGDW)(0.05, momentum=0.0, weight_decay=0.5, foreach=False),
    {"learning_rate": 0.05, "momentum": 0.0, "weight_decay": 0.5},
    "pytorch_optimizer",
)
# laprop, grams: the package puts eps elsewhere, hence tiny ones

LAPROP = by_torch(pytorch_optimizer.LaProp)
case(
    "laprop",
    "schedule_decay",
    LAPROP(WARMUP, betas=(0.8, 0.95), weight_decay=0.02, fixed_decay=True, foreach=False),
    {"learning_rate": WARMUP, **BETAS, "weight_decay": 0.02},
    "pytorch_optimizer",
)
case(
    "laprop",
    "centered",
    LAPROP(DROP, betas=(0.8, 0.7), centered=True, steps_before_using_centered=3, foreach=False),
    {"learning_rate": DROP, "b1": 0.8, "b2": 0.7, "centered": True, "centered_start": 3},
    "pytorch_optimizer",
    rtol=1e-6,
)
case(
    "laprop",
    "amsgrad",
    LAPROP(0.03, betas=(0.7, 0.6), ams_bound=True, eps=1e-12, foreach=False),
    {"learning_rate": 0.03, "b1": 0.7, "b2": 0.6, "amsgrad": True, "eps": 1e-12},
    "pytorch_optimizer",
    notes="the package adds 1e-15 to the running maximum before the root",
)
GRAMS = by_torch(pytorch_optimizer.Grams)
case(
    "grams",
    "schedule_decay",
    GRAMS(WARMUP, betas=(0.8, 0.95), eps=1e-15, weight_decay=0.4),
    {"learning_rate": WARMUP, **BETAS, "eps": 1e-15, "weight_decay": 0.4},
    "pytorch_optimizer",
    notes="eps is tiny so that its place does not matter",
)
case(
    "grams",
    "betas",
    GRAMS(0.02, betas=(0.5, 0.7), eps=1e-15),
    {"learning_rate": 0.02, "b1": 0.5, "b2": 0.7, "eps": 1e-15},
    "pytorch_optimizer",
    notes="eps is tiny so that its place does not matter",
)
# lookahead


def lookahead(name, pullback, period, alpha, inner, inner_kwargs, make):
    def wrapped(leaves, lr):
        return pytorch_optimizer.Lookahead(
            make(leaves, lr), k=period, alpha=alpha, pullback_momentum=pullback
        )

    case(
        "lookahead",
        name,
        by_torch(wrapped)(inner_kwargs["learning_rate"]),
        {
            "inner": inner,
            "inner_kwargs": inner_kwargs,
            "sync_period": period,
            "slow_step_size": alpha,
            "pullback_momentum": pullback,
        },
        "pytorch_optimizer",
        steps=10,
    )


HEAVY = {"learning_rate": 0.05, "momentum": 0.9}
for pullback in ("none", "reset", "pullback"):
    lookahead(
        f"sgd_{pullback}",
        pullback,
        3,
        0.5,
        "sgd",
        HEAVY,
        lambda leaves, lr: torch.optim.SGD(leaves, lr=lr, momentum=0.9),
    )
lookahead(
    "adam",
    "none",
    4,
    0.3,
    "adam",
    {"learning_rate": 0.05, **BETAS},
    lambda leaves, lr: torch.optim.Adam(leaves, lr=lr, betas=(0.8, 0.95)),
)
# mars; c_adamw is what its leaves of one dimension follow


def mars(method, name, shapes, theirs, ours, notes=""):
    kind = method.removeprefix("mars_")
    case(
        method,
        name,
        by_torch(pytorch_optimizer.MARS)(
            ours["learning_rate"],
            mars_type=kind,
            lr_1d=ours.get("learning_rate_1d", 3e-3),
            foreach=False,
            **theirs,
        ),
        ours,
        "pytorch_optimizer",
        shapes=shapes,
        notes=notes,
    )


TINY = "eps is tiny so that its place does not matter"
mars(
    "mars_adamw",
    "decay_1d",
    MATRICES,
    {
        "betas": (0.8, 0.9),
        "gamma": 0.05,
        "weight_decay": 0.3,
        "betas_1d": (0.7, 0.8),
        "weight_decay_1d": 0.2,
        "eps": 1e-14,
    },
    {
        "learning_rate": 0.03,
        "learning_rate_1d": 0.01,
        "b1": 0.8,
        "b2": 0.9,
        "gamma": 0.05,
        "weight_decay": 0.3,
        "b1_1d": 0.7,
        "b2_1d": 0.8,
        "weight_decay_1d": 0.2,
        "eps": 1e-14,
    },
    TINY,
)
mars(
    "mars_adamw",
    "optimize_1d",
    MIXED,
    {"betas": (0.8, 0.9), "optimize_1d": True},
    {"learning_rate": 0.03, "b1": 0.8, "b2": 0.9, "optimize_1d": True},
)
mars(
    "mars_adamw",
    "amsgrad",
    MIXED,
    {"betas": (0.8, 0.6), "ams_bound": True, "eps": 1e-14, "optimize_1d": True},
    {
        "learning_rate": 0.03,
        "b1": 0.8,
        "b2": 0.6,
        "amsgrad": True,
        "eps": 1e-14,
        "optimize_1d": True,
    },
    TINY,
)
mars(
    "mars_lion",
    "decay_1d",
    MATRICES,
    {
        "betas": (0.8, 0.9),
        "gamma": 0.05,
        "weight_decay": 0.3,
        "betas_1d": (0.7, 0.8),
        "weight_decay_1d": 0.2,
    },
    {
        "learning_rate": 0.03,
        "learning_rate_1d": 0.01,
        "b1": 0.8,
        "gamma": 0.05,
        "weight_decay": 0.3,
        "b1_1d": 0.7,
        "b2_1d": 0.8,
        "weight_decay_1d": 0.2,
    },
)
mars(
    "mars_lion",
    "optimize_1d",
    MIXED,
    {"betas": (0.9, 0.9), "optimize_1d": True, "gamma": 0.1},
    {"learning_rate": 0.02, "b1": 0.9, "optimize_1d": True, "gamma": 0.1},
)
case(
    "c_adamw",
    "count_scale",
    by_torch(pytorch_optimizer.MARS)(
        WARMUP,
        lr_1d=WARMUP[0],
        betas_1d=(0.5, 0.9),
        weight_decay_1d=0.3,
        eps=1e-15,
        cautious=True,
        foreach=False,
    ),
    {
        "learning_rate": WARMUP,
        "b1": 0.5,
        "b2": 0.9,
        "weight_decay": 0.3,
        "eps": 1e-15,
        "scale": "count",
    },
    "pytorch_optimizer",
    shapes=VECTORS,
    notes="MARS(cautious=True) on leaves of fewer than two dimensions, which it leaves to a "
    "cautious AdamW; eps is tiny so that its place does not matter",
)
# curvature: diagonal Hessians, on which a Rademacher probe is exact


def separable(method, name, make, ours, package="pytorch_optimizer", **arguments):
    CASES.append(
        Case(
            method,
            name,
            lambda start, problem: Separable(
                start, lambda leaves: make(leaves, **arguments), problem
            ),
            ours,
            package,
            shapes=SMALL,
            kind="separable",
            steps=9,
            notes="Rademacher probes",
        )
    )


for name, period, gamma, decay in (("interval_3", 3, 0.05, 0.2), ("every_step", 1, 0.5, 0.0)):
    separable(
        "sophia_h",
        name,
        pytorch_optimizer.SophiaH,
        {
            "learning_rate": 0.1,
            "b1": 0.8,
            "b2": 0.9,
            "eps": 1e-12 * gamma,
            "gamma": gamma,
            "weight_decay": decay,
            "update_interval": period,
        },
        lr=0.1 / gamma,
        betas=(0.8, 0.9),
        p=gamma,
        update_period=period,
        eps=1e-12,
        weight_decay=decay * gamma,
        hessian_distribution="rademacher",
        foreach=False,
    )
separable(
    "adahessian",
    "interval_decay",
    pytorch_optimizer.AdaHessian,
    {
        "learning_rate": 0.1,
        "b1": 0.8,
        "b2": 0.9,
        "eps": 1e-3,
        "weight_decay": 0.3,
        "update_interval": 3,
    },
    lr=0.1,
    betas=(0.8, 0.9),
    eps=1e-3,
    weight_decay=0.3,
    update_period=3,
    foreach=False,
)
separable(
    "adahessian",
    "half_power",
    pytorch_optimizer.AdaHessian,
    {"learning_rate": 0.1, "b1": 0.7, "b2": 0.8, "eps": 1e-2, "hessian_power": 0.5},
    lr=0.1,
    betas=(0.7, 0.8),
    eps=1e-2,
    hessian_power=0.5,
    foreach=False,
)
case(
    "shampoo",
    "coupled_decay",
    by_torch(pytorch_optimizer.Shampoo)(0.2, matrix_eps=1e-2, weight_decay=0.3),
    {"learning_rate": 0.2, "eps": 1e-2, "weight_decay": 0.3},
    "pytorch_optimizer",
    shapes={"w": (4, 3), "b": (3,), "k": (2, 3, 2)},
)
ADAN = by_torch(pytorch_optimizer.Adan)
for name, decouple in (("prox_clip_schedule", False), ("no_prox_clip_schedule", True)):
    case(
        "adan",
        name,
        ADAN(
            WARMUP,
            betas=(0.8, 0.7, 0.9),
            eps=1e-2,
            weight_decay=0.4,
            weight_decouple=decouple,
            max_grad_norm=2.0,
            foreach=False,
        ),
        {
            "learning_rate": WARMUP,
            "b1": 0.8,
            "b2": 0.7,
            "b3": 0.9,
            "eps": 1e-2,
            "weight_decay": 0.4,
            "max_grad_norm": 2.0,
            "no_prox": decouple,
        },
        "pytorch_optimizer",
        shapes={"w": (4, 3), "b": (3,), "k": (2, 3, 2)},
    )
case(
    "ademamix",
    "warmups_decay",
    by_torch(pytorch_optimizer.AdEMAMix)(
        0.03,
        betas=(0.8, 0.95, 0.99),
        alpha=3.0,
        t_alpha_beta3=5,
        eps=1e-3,
        weight_decay=0.3,
        weight_decouple=True,
    ),
    {
        "learning_rate": 0.03,
        "b1": 0.8,
        "b2": 0.95,
        "b3": 0.99,
        "alpha": 3.0,
        "eps": 1e-3,
        "weight_decay": 0.3,
        "alpha_warmup": 5,
        "b3_warmup": 5,
        "count_offset": 1,
    },
    "pytorch_optimizer",
)
case(
    "novograd",
    "grad_averaging",
    by_torch(pytorch_optimizer.NovoGrad)(
        DROP, betas=(0.8, 0.7), weight_decay=0.3, grad_averaging=True, eps=1e-3, foreach=False
    ),
    {
        "learning_rate": DROP,
        "b1": 0.8,
        "b2": 0.7,
        "weight_decay": 0.3,
        "grad_averaging": True,
        "eps": 1e-3,
    },
    "pytorch_optimizer",
)


def gravity_draws(start, seed):
    # The package draws the initial velocities at its first step, leaf by leaf.
    torch.manual_seed(seed)
    return {k: torch.empty(np.shape(v)).normal_(0.0, 1.0).numpy() for k, v in start.items()}


for name, rate, alpha, beta in (("torch", 0.2, 0.01, 0.9), ("fast_start", 0.1, 0.1, 0.5)):
    case(
        "gravity",
        name,
        by_torch(pytorch_optimizer.Gravity)(rate, alpha=alpha, beta=beta),
        {"learning_rate": rate, "alpha": alpha, "beta": beta, "count_start": 1},
        "pytorch_optimizer",
        shapes=SMALL,
        draws=gravity_draws,
        notes="draws/v0 are standard normal, scaled by alpha/learning_rate at the start",
    )
for name, period, threshold in (("resets", 4, 1.5), ("no_clipping", 3, 0)):
    case(
        "spam",
        name,
        by_torch(pytorch_optimizer.SPAM)(
            0.03,
            betas=(0.8, 0.9),
            threshold=threshold,
            update_proj_gap=period,
            grad_accu_steps=2,
            warmup_epoch=0,
            weight_decay=0.3,
            eps=1e-3,
            foreach=False,
        ),
        {
            "learning_rate": 0.03,
            "b1": 0.8,
            "b2": 0.9,
            "threshold": float(threshold),
            "reset_interval": period,
            "grad_accu_steps": 2,
            "warmup_steps": 0,
            "weight_decay": 0.3,
            "eps": 1e-3,
        },
        "pytorch_optimizer",
        steps=11,
        notes="no damping after a reset: the package's cosine is one step ahead of the authors'",
    )
case(
    "stable_spam",
    "clean_resets",
    by_torch(pytorch_optimizer.StableSPAM)(
        WARMUP + DROP[:3],
        betas=(0.8, 0.9),
        gamma1=0.6,
        gamma2=0.8,
        theta=0.9,
        weight_decay=0.3,
        update_proj_gap=4,
        eps=1e-4,
        foreach=False,
    ),
    {
        "learning_rate": WARMUP + DROP[:3],
        "b1": 0.8,
        "b2": 0.9,
        "gamma1": 0.6,
        "gamma2": 0.8,
        "gamma3": 0.9,
        "weight_decay": 0.3,
        "reset_interval": 4,
        "eps": 1e-4,
        "reset_mode": "clean",
    },
    "pytorch_optimizer",
    steps=11,
)
case(
    "perpgrad",
    "sgd",
    by_torch(
        lambda leaves, lr: pytorch_optimizer.OrthoGrad(
            torch.optim.SGD(leaves, lr=lr, momentum=0.9), foreach=False
        )
    )(0.05),
    {"inner": "sgd", "inner_kwargs": {"learning_rate": 0.05, "momentum": 0.9}},
    "pytorch_optimizer",
    shapes={"w": (4, 3), "b": (3,), "k": (2, 3, 2)},
    notes="chain(perpgrad(), inner)",
)
case(
    "ranger21",
    "settings",
    by_torch(pytorch_optimizer.Ranger21)(
        0.1,
        num_iterations=12,
        beta0=0.8,
        betas=(0.85, 0.95),
        beta_softplus=3.0,
        num_warm_up_iterations=4,
        num_warm_down_iterations=5,
        warm_down_min_lr=0.01,
        agc_clipping_value=0.4,
        agc_eps=0.9,
        lookahead_merge_time=3,
        lookahead_blending_alpha=0.6,
        weight_decay=0.2,
        norm_loss_factor=0.05,
        eps=0.05,
        foreach=False,
    ),
    {
        "learning_rate": 0.1,
        "total_steps": 12,
        "b1": 0.85,
        "b2": 0.95,
        "eps": 0.05,
        "weight_decay": 0.2,
        "normloss_factor": 0.05,
        "agc_clip": 0.4,
        "agc_eps": 0.9,
        "softplus_beta": 3.0,
        "pnm_beta": 0.8,
        "noise_beta": 0.8,
        "max_variance": True,
        "variance_offset": 1.0,
        "sync_period": 3,
        "slow_step_size": 0.6,
        "warmup_steps": 4,
        "warmdown_start": 0.665,
        "end_value": 0.01,
        "channel_axis": 0,
    },
    "pytorch_optimizer",
    shapes={"w": (4, 3), "k": (2, 3, 2, 2), "b": (3,)},
    steps=12,
    notes="the package adds 1 to the summed variance and divides by the running maximum",
)
