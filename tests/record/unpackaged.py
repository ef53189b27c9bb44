"""Records runs of code that is no package: authors' repositories, and papers without code.

    python tests/record/unpackaged.py CHECKOUTS [pattern]

CHECKOUTS holds clones of the repositories named in `source`, at those commits. Settings are chosen
so that a change of any argument by one per cent is noticed. Everything runs in float64.
"""

import fnmatch
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

REFERENCES = Path(__file__).parents[1] / "references"
SHAPES = {"b": (3,), "s": (), "w": (4, 3)}

Run = tuple[dict[str, Any], dict[str, np.ndarray]]
RUNS: dict[str, Callable[[np.random.Generator, Path], Run]] = {}


def run(function: Callable[[np.random.Generator, Path], Run]) -> Callable[..., Run]:
    """Enters a run under its name, `<method>__<case>`."""
    RUNS[function.__name__] = function
    return function


def drawn(random: np.random.Generator, size: float = 1.0) -> dict[str, np.ndarray]:
    """A tree of normal entries."""
    return {key: np.asarray(size * random.normal(size=shape)) for key, shape in SHAPES.items()}


def stacked(group: str, first: int, trees: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A group of arrays with the steps on their leading axis."""
    last = first + len(trees) - 1
    return {f"{group}/{first}..{last}/{key}": np.stack([t[key] for t in trees]) for key in trees[0]}


def values_of(leaves: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {key: leaf.detach().numpy().copy() for key, leaf in leaves.items()}


# --- Sophia-G -------------------------------------------------------------------------------------


@run
def sophia_g__settings(random: np.random.Generator, checkouts: Path) -> Run:
    sys.path.insert(0, str(checkouts / "Sophia"))
    from sophia import SophiaG

    steps, interval, batch_size = 12, 3, 6
    params, grads, estimates = [drawn(random)], [], []
    leaves = {k: torch.tensor(v, requires_grad=True) for k, v in params[0].items()}
    rates = {"lr": 0.05, "betas": (0.8, 0.9), "rho": 0.3, "weight_decay": 0.2}
    optimizer = SophiaG(list(leaves.values()), **rates)

    def hand_over(tree):
        for key, leaf in leaves.items():
            leaf.grad = torch.tensor(tree[key])

    # The entries of s are so small that eps, 1e-15 in the code, is what they are divided by.
    size = {"b": 1.0, "w": 1.0, "s": 1e-15}
    for t in range(1, steps + 1):
        estimates.append({key: np.zeros(shape) for key, shape in SHAPES.items()})
        if t > interval and (t - 1) % interval == 0:
            sampled = {k: v * size[k] ** 0.5 for k, v in drawn(random).items()}
            hand_over(sampled)
            optimizer.update_hessian()
            estimates[-1] = {k: batch_size * v**2 for k, v in sampled.items()}
        grads.append({k: v * size[k] for k, v in drawn(random).items()})
        hand_over(grads[-1])
        optimizer.step(bs=batch_size)
        params.append(values_of(leaves))
    meta = {
        "source": "Liuhong99/Sophia@a7e1572 sophia.py",
        "kind": "gradients",
        "kwargs": {
            "learning_rate": 0.05,
            "b1": 0.8,
            "b2": 0.9,
            "gamma": 0.3,
            "eps": 1e-15,
            "clip_threshold": 1.0,
            "weight_decay": 0.2,
            "update_interval": interval,
            "first_estimate": interval + 1,
        },
        "notes": "hessian_diag is the batch size times the squared sampled gradient, 0 where no "
        "refresh falls due",
    }
    arrays = stacked("params", 0, params) | stacked("grads", 1, grads)
    return meta, arrays | stacked("hessian_diag", 1, estimates)


# --- PSGD, low rank -------------------------------------------------------------------------------


class Scripted:
    """torch with draws that are known: `rand` in turn, and a given normal vector."""

    def __init__(self):
        self.uniform: list[float] = []
        self.normal: torch.Tensor | None = None

    def rand(self, shape):
        return torch.tensor(self.uniform.pop(0))

    def randn_like(self, _):
        return self.normal

    def __getattr__(self, name):
        return getattr(torch, name)


@run
def psgd_lra__whiten(random: np.random.Generator, checkouts: Path) -> Run:
    return low_rank(random, checkouts, "2nd")


@run
def psgd_lra__whiten_first_order(random: np.random.Generator, checkouts: Path) -> Run:
    return low_rank(random, checkouts, "1st")


def low_rank(random: np.random.Generator, checkouts: Path, normalizer: str) -> Run:
    sys.path.insert(0, str(checkouts / "psgd_torch"))
    import preconditioned_stochastic_gradient_descent as psgd

    steps, rank = 16, 2
    keys = sorted(SHAPES)
    params = [drawn(random)]
    leaves = {k: torch.tensor(params[0][k], requires_grad=True) for k in keys}
    rates = {"lr_params": 0.1, "lr_preconditioner": 0.3, "momentum": 0.7}
    optimizer = psgd.LRA(
        list(leaves.values()),
        rank_of_approximation=rank,
        preconditioner_init_scale=0.8,
        grad_clip_max_norm=2.0,
        step_normalizer=normalizer,
        preconditioner_type="whitening",
        **rates,
    )
    size = sum(leaf.numel() for leaf in leaves.values())
    optimizer._U, optimizer._V = (torch.tensor(random.normal(size=(size, rank))) for _ in "UV")
    factors = {
        f"draws/{name}0": factor.numpy().copy()
        for name, factor in (("U", optimizer._U), ("V", optimizer._V))
    }
    psgd.torch = scripted = Scripted()
    grads, probes, coins = [], [], []
    for _ in range(steps):
        grads.append(drawn(random, 10 ** random.uniform(-1.0, 0.6)))
        probes.append(drawn(random))
        coins.append(float(random.uniform() < 0.5))
        scripted.normal = torch.tensor(np.concatenate([probes[-1][k].ravel() for k in keys]))[
            :, None
        ]
        # fitting at every step, balancing at every step, the coin
        scripted.uniform = [0.5, 0.0, 0.25 if coins[-1] else 0.75]
        fed = {k: torch.tensor(grads[-1][k]) for k in keys}
        optimizer.step(lambda fed=fed: sum((fed[k] * leaves[k]).sum() for k in keys))
        params.append(values_of(leaves))
    psgd.torch = torch
    meta = {
        "source": "lixilinx/psgd_torch@a8616f1 preconditioned_stochastic_gradient_descent.py",
        "kind": "gradients",
        "kwargs": {
            "learning_rate": 0.1,
            "rank": rank,
            "precond_lr": 0.3,
            "mode": "whiten",
            "precond_init_scale": 0.8,
            "momentum": 0.7,
            "step_normalizer": normalizer,
            "grad_clip_norm": 2.0,
            "balance_probability": 1.0,
        },
        "notes": "draws/update_u is 1 where the coin falls on U",
    }
    arrays = stacked("params", 0, params) | stacked("grads", 1, grads) | factors
    arrays |= stacked("draws/v", 1, probes)
    return meta, arrays | {f"draws/update_u/1..{steps}": np.array(coins)}


# --- MKOR -----------------------------------------------------------------------------------------


@run
def mkor__paper(random: np.random.Generator, checkouts: Path) -> Run:
    def updated(J, u, gamma):
        moved = J @ u
        weight = (1 - gamma) / (gamma**2 * (1 + gamma * (1 - gamma) * (u @ moved)))
        return gamma * J + weight * np.outer(moved, moved)

    return rank_one(random, "paper", updated)


@run
def mkor__sherman_morrison(random: np.random.Generator, checkouts: Path) -> Run:
    def updated(J, u, gamma):
        return np.linalg.inv(gamma * np.linalg.inv(J) + (1 - gamma) * np.outer(u, u))

    return rank_one(random, "sherman_morrison", updated)


def rank_one(random: np.random.Generator, variant: str, updated: Callable[..., Any]) -> Run:
    """A transcription of the paper's algorithm; layers l0 (with a bias) and l1."""
    sizes = {"l0": (5, 4, True), "l1": (4, 3, False)}
    steps, batch, interval, warmup, clip = 10, 6, 2, 3, 1.2
    rate, momentum, decay, gamma, zeta = 0.1, 0.8, 0.1, 0.85, 0.7
    x, inverses = {}, {}
    for name, (n, m, bias) in sizes.items():
        x[f"{name}.kernel"] = random.normal(size=(n, m))
        if bias:
            x[f"{name}.bias"] = random.normal(size=m)
        inverses[name] = [np.eye(n + bias), np.eye(m)]
    buffer = {key: np.zeros_like(value) for key, value in x.items()}
    params, inputs, cotangents, grads = [dict(x)], [], [], []
    threshold = THRESHOLDS[variant]
    for t in range(1, steps + 1):
        inputs.append({name: random.normal(size=(batch, n)) for name, (n, _, _) in sizes.items()})
        cotangents.append(
            {name: random.normal(size=(batch, m)) / batch for name, (_, m, _) in sizes.items()}
        )
        grads.append({})
        for name, (n, _, bias) in sizes.items():
            A, D = inputs[-1][name], cotangents[-1][name]
            grads[-1][f"{name}.kernel"] = A.T @ D
            if bias:
                grads[-1][f"{name}.bias"] = D.sum(axis=0)
                A = np.concatenate([A, np.ones((batch, 1))], axis=1)
            if (t - 1) % interval == 0 or t <= warmup:
                means = np.clip(A, -clip, clip).mean(0), np.clip(batch * D, -clip, clip).mean(0)
                for side, u in enumerate(means):
                    J = inverses[name][side]
                    if np.max(np.abs(J)) > threshold:
                        J = zeta * J + (1 - zeta) * np.eye(len(J))
                    inverses[name][side] = updated(J, u, gamma)
            G = A.T @ D
            X = inverses[name][0] @ G @ inverses[name][1]
            norms = [sum(map(np.linalg.norm, (M[:n], M[n:]))) for M in (G, X)]
            X = X * norms[0] / norms[1]
            steps_of = {"kernel": X[:n]} | ({"bias": X[n]} if bias else {})
            for part, change in steps_of.items():
                key = f"{name}.{part}"
                buffer[key] = momentum * buffer[key] + change + decay * x[key]
                x[key] = x[key] - rate * buffer[key]
        params.append(dict(x))
    meta = {
        "source": "transcription of the paper (numpy float64)",
        "kind": "layers",
        "kwargs": {
            "learning_rate": rate,
            "momentum": momentum,
            "weight_decay": decay,
            "update_interval": interval,
            "warmup_steps": warmup,
            "clip_value": clip,
            "variant": variant,
            "gamma": gamma,
            "stabilization_factor": zeta,
            "stabilization_threshold": threshold,
        },
        "notes": "inputs and cotangents of the mean loss are random, not those of a model",
    }
    arrays = stacked("params", 0, params) | stacked("grads", 1, grads)
    return meta, arrays | stacked("inputs", 1, inputs) | stacked("cotangents", 1, cotangents)


THRESHOLDS = {"paper": 1.06, "sherman_morrison": 1.58}
"""Just below an entry that an inverse has in the run."""


def main(checkouts: str, pattern: str = "*") -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    for name, function in RUNS.items():
        if not fnmatch.fnmatch(name, pattern):
            continue
        method, _, case = name.partition("__")
        meta, arrays = function(np.random.default_rng(zlib.crc32(name.encode())), Path(checkouts))
        meta = {"method": method, "case": case, "api": method, "dtype": "float64", **meta}
        meta |= {"rtol": 1e-6, "recorded_by": "tests/record/unpackaged.py"}
        np.savez_compressed(REFERENCES / f"{name}.npz", meta=json.dumps(meta), **arrays)
        print(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
