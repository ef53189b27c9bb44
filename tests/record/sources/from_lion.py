"""Lion, and its cautious form."""

import lion_pytorch
import lion_pytorch.cautious_lion
from cases import WARMUP, case
from torch_driver import by_torch

LION = by_torch(lion_pytorch.Lion)
case(
    "lion",
    "decay_schedule",
    LION(WARMUP, betas=(0.7, 0.9), weight_decay=0.5),
    {"learning_rate": WARMUP, "b1": 0.7, "b2": 0.9, "weight_decay": 0.5},
    "lion-pytorch",
)
case(
    "c_lion",
    "mean_scale",
    by_torch(lion_pytorch.cautious_lion.Lion)(WARMUP, betas=(0.6, 0.9), weight_decay=0.3),
    {
        "learning_rate": WARMUP,
        "b1": 0.6,
        "b2": 0.9,
        "weight_decay": 0.3,
        "scale": "mean",
        "min_mean": 1e-5,
    },
    "lion-pytorch",
)
case(
    "cautious",
    "lion_mean",
    by_torch(lion_pytorch.cautious_lion.Lion)(0.03, betas=(0.5, 0.9), weight_decay=0.0),
    {
        "inner": "lion",
        "inner_kwargs": {"learning_rate": 0.03, "b1": 0.5, "b2": 0.9, "weight_decay": 0.0},
        "min_mean": 1e-5,
    },
    "lion-pytorch",
)
