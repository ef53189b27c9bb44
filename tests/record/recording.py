"""Runs a case and stores what happened."""

import importlib.metadata
import zlib
from typing import Any

import numpy as np
import torch
from cases import Case


def problem_of(spec, random):
    return {
        "a": {k: random.uniform(-0.5, 2.0, shape) for k, shape in spec.shapes.items()},
        "b": {k: random.uniform(0.1, 0.5, shape) for k, shape in spec.shapes.items()},
        "c": {k: random.normal(size=shape) for k, shape in spec.shapes.items()},
    }


def record(spec: Case) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Runs a case and returns its description and arrays."""
    seed = zlib.crc32(spec.name.encode())
    random = np.random.default_rng(seed)
    start = {k: random.normal(size=shape) for k, shape in spec.shapes.items()}
    arrays: dict[str, np.ndarray] = {}
    if spec.kind == "separable":
        problem = problem_of(spec, random)
        for letter, leaves in problem.items():
            arrays |= {f"problem/{letter}/{k}": v for k, v in leaves.items()}
        run = spec.run(start, problem)
    else:
        run = spec.run(start)
    if spec.draws is not None:
        arrays |= {f"draws/v0/{k}": v for k, v in spec.draws(start, seed).items()}
        torch.manual_seed(seed)
    target = {k: random.normal(size=shape) for k, shape in spec.shapes.items()}
    weight = {k: random.uniform(0.2, 2.0, shape) for k, shape in spec.shapes.items()}
    params, evaluated, gradients, values = [start], [], [], []
    for count in range(spec.steps):
        now = params[-1]
        if spec.kind == "quadratic":
            off = {k: now[k] - target[k] for k in now}
            gradient = {k: weight[k] * off[k] for k in now}
            value = sum(float(np.sum(weight[k] * off[k] ** 2)) / 2 for k in now)
            values.append(value)
        else:
            # Sizes vary from step to step: moments, clips and bounds act only if they do.
            size = 10 ** random.uniform(-1.0, 0.6)
            gradient = {k: size * random.normal(size=v) for k, v in spec.shapes.items()}
            value = None
        gradients.append(gradient)
        run.step(gradient, value, count)
        params.append(run.params())
        if hasattr(run, "eval_params"):
            evaluated.append(run.eval_params())
    last = spec.steps
    for group, first, trees in (
        ("params", 0, params),
        ("eval_params", 1, evaluated),
        ("grads", 1, gradients if spec.kind != "separable" else []),
    ):
        for key in spec.shapes if trees else ():
            arrays[f"{group}/{first}..{last}/{key}"] = np.stack([tree[key] for tree in trees])
    if values:
        arrays[f"values/1..{last}"] = np.asarray(values)
    for key, array in arrays.items():
        if array.dtype != np.float64 or not np.all(np.isfinite(array)):
            raise ValueError(f"{spec.name}: {key} is {array.dtype}, or not finite")
    meta = {
        "method": spec.method,
        "case": spec.case,
        "source": f"{spec.package} {importlib.metadata.version(spec.package)}",
        "api": spec.api or spec.method,
        "kwargs": spec.kwargs,
        "kind": "gradients" if spec.kind == "quadratic" else spec.kind,
        "dtype": "float64",
        "rtol": spec.rtol,
        "notes": spec.notes,
        "recorded_by": "tests/record/record.py",
    }
    return meta, arrays
