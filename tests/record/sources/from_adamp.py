"""AdamP and SGDP as their authors have them."""

import adamp
from cases import BETAS, DROP, WARMUP, WEIGHTS, case
from torch_driver import by_torch

ADAMP = by_torch(adamp.AdamP)
SGDP = by_torch(adamp.SGDP)
case(
    "adamp",
    "nesterov_decay",
    ADAMP(WARMUP, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.4, nesterov=True, wd_ratio=0.3),
    {
        "channel_axis": 0,
        "learning_rate": WARMUP,
        **BETAS,
        "eps": 1e-4,
        "weight_decay": 0.4,
        "nesterov": True,
        "wd_ratio": 0.3,
    },
    "adamp",
    shapes=WEIGHTS,
)
case(
    "adamp",
    "always_projecting",
    ADAMP(0.03, delta=4.0, weight_decay=0.3),
    {"channel_axis": 0, "learning_rate": 0.03, "delta": 4.0, "weight_decay": 0.3},
    "adamp",
    shapes=WEIGHTS,
)
case(
    "adamp",
    "never_projecting",
    ADAMP(0.03, delta=0.0, weight_decay=0.3),
    {"channel_axis": 0, "learning_rate": 0.03, "delta": 0.0, "weight_decay": 0.3},
    "adamp",
    shapes=WEIGHTS,
)
case(
    "sgdp",
    "momentum_dampening",
    SGDP(DROP, momentum=0.8, dampening=0.3, weight_decay=0.3, delta=0.8, wd_ratio=0.2),
    {
        "channel_axis": 0,
        "learning_rate": DROP,
        "momentum": 0.8,
        "dampening": 0.3,
        "weight_decay": 0.3,
        "delta": 0.8,
        "wd_ratio": 0.2,
    },
    "adamp",
    shapes=WEIGHTS,
)
# At one step a cosine lies within a per cent of the threshold.
case(
    "sgdp",
    "near_the_threshold",
    SGDP(0.05, momentum=0.8, weight_decay=0.3, delta=1.3, wd_ratio=0.2, eps=0.05),
    {
        "channel_axis": 0,
        "learning_rate": 0.05,
        "momentum": 0.8,
        "weight_decay": 0.3,
        "delta": 1.3,
        "wd_ratio": 0.2,
        "eps": 0.05,
    },
    "adamp",
    shapes=WEIGHTS,
)
case(
    "sgdp",
    "nesterov",
    SGDP(0.03, momentum=0.9, nesterov=True, weight_decay=0.1, delta=4.0),
    {
        "channel_axis": 0,
        "learning_rate": 0.03,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.1,
        "delta": 4.0,
    },
    "adamp",
    shapes=WEIGHTS,
)
