"""GaLore, with the SVD in float64 and singular vectors of one sign."""

import importlib

import torch
from absent import leave_out_transformers
from cases import SQUARE_ROOT, WARMUP, case
from singular import leading
from torch_driver import by_torch

leave_out_transformers()
galore_adamw = importlib.import_module("galore_torch.adamw")


class ReproducibleProjector(galore_adamw.GaLoreProjector):
    def get_orthogonal_matrix(self, weights, rank, type):
        left, right = leading(weights.numpy(), rank)
        bases = {"left": torch.tensor(left), "right": torch.tensor(right)}
        return list(bases.values()) if type == "full" else bases[type]


galore_adamw.GaLoreProjector = ReproducibleProjector


def galore(name, rate, projection, rank, period, scale, **more):
    decay = more.pop("weight_decay", 0.0)

    def make(leaves, lr):
        low = [x for x in leaves if x.ndim == 2 and min(x.shape) > rank]
        rest = [x for x in leaves if not any(x is y for y in low)]
        group = {
            "params": low,
            "rank": rank,
            "update_proj_gap": period,
            "scale": scale,
            "proj_type": projection,
        }
        return galore_adamw.AdamW(
            [group, {"params": rest}],
            lr=lr,
            betas=(0.8, 0.95),
            weight_decay=decay,
            no_deprecation_warning=True,
        )

    case(
        "galore",
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
            "weight_decay": decay,
        },
        "galore-torch",
        shapes={"w": (7, 5), "u": (4, 6), "b": (5,), "s": ()},
        notes="SVD in float64 (the package: float32), the entry of largest magnitude of every "
        "singular vector positive; projected leaves: ndim == 2 and min(shape) > rank",
    )


galore("std_decay_schedule", WARMUP, "std", 2, 3, 0.25, weight_decay=0.3)
galore("reverse_std", 0.1, "reverse_std", 2, 3, 1.0)
galore("left", 0.1, "left", 3, 4, 0.5)
galore("right", SQUARE_ROOT, "right", 2, 2, 0.5, weight_decay=0.1)
galore("full", 0.1, "full", 3, 3, 0.5)
