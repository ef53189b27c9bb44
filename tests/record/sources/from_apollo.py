"""APOLLO and APOLLO-Mini; what the package draws is recorded."""

import importlib

import numpy as np
import torch
from absent import leave_out_transformers
from cases import DROP, WARMUP, case
from singular import leading
from torch_driver import by_torch

leave_out_transformers()
package = importlib.import_module("apollo_torch.apollo")
draws_of = importlib.import_module("apollo_torch.random_projector")

STEPS = 8
SHAPES = {"w": (7, 5), "u": (4, 6), "b": (5,), "s": ()}


class ReproducibleProjector(package.GaLoreProjector):
    def get_orthogonal_matrix(self, weights, rank, type):
        left, right = leading(weights.numpy(), rank)
        return torch.tensor({"left": left, "right": right}[type])


package.GaLoreProjector = ReproducibleProjector


def drawn(rank, period):
    """The random directions of each projected leaf, one after the other along the first axis."""

    def draws(start, _):
        found = {}
        low = [key for key, x in start.items() if x.ndim == 2 and min(x.shape) > rank]
        for number, key in enumerate(low, 1):
            m, n = start[key].shape
            shape, seed = ((rank, n) if m >= n else (m, rank)), number
            rows = []
            for _ in range(0, STEPS, period):
                rows.append(draws_of.stable_randn(shape, seed).numpy() / np.sqrt(rank))
                seed = draws_of.next_seed(seed)
            found[key] = np.stack(rows).astype(np.float64)
        return found

    return draws


def apollo(name, rate, rank, period, method="apollo", weight_decay=0.0, **more):
    given = {"scale": 1.0, "scale_type": "channel", "projection": "random", **more}
    limited = given.get("max_growth", 1.01) is not None

    def make(leaves, lr):
        low = [x for x in leaves if x.ndim == 2 and min(x.shape) > rank]
        rest = [x for x in leaves if not any(x is y for y in low)]
        group = {
            "params": low,
            "rank": rank,
            "update_proj_gap": period,
            "scale": given["scale"],
            "scale_type": given["scale_type"],
            "proj": given["projection"],
            "proj_type": "std",
        }
        return package.AdamW(
            [group, {"params": rest}],
            lr=lr,
            betas=(0.8, 0.95),
            eps=1e-3,
            weight_decay=weight_decay,
            disable_nl=not limited,
        )

    case(
        method,
        name,
        by_torch(make)(rate),
        {
            "learning_rate": rate,
            "rank": rank,
            "update_interval": period,
            **given,
            "b1": 0.8,
            "b2": 0.95,
            "eps": 1e-3,
            "weight_decay": weight_decay,
        },
        "apollo-torch",
        shapes=SHAPES,
        steps=STEPS,
        draws=drawn(rank, period) if given["projection"] == "random" else None,
        notes="draws/v0: the directions of each interval; they are normal in float32. SVD in "
        "float64 (the package: float32), the entry of largest magnitude of every singular vector "
        "positive; projected leaves: ndim == 2 and min(shape) > rank",
    )


apollo("random_decay", WARMUP, 2, 3, weight_decay=0.3, scale=0.7)
apollo("svd_unlimited", DROP, 2, 4, projection="svd", max_growth=None)
apollo("tensor_svd", 0.1, 3, 3, projection="svd", scale_type="tensor", scale=2.0)
apollo("random", DROP, 1, 3, method="apollo_mini", scale_type="tensor", scale=128.0)
