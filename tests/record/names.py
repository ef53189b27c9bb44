"""Records runs of the methods that users look for by name, in Optax and in published packages.

    python tests/record/names.py [pattern]

regenerates, bit for bit, the records whose `recorded_by` is this file; the format is that of
`tests/references/README.md`, the versions are pinned in `requirements.txt`. Everything runs in
float64 on the CPU.

Methods that set their own step size are recorded on a quadratic, whose gradient is taken where the
run is (stored as gradients and losses): on gradients without pattern their steps would not grow.
"""

import fnmatch
import importlib.metadata
import json
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dadaptation
import dog
import jax
import jax.numpy as jnp
import madgrad
import momo
import numpy as np
import optax
import optax.contrib
import prodigyopt
import pytorch_optimizer
import torch

REFERENCES = Path(__file__).parents[1] / "references"

MIXED = {"w": (4, 3), "b": (3,), "s": (), "k": (2, 3, 2)}
MATRICES = {"w": (6, 4), "u": (3, 5), "x": (3, 5), "b": (4,), "s": ()}
# The first basis of SOAP is that of one gradient: in a null space of two dimensions, rounding
# would choose it.
SIDES = {"w": (4, 3), "u": (3, 4), "q": (4, 4), "k": (2, 3, 2), "b": (3,), "s": ()}

DROP = [0.05] * 3 + [0.02] * 3 + [0.005] * 2
WARMUP = [0.01, 0.02, 0.03, 0.04, 0.05, 0.04, 0.03, 0.02]
FALLING = [1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1]
RISING = [*FALLING[5::-1], *FALLING[6:]]
BETAS = {"b1": 0.8, "b2": 0.95}


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
      name: `<method>__<case>`.
      package: distribution that is run.
      run: start -> something with `step(gradients, value, count)` and `params()`.
      kwargs: the setting in our argument names.
      objective: "gradients" (without pattern) or "quadratic".
      shapes: leaf -> shape.
      steps: number of updates.
      notes: what is special.
      api: our function, where it is not the method.
    """

    name: str
    package: str
    run: Callable[[Any], Any]
    kwargs: dict[str, Any]
    objective: str
    shapes: dict[str, tuple[int, ...]]
    steps: int
    notes: str
    api: str


class Optax:
    """Drives an optax transformation."""

    def __init__(self, start, transformation):
        self.transformation = optax.with_extra_args_support(transformation)
        self.leaves = {key: jnp.asarray(value) for key, value in start.items()}
        self.state = self.transformation.init(self.leaves)

    def step(self, gradients, value, count):
        gradients = {key: jnp.asarray(g) for key, g in gradients.items()}
        updates, self.state = self.transformation.update(
            gradients, self.state, self.leaves, value=jnp.asarray(value)
        )
        self.leaves = optax.apply_updates(self.leaves, updates)

    def params(self):
        return {key: np.asarray(value) for key, value in self.leaves.items()}


class Torch:
    """Drives a torch optimizer; a list for the rate is written into the group before each step."""

    def __init__(self, start, make, rate=None, takes_loss=False):
        self.leaves = {k: torch.tensor(v, requires_grad=True) for k, v in start.items()}
        self.optimizer = make(list(self.leaves.values()))
        self.rate = rate
        self.takes_loss = takes_loss

    def step(self, gradients, value, count):
        if self.rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate[count]
        for key, leaf in self.leaves.items():
            leaf.grad = torch.tensor(gradients[key])
        self.optimizer.step(**({"loss": torch.tensor(value)} if self.takes_loss else {}))

    def params(self):
        return {key: leaf.detach().numpy().copy() for key, leaf in self.leaves.items()}


class Averaged(Torch):
    """A torch optimizer whose iterates dog-optimizer averages."""

    def __init__(self, start, make, gamma):
        super().__init__(start, make)
        self.model = torch.nn.Module()
        for key, leaf in self.leaves.items():
            parameter = torch.nn.Parameter(leaf.data)
            self.model.register_parameter(key, parameter)
            self.leaves[key] = parameter
        self.optimizer = make(list(self.leaves.values()))
        self.averager = dog.PolynomialDecayAverager(self.model, gamma=gamma)

    def step(self, gradients, value, count):
        super().step(gradients, value, count)
        self.averager.step()

    def eval_params(self):
        state = self.averager.averaged_model.state_dict()
        return {key: state[key].numpy().copy() for key in self.leaves}


class CautiousDecay:
    """A transcription of the paper: Adam, and decay only where it agrees with the step."""

    def __init__(self, start, rate, decay, b1, b2, eps):
        self.x = {key: np.array(value) for key, value in start.items()}
        self.m = {key: np.zeros_like(value) for key, value in start.items()}
        self.v = {key: np.zeros_like(value) for key, value in start.items()}
        self.settings = rate, decay, b1, b2, eps

    def step(self, gradients, value, count):
        rate, decay, b1, b2, eps = self.settings
        t = count + 1
        for key, g in gradients.items():
            x = self.x[key]
            self.m[key] = b1 * self.m[key] + (1 - b1) * g
            self.v[key] = b2 * self.v[key] + (1 - b2) * g**2
            u = self.m[key] / (1 - b1**t) / (np.sqrt(self.v[key] / (1 - b2**t)) + eps)
            self.x[key] = x - rate * (u + decay * np.where(u * x >= 0, x, 0.0))

    def params(self):
        return {key: np.array(value) for key, value in self.x.items()}


class OptaxScheduleFree(Optax):
    """Optax's schedule-free wrapper; x is read beside the run."""

    def eval_params(self):
        x = optax.contrib.schedule_free_eval_params(self.state, self.leaves)
        return {key: np.asarray(value) for key, value in x.items()}


class UniformAverage(Torch):
    """A torch optimizer whose iterates torch averages, from a step on, each second one."""

    def __init__(self, start, make, first, interval):
        super().__init__(start, make)
        self.model = torch.nn.ParameterDict(self.leaves)
        self.optimizer = make(list(self.model.values()))
        self.leaves = dict(self.model.items())
        self.average = torch.optim.swa_utils.AveragedModel(self.model)
        self.first, self.interval, self.seen = first, interval, False

    def step(self, gradients, value, count):
        super().step(gradients, value, count)
        if count + 1 > self.first and (count + 1 - self.first) % self.interval == 0:
            self.average.update_parameters(self.model)

    def eval_params(self):
        averaged = dict(self.average.module.items())
        return {key: averaged[key].detach().numpy().copy() for key in self.leaves}


class PolyakMomentum:
    """A transcription of the paper's four rules, with the cap and the decay of the SMAG code."""

    def __init__(self, start, heavy, momentum, cap, c, f_min, weight_decay, smoothness=None):
        self.x = {key: np.array(value) for key, value in start.items()}
        self.d = {key: np.zeros_like(value) for key, value in start.items()}
        self.heavy, self.momentum, self.cap, self.c = heavy, momentum, cap, c
        self.f_min, self.decay, self.smoothness = f_min, weight_decay, smoothness

    def step(self, gradients, value, count):
        mu = self.momentum
        gap = (value - self.f_min) / self.c
        if self.heavy:
            gap += mu * sum(np.sum(gradients[key] * self.d[key]) for key in self.x)
            norm = sum(np.sum(g**2) for g in gradients.values())
            rate = gap / norm + (0 if self.smoothness is None else 1 / (2 * self.smoothness))
        else:
            self.d = {key: mu * self.d[key] + g for key, g in gradients.items()}
            rate = gap / sum(np.sum(d**2) for d in self.d.values())
        rate = rate if self.cap is None else min(rate, self.cap)
        for key, g in gradients.items():
            along = mu * self.d[key] - rate * g if self.heavy else -rate * self.d[key]
            moved = along - rate * self.decay * self.x[key]
            self.x[key] = self.x[key] + moved
            self.d[key] = moved if self.heavy else self.d[key]

    def params(self):
        return {key: np.array(value) for key, value in self.x.items()}


class SgdHypergradient:
    """A transcription of the authors' SGD-HD."""

    def __init__(self, start, rate, hyper, momentum, dampening, nesterov, weight_decay):
        self.x = {key: np.array(value) for key, value in start.items()}
        self.u = {key: np.zeros_like(value) for key, value in start.items()}
        self.b: dict[str, Any] | None = None
        self.rate, self.settings = rate, (hyper, momentum, dampening, nesterov, weight_decay)

    def step(self, gradients, value, count):
        hyper, momentum, dampening, nesterov, decay = self.settings
        g = {key: gradients[key] + decay * self.x[key] for key in self.x}
        self.rate += hyper * sum(np.sum(g[key] * self.u[key]) for key in g)
        old = self.b
        self.b = g if old is None else {k: momentum * old[k] + (1 - dampening) * g[k] for k in g}
        self.u = {k: g[k] + momentum * self.b[k] if nesterov else self.b[k] for k in g}
        self.x = {key: self.x[key] - self.rate * self.u[key] for key in self.x}

    def params(self):
        return {key: np.array(value) for key, value in self.x.items()}


class AdaGradNorm:
    """A transcription of the paper: one sum of squared norms for all params."""

    def __init__(self, start, rate, initial, eps):
        self.x = {key: np.array(value) for key, value in start.items()}
        self.sum, self.rate, self.eps = initial, rate, eps

    def step(self, gradients, value, count):
        self.sum += sum(np.sum(g**2) for g in gradients.values())
        size = self.rate[count] / (np.sqrt(self.sum) + self.eps)
        self.x = {key: x - size * gradients[key] for key, x in self.x.items()}

    def params(self):
        return {key: np.array(value) for key, value in self.x.items()}


CASES: list[Case] = []


def case(
    name,
    package,
    run,
    kwargs,
    *,
    objective="gradients",
    shapes=None,
    steps=8,
    notes="",
    api=None,
):
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    shapes = MIXED if shapes is None else shapes
    api = api or name.split("__")[0]
    CASES.append(Case(name, package, run, kwargs, objective, shapes, steps, notes, api))


def by_optax(name, make, *, ours=None, objective="gradients", shapes=None, steps=8, notes="", **kw):
    """A run of Optax, whose arguments are ours up to those in `ours`; None drops one."""
    given = dict(kw)
    rate = given.get("learning_rate")
    if isinstance(rate, list):
        given["learning_rate"] = lambda count: jnp.asarray(rate)[count]
    case(
        name,
        "optax",
        lambda start: Optax(start, make(**given)),
        {**kw, **(ours or {})},
        objective=objective,
        shapes=shapes,
        steps=steps,
        notes=notes,
    )


def by_torch(name, package, make, theirs, ours, *, rate=None, takes_loss=False, **more):
    """A run of a torch optimizer with `theirs`; a list for the rate is set step by step."""
    arguments = dict(theirs)
    if rate is not None:
        arguments["lr"] = rate[0]

    def run(start):
        return Torch(start, lambda leaves: make(leaves, **arguments), rate, takes_loss)

    case(name, package, run, ours, **more)


# --- Adam's relatives -----------------------------------------------------------------------------

by_optax("nadam__schedule", optax.nadam, learning_rate=DROP, **BETAS, eps=1e-2, eps_root=1e-2)
by_optax(
    "nadamw__decay",
    optax.nadamw,
    learning_rate=WARMUP,
    **BETAS,
    eps=1e-2,
    eps_root=1e-2,
    weight_decay=0.3,
)
by_optax("nadamw__defaults", optax.nadamw, learning_rate=0.03)
by_optax(
    "radam__schedule",
    optax.radam,
    learning_rate=WARMUP,
    b1=0.8,
    b2=0.95,
    eps=1e-2,
    eps_root=1e-2,
    steps=8,
)
by_optax(
    "radam__threshold_nesterov",
    optax.radam,
    learning_rate=0.03,
    b1=0.7,
    b2=0.99,
    threshold=4.93,  # the length is 4.96 at the fifth step
    nesterov=True,
)
by_optax("yogi__schedule", optax.yogi, learning_rate=DROP, **BETAS, eps=1e-2)
by_optax("yogi__defaults", optax.yogi, learning_rate=0.02)
by_optax(
    "yogi__starts",
    lambda learning_rate, **kw: optax.chain(
        optax.scale_by_yogi(**kw), optax.scale_by_learning_rate(learning_rate)
    ),
    learning_rate=0.02,
    eps_root=1e-2,
    initial_accumulator_value=0.1,
)
by_optax("adopt__defaults", optax.contrib.adopt, learning_rate=0.03)
by_optax(
    "adopt__nesterov_schedule",
    optax.contrib.adopt,
    learning_rate=WARMUP,
    b1=0.7,
    b2=0.9,
    eps=0.5,
    nesterov=True,
)
by_optax(
    "adopt__unclipped",
    optax.contrib.adopt,
    learning_rate=DROP,
    b1=0.8,
    b2=0.95,
    eps=0.3,
    use_clipping=False,
)
by_optax(
    "simplified_ademamix__decay",
    optax.contrib.simplified_ademamix,
    learning_rate=WARMUP,
    b1=0.9,
    b2=0.9,
    alpha=2.0,
    eps=1e-2,
    eps_root=1e-2,
    weight_decay=0.3,
)
by_optax(
    "simplified_ademamix__defaults",
    optax.contrib.simplified_ademamix,
    learning_rate=0.01,
)

case(
    "cautious_weight_decay__adam",
    "",
    lambda start: CautiousDecay(start, 0.05, 0.4, 0.8, 0.95, 1e-8),
    {
        "inner": "adam",
        "inner_kwargs": {"learning_rate": 0.05, "b1": 0.8, "b2": 0.95},
        "weight_decay": 0.4,
        "learning_rate": 0.05,
    },
)

# --- sums of squares ------------------------------------------------------------------------------

by_optax("adagrad__schedule", optax.adagrad, learning_rate=DROP, eps=1e-2)
by_optax(
    "adagrad__starts", optax.adagrad, learning_rate=0.05, initial_accumulator_value=0.5, eps=1e-3
)
case(
    "adagrad_norm__starts",
    "",
    lambda start: AdaGradNorm(start, WARMUP, 2.0, 0.5),
    {"learning_rate": WARMUP, "initial_accumulator_value": 2.0, "eps": 0.5},
)
by_optax("rmsprop__schedule", optax.rmsprop, learning_rate=DROP, decay=0.8, eps=1e-2)
by_optax(
    "rmsprop__centered_momentum",
    optax.rmsprop,
    learning_rate=WARMUP,
    decay=0.7,
    eps=1e-2,
    initial_scale=0.4,
    centered=True,
    momentum=0.8,
    nesterov=True,
)
by_optax(
    "rmsprop__corrected",
    optax.rmsprop,
    learning_rate=0.02,
    decay=0.8,
    eps=0.1,
    eps_in_sqrt=False,
    bias_correction=True,
    momentum=0.5,
)
by_optax(
    "rmsprop__centered_corrected",
    optax.rmsprop,
    learning_rate=0.02,
    decay=0.8,
    eps=0.1,
    eps_in_sqrt=True,
    bias_correction=True,
    centered=True,
)
by_optax(
    "madgrad__optax_schedule",
    optax.contrib.madgrad,
    learning_rate=DROP,
    momentum=0.8,
    eps=1e-2,
    weight_decay=0.3,
)
by_optax("madgrad__optax", optax.contrib.madgrad, learning_rate=0.05)
by_torch(
    "madgrad__no_momentum",
    "madgrad",
    madgrad.MADGRAD,
    {"lr": 0.05, "momentum": 0.0, "eps": 1e-3, "weight_decay": 0.2},
    {"learning_rate": 0.05, "momentum": 0.0, "eps": 1e-3, "weight_decay": 0.2},
)
by_torch(
    "madgrad__torch_schedule",
    "madgrad",
    madgrad.MADGRAD,
    {"momentum": 0.7, "eps": 1e-2},
    {"learning_rate": WARMUP, "momentum": 0.7, "eps": 1e-2},
    rate=WARMUP,
)
by_optax("signum__schedule", optax.signum, learning_rate=WARMUP, beta=0.7)
by_optax("signum__defaults", optax.signum, learning_rate=0.02)
TENSORS = {"w": (4, 3), "b": (3,), "k": (2, 3, 2)}  # it takes no scalars
by_optax("sm3__defaults", optax.sm3, shapes=TENSORS, learning_rate=0.05)
by_optax(
    "sm3__decay",
    lambda learning_rate, momentum, **kw: optax.chain(
        optax.scale_by_sm3(momentum, **kw), optax.scale(-learning_rate)
    ),
    shapes=TENSORS,
    learning_rate=0.03,
    momentum=0.6,
    b2=0.8,
    eps=1e-2,
)

# --- matrices -------------------------------------------------------------------------------------

by_optax("muon__defaults", optax.contrib.muon, learning_rate=0.05, shapes=MATRICES)
by_optax(
    "muon__decay_adam",
    optax.contrib.muon,
    shapes=MATRICES,
    learning_rate=WARMUP,
    beta=0.8,
    eps=1e-2,
    weight_decay=0.3,
    adam_b1=0.7,
    adam_b2=0.95,
    adam_eps_root=1e-2,
    adam_weight_decay=0.2,
    adam_learning_rate=0.02,
    nesterov=False,
)
by_optax(
    "muon__dion_rms",
    optax.contrib.muon,
    shapes=MATRICES,
    learning_rate=0.05,
    ns_coeffs="dion",
    consistent_rms=0.2,
)
by_optax(
    "muon__adaptive_aol",
    optax.contrib.muon,
    shapes=MATRICES,
    learning_rate=0.01,
    adaptive=True,
    preconditioning="aol",
    ns_steps=4,
    ns_coeffs=(3.0, -3.2, 1.2),
)
by_optax(
    "muon__schatten",
    optax.contrib.muon,
    shapes=MATRICES,
    learning_rate=0.05,
    ns_steps=3,
    preconditioning="schatten",
)
by_optax(
    "muon__spectral",
    optax.contrib.muon,
    shapes=MATRICES,
    learning_rate=0.05,
    eps=0.1,
    preconditioning="spectral",
)


TENSOR_AXES = {"k": [[0, 1], 2], "t": [-1, 1], "w": [0, 1], "b": None, "s": None}


def muon_of_tensors(muon_weight_dimension_numbers, **arguments):
    numbers = {
        leaf: axes and optax.contrib.MuonDimensionNumbers(*axes)
        for leaf, axes in muon_weight_dimension_numbers.items()
    }
    return optax.contrib.muon(muon_weight_dimension_numbers=numbers, **arguments)


by_optax(
    "muon__tensors",
    muon_of_tensors,
    shapes={"k": (2, 3, 4), "t": (2, 3, 5), "w": (4, 3), "b": (4,), "s": ()},
    learning_rate=0.05,
    muon_weight_dimension_numbers=TENSOR_AXES,
    weight_decay=0.2,
)


class DoubleTorch:
    """torch, in whose name float32 is float64."""

    def __getattr__(self, name):
        return torch.float64 if name == "float32" else getattr(torch, name)


def soap(leaves, **arguments):
    # The package decomposes in float32 whatever the dtype of the params.
    sys.modules["pytorch_optimizer.optimizer.soap"].torch = DoubleTorch()
    return pytorch_optimizer.SOAP(leaves, **arguments)


SOAP_NOTE = "its QR decompositions in float64, as everything else"
by_torch(
    "soap__defaults",
    "pytorch_optimizer",
    soap,
    {"lr": 0.02, "precondition_frequency": 3},
    {"learning_rate": 0.02, "update_interval": 3},
    shapes=SIDES,
    steps=12,
    notes=SOAP_NOTE,
)
by_torch(
    "soap__matrices",
    "pytorch_optimizer",
    soap,
    {
        "lr": 0.02,
        "betas": (0.9, 0.8),
        "eps": 1e-3,
        "precondition_frequency": 2,
        "correct_bias": False,
        "weight_decay": 0.0,
    },
    {
        "learning_rate": 0.02,
        "b1": 0.9,
        "b2": 0.8,
        "eps": 1e-3,
        "update_interval": 2,
        "bias_correction": False,
        "weight_decay": 0.0,
    },
    shapes={"w": (4, 3), "u": (3, 4), "q": (4, 4)},
    steps=12,
    notes=SOAP_NOTE,
)
by_torch(
    "soap__every_step_decay",
    "pytorch_optimizer",
    soap,
    {
        "betas": (0.8, 0.9),
        "shampoo_beta": 0.7,
        "eps": 1e-2,
        "weight_decay": 0.3,
        "precondition_frequency": 1,
        "max_precondition_dim": 6,
    },
    {
        "learning_rate": WARMUP,
        "b1": 0.8,
        "b2": 0.9,
        "shampoo_beta": 0.7,
        "eps": 1e-2,
        "weight_decay": 0.3,
        "update_interval": 1,
        "max_dim": 6,
    },
    rate=WARMUP,
    shapes={**SIDES, "wide": (3, 7)},
    notes=SOAP_NOTE,
)
by_torch(
    "soap__vectors_uncorrected",
    "pytorch_optimizer",
    soap,
    {
        "lr": 0.02,
        "betas": (0.9, 0.8),
        "precondition_frequency": 2,
        "precondition_1d": True,
        "correct_bias": False,
        "weight_decay": 0.0,
    },
    {
        "learning_rate": 0.02,
        "b1": 0.9,
        "b2": 0.8,
        "update_interval": 2,
        "precondition_1d": True,
        "bias_correction": False,
        "weight_decay": 0.0,
    },
    shapes={"w": (4, 3), "q": (4, 4), "b": (2,)},
    steps=12,
    notes=SOAP_NOTE,
)

# --- step sizes that set themselves ---------------------------------------------------------------

QUADRATIC: dict[str, Any] = {"objective": "quadratic", "steps": 12}

by_optax("prodigy__grows", optax.contrib.prodigy, **QUADRATIC, estim_lr0=1e-2)
by_optax(
    "prodigy__schedule_decay",
    optax.contrib.prodigy,
    **QUADRATIC,
    learning_rate=FALLING,
    betas=(0.8, 0.95),
    beta3=0.9,
    eps=1e-2,
    estim_lr0=0.05,
    estim_lr_coef=1.5,
    weight_decay=0.2,
)
by_optax(
    "prodigy__safeguard",
    optax.contrib.prodigy,
    **QUADRATIC,
    learning_rate=FALLING[::-1],
    betas=(0.9, 0.99),
    estim_lr0=0.05,
    safeguard_warmup=True,
)
by_torch(
    "prodigy__package",
    "prodigyopt",
    prodigyopt.Prodigy,
    {"lr": 1.0, "betas": (0.9, 0.98), "d0": 1e-2, "weight_decay": 0.1, "eps": 1e-3},
    {
        "betas": (0.9, 0.98),
        "estim_lr0": 1e-2,
        "weight_decay": 0.1,
        "eps": 1e-3,
        "bias_correction": False,
    },
    **QUADRATIC,
)
by_optax("dadapt_adamw__grows", optax.contrib.dadapt_adamw, **QUADRATIC, estim_lr0=1e-2)
by_optax(
    "dadapt_adamw__schedule_decay",
    optax.contrib.dadapt_adamw,
    **QUADRATIC,
    learning_rate=FALLING,
    betas=(0.8, 0.9),
    eps=1e-2,
    estim_lr0=0.05,
    weight_decay=0.2,
)
by_torch(
    "dadapt_sgd__grows",
    "dadaptation",
    dadaptation.DAdaptSGD,
    {"d0": 1e-2},
    {"estim_lr0": 1e-2},
    **QUADRATIC,
)
by_torch(
    "dadapt_sgd__momentum_decay",
    "dadaptation",
    dadaptation.DAdaptSGD,
    {"momentum": 0.8, "d0": 0.05, "growth_rate": 1.2, "weight_decay": 0.2},
    {
        "learning_rate": FALLING,
        "momentum": 0.8,
        "estim_lr0": 0.05,
        "growth_rate": 1.2,
        "weight_decay": 0.2,
    },
    rate=FALLING,
    **QUADRATIC,
)


def mechanized(inner, inner_kwargs, **arguments):
    return optax.contrib.mechanize(getattr(optax, inner)(**inner_kwargs), **arguments)


by_optax(
    "mechanize__adam",
    mechanized,
    **QUADRATIC,
    inner="adam",
    inner_kwargs={"learning_rate": 1.0},
    s_init=1e-2,
)
by_optax(
    "mechanize__sgd_decay",
    mechanized,
    **QUADRATIC,
    inner="sgd",
    inner_kwargs={"learning_rate": 1.0, "momentum": 0.9},
    s_init=0.05,
    weight_decay=0.1,
    eps=1e-2,
    num_betas=3,
)
by_optax("cocob__defaults", optax.contrib.cocob, **QUADRATIC)
by_optax(
    "cocob__schedule_decay",
    optax.contrib.cocob,
    learning_rate=FALLING,
    alpha=5.0,
    eps=0.7,
    weight_decay=0.3,
    **QUADRATIC,
)
by_optax("dowg__defaults", optax.contrib.dowg, **QUADRATIC)
by_optax(
    "dowg__schedule_decay",
    optax.contrib.dowg,
    **QUADRATIC,
    learning_rate=FALLING,
    init_estim_sq_dist=0.1,
    eps=0.3,
    weight_decay=0.3,
)
by_optax(
    "dog__optax_distance",
    optax.contrib.dog,
    **QUADRATIC,
    learning_rate=FALLING,
    init_step=("distance", 0.2),
    eps=0.5,
    weight_decay=0.3,
)
by_torch(
    "dog__first_rate",
    "dog-optimizer",
    dog.DoG,
    {"lr": 0.7, "reps_rel": 1e-6, "init_eta": 0.05, "eps": 0.2, "weight_decay": 0.1},
    {"learning_rate": 0.7, "init_step": ("learning_rate", 0.05), "eps": 0.2, "weight_decay": 0.1},
    **QUADRATIC,
)
by_torch(
    "l_dog__first_rate",
    "dog-optimizer",
    dog.LDoG,
    {"lr": 0.7, "init_eta": 0.05, "eps": 0.2, "weight_decay": 0.1},
    {"learning_rate": 0.7, "init_step": ("learning_rate", 0.05), "eps": 0.2, "weight_decay": 0.1},
    **QUADRATIC,
)
by_torch(
    "l_dog__heuristic",
    "dog-optimizer",
    dog.LDoG,
    {"reps_rel": 1e-2},
    {"init_step": ("heuristic", 1e-2)},
    **QUADRATIC,
)

MOMO = {"rate": WARMUP, "takes_loss": True, "objective": "quadratic"}
DECOUPLED = {"weight_decay": 0.3, "divide": False}
for title, factor, theirs, ours in (
    ("decay", 4, {"weight_decay": 0.3}, {"weight_decay": 0.3}),
    ("decoupled", 4, DECOUPLED, {"weight_decay": 0.3, "decoupled": True}),
    ("bound", 40, {"lb": 0.5}, {"lower_bound": 0.5}),  # its step is Polyak's, not the rate's
    (
        "adapted_bound",
        4,
        {"lb": 0.5, "use_fstar": True, "weight_decay": 0.2},
        {"lower_bound": 0.5, "adapt_lower_bound": True, "weight_decay": 0.2},
    ),
):
    rates = [factor * r for r in WARMUP]
    by_torch(
        f"momo_adam__{title}",
        "momo-opt",
        momo.MomoAdam,
        {"betas": (0.8, 0.95), "eps": 1e-2, **theirs},
        {"learning_rate": rates, **BETAS, "eps": 1e-2, **ours},
        **{**MOMO, "rate": rates},
    )

for gamma in (0.0, 8.0):
    case(
        f"polynomial_averaging__gamma_{gamma:g}",
        "dog-optimizer",
        lambda start, gamma=gamma: Averaged(
            start, lambda leaves: torch.optim.SGD(leaves, lr=0.2), gamma
        ),
        {"inner": "sgd", "inner_kwargs": {"learning_rate": 0.2}, "gamma": gamma},
        objective="quadratic",
    )


case(
    "schedule_free__around_sgd",
    "optax",
    lambda start: OptaxScheduleFree(
        start,
        optax.contrib.schedule_free(
            optax.sgd(lambda count: jnp.asarray(RISING)[count]),
            lambda count: jnp.asarray(RISING)[count - 1],  # it counts from 1 here
            b1=0.8,
            weight_lr_power=1.5,
        ),
    ),
    {
        "inner": "sgd",
        "inner_kwargs": {"learning_rate": RISING},
        "learning_rate": RISING,
        "b1": 0.8,
        "weight_lr_power": 1.5,
    },
    **QUADRATIC,
)
case(
    "schedule_free__around_rmsprop",
    "optax",
    lambda start: OptaxScheduleFree(
        start, optax.contrib.schedule_free(optax.rmsprop(0.05, 0.9), 0.05, b1=0.7)
    ),
    {
        "inner": "rmsprop",
        "inner_kwargs": {"learning_rate": 0.05, "decay": 0.9},
        "learning_rate": 0.05,
        "b1": 0.7,
    },
    **QUADRATIC,
)
case(
    "weight_average__uniform_tail",
    "torch",
    lambda start: UniformAverage(start, lambda leaves: torch.optim.SGD(leaves, lr=0.2), 3, 2),
    {
        "inner": "sgd",
        "inner_kwargs": {"learning_rate": 0.2},
        "form": "uniform",
        "start": 3,
        "update_interval": 2,
    },
    **QUADRATIC,
    notes="torch.optim.swa_utils.AveragedModel after steps 5, 7, ...",
)
for variant, arguments in (
    ("smag", {"cap": 0.3, "c": 0.8, "f_min": 0.2, "weight_decay": 0.3}),
    ("mag", {"cap": None, "c": 1.0, "f_min": 0.1, "weight_decay": 0.2}),
    ("shb", {"cap": 0.4, "c": 0.8, "f_min": 0.2, "weight_decay": 0.3}),
    ("hb", {"cap": None, "c": 1.5, "f_min": 0.1, "weight_decay": 0.1, "smoothness": 8.0}),
):
    ours = {"max_learning_rate" if k == "cap" else k: v for k, v in arguments.items()}
    CASES.append(
        Case(
            f"polyak_momentum__{variant}_rule",
            "",
            lambda start, variant=variant, arguments=arguments: PolyakMomentum(
                start, variant.endswith("hb"), 0.7, **arguments
            ),
            {"variant": variant, "momentum": 0.7, **ours},
            "quadratic",
            MIXED,
            12,
            "",
            "polyak_momentum",
        )
    )
for title, arguments in (
    ("plain", {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}),
    ("dampened", {"momentum": 0.7, "dampening": 0.3, "nesterov": False, "weight_decay": 0.2}),
    ("nesterov", {"momentum": 0.7, "dampening": 0.0, "nesterov": True, "weight_decay": 0.1}),
):
    case(
        f"hypergradient_descent__sgd_{title}",
        "",
        lambda start, arguments=arguments: SgdHypergradient(start, 0.05, 1e-3, **arguments),
        {"learning_rate": 0.05, "hypergrad_learning_rate": 1e-3, **arguments},
        **QUADRATIC,
        api="sgd_hd",
    )


def source_of(package: str) -> str:
    """Name and version; without a package, the rule was transcribed here."""
    return f"{package} {importlib.metadata.version(package)}" if package else "transcription"


# --- recording ------------------------------------------------------------------------------------


def record(spec: Case) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Runs a case and returns its description and arrays."""
    random = np.random.default_rng(zlib.crc32(spec.name.encode()))
    start = {key: random.normal(size=shape) for key, shape in spec.shapes.items()}
    target = {key: random.normal(size=shape) for key, shape in spec.shapes.items()}
    weight = {key: random.uniform(0.2, 2.0, shape) for key, shape in spec.shapes.items()}
    run = spec.run(start)
    params, gradients, values, evaluated = [start], [], [], []
    for count in range(spec.steps):
        now = params[-1]
        value = sum(float(np.sum(weight[k] * (now[k] - target[k]) ** 2)) / 2 for k in now)
        gradient = {key: weight[key] * (now[key] - target[key]) for key in now}
        if spec.objective == "gradients":
            # Sizes vary from step to step: moments and bounds act only if they do.
            size = 10 ** random.uniform(-1.0, 0.6)
            gradient = {key: size * random.normal(size=shape) for key, shape in spec.shapes.items()}
        else:
            values.append(value)
        gradients.append(gradient)
        run.step({key: g.copy() for key, g in gradient.items()}, value, count)
        params.append(run.params())
        if hasattr(run, "eval_params"):
            evaluated.append(run.eval_params())
    groups = (("params", 0, params), ("grads", 1, gradients), ("eval_params", 1, evaluated))
    arrays = {
        f"{group}/{first}..{spec.steps}/{key}": np.stack([tree[key] for tree in trees])
        for group, first, trees in groups
        for key in (spec.shapes if trees else ())
    }
    if values:
        arrays[f"values/1..{spec.steps}"] = np.asarray(values)
    for key, array in arrays.items():
        if array.dtype != np.float64 or not np.all(np.isfinite(array)):
            raise ValueError(f"{spec.name}: {key} is {array.dtype}, or not finite")
    method, title = spec.name.split("__")
    meta = {
        "method": method,
        "case": title,
        "source": source_of(spec.package),
        "api": spec.api,
        "kwargs": spec.kwargs,
        "kind": "gradients",
        "dtype": "float64",
        "rtol": 1e-6,
        "notes": spec.notes,
        "recorded_by": "tests/record/names.py",
    }
    return meta, arrays


def main(pattern: str = "*") -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    jax.config.update("jax_enable_x64", True)
    names = [spec.name for spec in CASES]
    if len(set(names)) != len(names):
        raise ValueError("two cases of one name")
    for spec in CASES:
        if fnmatch.fnmatch(spec.name, pattern):
            meta, arrays = record(spec)
            path = REFERENCES / f"{spec.name}.npz"
            np.savez_compressed(path, meta=json.dumps(meta), **arrays)
            print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main(*sys.argv[1:])
