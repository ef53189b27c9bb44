"""MoMo as its authors have it."""

import momo
from cases import case
from torch_driver import Torch, by_torch

# losses and gradients belong to one function
MOMO = by_torch(momo.Momo, Torch, loss=True)
for name, theirs, ours in (
    ("decay", {"weight_decay": 0.2, "beta": 0.8}, {"weight_decay": 0.2, "beta": 0.8}),
    ("bias_correction", {"bias_correction": True}, {"bias_correction": True}),
    (
        "adapted_bound",
        {"use_fstar": True, "lb": -1.0, "beta": 0.7, "weight_decay": 0.1},
        {"adapt_lower_bound": True, "lower_bound": -1.0, "beta": 0.7, "weight_decay": 0.1},
    ),
):
    case(
        "momo",
        name,
        MOMO([0.6] * 5 + [0.05] * 5, **theirs),
        {"learning_rate": [0.6] * 5 + [0.05] * 5, **ours},
        "momo-opt",
        kind="quadratic",
        steps=10,
    )
