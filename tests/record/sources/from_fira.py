"""Fira, with the SVD in float64 and singular vectors of one sign."""

import importlib

import torch
from absent import leave_out_transformers
from cases import DROP, WARMUP, case
from singular import leading
from torch_driver import by_torch

leave_out_transformers()
fira_adamw = importlib.import_module("fira.fira_adamw")


class ReproducibleProjector(fira_adamw.GradientProjector):
    def get_orthogonal_matrix(self, weights, rank, type):
        left, right = leading(weights.numpy(), rank)
        return torch.tensor({"left": left, "right": right}[type])


fira_adamw.GradientProjector = ReproducibleProjector


def fira(name, rate, projection, rank, period, scale, weight_decay=0.0):
    def make(leaves, lr):
        low = [x for x in leaves if x.ndim == 2 and min(x.shape) > rank]
        rest = [x for x in leaves if not any(x is y for y in low)]
        group = {
            "params": low,
            "rank": rank,
            "update_proj_gap": period,
            "alpha": scale,
            "proj_type": projection,
        }
        return fira_adamw.AdamW(
            [group, {"params": rest}],
            lr=lr,
            betas=(0.8, 0.95),
            eps=1e-3,
            weight_decay=weight_decay,
            no_deprecation_warning=True,
        )

    case(
        "fira",
        name,
        by_torch(make)(rate),
        {
            "learning_rate": rate,
            "rank": rank,
            "update_interval": period,
            "scale": scale,
            "projection": projection,
            "b1": 0.8,
            "b2": 0.95,
            "eps": 1e-3,
            "weight_decay": weight_decay,
        },
        "fira",
        shapes={"w": (7, 5), "u": (4, 6), "b": (5,), "s": ()},
        notes="SVD in float64 (the package: float32), the entry of largest magnitude of every "
        "singular vector positive; projected leaves: ndim == 2 and min(shape) > rank",
    )


fira("std_decay", WARMUP, "std", 2, 3, 0.25, weight_decay=0.3)
fira("left", DROP, "left", 2, 2, 1.0)
