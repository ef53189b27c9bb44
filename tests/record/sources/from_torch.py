"""Runs of torch itself."""

import torch
from cases import BETAS, DROP, SQUARE_ROOT, WARMUP, case
from torch_driver import by_torch

# adam, adamw, sgdw and their nearest relatives

ADAM = by_torch(torch.optim.Adam)
ADAMW = by_torch(torch.optim.AdamW)
SGD = by_torch(torch.optim.SGD)
case(
    "adam",
    "betas_eps_schedule",
    ADAM(SQUARE_ROOT, betas=(0.8, 0.95), eps=1e-2),
    {"learning_rate": SQUARE_ROOT, **BETAS, "eps": 1e-2},
    "torch",
)
case(
    "adam",
    "no_momentum",
    ADAM(0.03, betas=(0.0, 0.9), eps=1e-4),
    {"learning_rate": 0.03, "b1": 0.0, "b2": 0.9, "eps": 1e-4},
    "torch",
)
case(
    "adamw",
    "decay_schedule",
    ADAMW(WARMUP, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.3),
    {"learning_rate": WARMUP, **BETAS, "eps": 1e-2, "weight_decay": 0.3},
    "torch",
)
case(
    "amsgrad",
    "raw_maximum",
    ADAM(SQUARE_ROOT, betas=(0.8, 0.7), eps=1e-3, amsgrad=True),
    {"learning_rate": SQUARE_ROOT, "b1": 0.8, "b2": 0.7, "eps": 1e-3, "max_of": "raw"},
    "torch",
)
case(
    "adamax",
    "betas_eps_schedule",
    by_torch(torch.optim.Adamax)(SQUARE_ROOT, betas=(0.8, 0.7), eps=1e-2),
    {"learning_rate": SQUARE_ROOT, "b1": 0.8, "b2": 0.7, "eps": 1e-2},
    "torch",
)
case(
    "sgdw",
    "momentum_schedule",
    SGD(DROP, momentum=0.9),
    {"learning_rate": DROP, "momentum": 0.9, "weight_decay": 0.0},
    "torch",
)
case(
    "sgdw",
    "nesterov",
    SGD(0.03, momentum=0.8, nesterov=True),
    {"learning_rate": 0.03, "momentum": 0.8, "nesterov": True, "weight_decay": 0.0},
    "torch",
)
case(
    "sgdw",
    "dampening",
    SGD(WARMUP, momentum=0.9, dampening=0.4),
    {"learning_rate": WARMUP, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.0},
    "torch",
)


class Clipped(torch.optim.SGD):
    def step(self, closure=None):
        torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 2.5)
        return super().step(closure)


case(
    "clip_by_global_norm",
    "torch_eps",
    by_torch(Clipped)(0.1),
    {
        "max_norm": 2.5,
        "eps": 1e-6,
        "inner": "sgd",
        "inner_kwargs": {"learning_rate": 0.1},
    },
    "torch",
    notes="torch.nn.utils.clip_grad_norm_, then torch.optim.SGD",
)
