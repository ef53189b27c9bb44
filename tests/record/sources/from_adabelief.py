"""AdaBelief as its authors have it."""

import adabelief_pytorch
from cases import BETAS, DROP, WARMUP, case
from torch_driver import by_torch

BELIEF = by_torch(
    lambda leaves, **kw: adabelief_pytorch.AdaBelief(leaves, print_change_log=False, **kw)
)
case(
    "adabelief",
    "unrectified",
    BELIEF(WARMUP, betas=(0.8, 0.95), eps=1e-4, rectify=False),
    {"learning_rate": WARMUP, **BETAS, "eps": 1e-4, "rectify": False},
    "adabelief-pytorch",
)
case(
    "adabelief",
    "amsgrad_decay",
    BELIEF(0.03, betas=(0.7, 0.6), eps=1e-6, rectify=False, amsgrad=True, weight_decay=0.4),
    {
        "learning_rate": 0.03,
        "b1": 0.7,
        "b2": 0.6,
        "eps": 1e-6,
        "rectify": False,
        "amsgrad": True,
        "weight_decay": 0.4,
    },
    "adabelief-pytorch",
)
case(
    "adabelief",
    "rectified_decay",
    BELIEF(DROP, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.4),
    {"learning_rate": DROP, "b1": 0.8, "b2": 0.9, "eps": 1e-8, "weight_decay": 0.4},
    "adabelief-pytorch",
)
case(
    "adabelief",
    "fixed_decay",
    BELIEF(WARMUP, betas=(0.8, 0.95), eps=1e-8, weight_decay=0.05, fixed_decay=True),
    {"learning_rate": WARMUP, **BETAS, "eps": 1e-8, "weight_decay": 0.05, "fixed_decay": True},
    "adabelief-pytorch",
)
case(
    "adabelief",
    "coupled_no_sgd_phase",
    BELIEF(
        0.05,
        betas=(0.8, 0.95),
        eps=1e-8,
        weight_decay=0.2,
        weight_decouple=False,
        degenerated_to_sgd=False,
    ),
    {
        "learning_rate": 0.05,
        **BETAS,
        "eps": 1e-8,
        "weight_decay": 0.2,
        "weight_decouple": False,
        "degenerated_to_sgd": False,
    },
    "adabelief-pytorch",
)
