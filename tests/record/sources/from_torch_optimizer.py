"""Runs of torch_optimizer."""

import torch_optimizer
from cases import BETAS, SQUARE_ROOT, WARMUP, case
from torch_driver import by_torch

# the other relatives of Adam

BOUND = by_torch(torch_optimizer.AdaBound)
for method, ams in (("adabound", False), ("amsbound", True)):
    case(
        method,
        "coupled_schedule",
        BOUND(
            SQUARE_ROOT,
            final_lr=0.02,
            gamma=0.3,
            betas=(0.8, 0.7),
            eps=1e-3,
            weight_decay=0.2,
            amsbound=ams,
        ),
        {
            "learning_rate": SQUARE_ROOT,
            "final_learning_rate": 0.02,
            "gamma": 0.3,
            "b1": 0.8,
            "b2": 0.7,
            "eps": 1e-3,
            "weight_decay": 0.2,
        },
        "torch-optimizer",
    )
    case(
        method,
        "tight_bounds",
        BOUND(0.1, final_lr=0.05, gamma=0.9, amsbound=ams),
        {"learning_rate": 0.1, "final_learning_rate": 0.05, "gamma": 0.9},
        "torch-optimizer",
    )
DIFF = by_torch(torch_optimizer.DiffGrad)
case(
    "diffgrad",
    "coupled_schedule",
    DIFF(WARMUP, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.3),
    {"learning_rate": WARMUP, **BETAS, "eps": 1e-2, "weight_decay": 0.3},
    "torch-optimizer",
)
case(
    "diffgrad",
    "betas",
    DIFF(0.03, betas=(0.5, 0.8)),
    {"learning_rate": 0.03, "b1": 0.5, "b2": 0.8},
    "torch-optimizer",
)
