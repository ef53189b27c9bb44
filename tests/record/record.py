"""Records runs of published packages, in the format of `tests/references/README.md`.

    python tests/record/record.py [pattern]

in an environment with `requirements.txt` regenerates, bit for bit, the records that this script
owns (those whose `meta` has `recorded_by`). Everything runs in float64 on the CPU.

A case says what is run, with which arguments in the package's names, and what that is in ours. Only
settings are recorded for which the method's specification follows that package; where the package
differs in a detail that an argument can silence (where eps sits), it is silenced and the case's
notes say so.
"""

import fnmatch
import importlib
import importlib.metadata
import json
import sys
import types
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adabelief_pytorch
import adamp
import jax
import jax.numpy as jnp
import lion_pytorch
import lion_pytorch.cautious_lion
import momo
import numpy as np
import optax
import optax.contrib
import pytorch_optimizer
import schedulefree
import torch
import torch_optimizer

# galore-torch asks transformers for a version check and bitsandbytes for 8-bit states; the runs
# here need neither, and both are large.
for absent in ("transformers", "transformers.utils", "transformers.utils.versions"):
    sys.modules[absent] = types.ModuleType(absent)
sys.modules["transformers.utils.versions"].require_version = lambda *_: None
sys.modules["bitsandbytes"] = types.ModuleType("bitsandbytes")
sys.modules["bitsandbytes.optim"] = types.ModuleType("bitsandbytes.optim")
sys.modules["bitsandbytes.optim.optimizer"] = types.ModuleType("bitsandbytes.optim.optimizer")
sys.modules["bitsandbytes.optim.optimizer"].Optimizer2State = object
galore_adamw = importlib.import_module("galore_torch.adamw")

REFERENCES = Path(__file__).parents[1] / "references"

SMALL = {"w": (4, 3), "b": (3,), "s": ()}
MIXED = {"w": (4, 3), "b": (3,), "s": (), "k": (2, 3, 2)}
MATRICES = {"w": (6, 4), "u": (3, 5), "b": (4,)}
WEIGHTS = {"w": (6, 5), "k": (4, 3, 2), "b": (5,), "s": ()}
VECTORS = {"b": (5,), "s": ()}

SQUARE_ROOT = [0.05 / (1 + 0.4 * t) ** 0.5 for t in range(8)]
DROP = [0.05] * 3 + [0.02] * 3 + [0.005] * 2
WARMUP = [0.01, 0.02, 0.03, 0.04, 0.05, 0.04, 0.03, 0.02]


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
      method: method of the catalogue.
      case: name of the setting.
      run: parameters -> something with `step(gradients, count)` and `params()`.
      kwargs: the setting in our argument names.
      package: distribution that is run, or None where `run` is torch or optax itself.
      shapes: leaf -> shape.
      steps: number of updates.
      api: our function, where it is not the method.
      kind: `gradients`, `quadratic` (stored as gradients, with losses) or `separable`.
      rtol: relative tolerance.
      notes: what is special.
      draws: (parameters, seed) -> random draws of the run, where it makes any.
    """

    method: str
    case: str
    run: Callable[..., Any]
    kwargs: dict[str, Any]
    package: str
    shapes: dict[str, tuple[int, ...]] = field(default_factory=lambda: MIXED)
    steps: int = 8
    api: str | None = None
    kind: str = "gradients"
    rtol: float = 1e-6
    notes: str = ""
    draws: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.method}__{self.case}"


# --- drivers --------------------------------------------------------------------------------------


class Torch:
    """Drives a torch optimizer; a list for the rate is written into the group before each step."""

    def __init__(self, start, make, rate=None, loss=False):
        self.leaves = {k: torch.tensor(v, requires_grad=True) for k, v in start.items()}
        self.optimizer = make(list(self.leaves.values()))
        self.rate = rate if isinstance(rate, list) else None
        self.loss = loss

    def step(self, gradients, value, count):
        if self.rate is not None:
            inner = getattr(self.optimizer, "optimizer", self.optimizer)
            for group in inner.param_groups:
                group["lr"] = self.rate[count]
        for key, leaf in self.leaves.items():
            leaf.grad = torch.tensor(gradients[key])
        if self.loss:
            self.optimizer.step(loss=torch.tensor(value))
        else:
            self.optimizer.step()

    def params(self):
        return {k: v.detach().numpy().copy() for k, v in self.leaves.items()}


class ScheduleFree(Torch):
    """Training weights y are the parameters; the averaged weights x are read in evaluation mode."""

    def __init__(self, start, make):
        super().__init__(start, make)
        self.optimizer.train()

    def eval_params(self):
        self.optimizer.eval()
        x = self.params()
        self.optimizer.train()
        return x


class Separable(Torch):
    """Hands the objective's gradient over with its graph, for Hessian-vector products."""

    def __init__(self, start, make, problem):
        super().__init__(start, make)
        self.problem = problem

    def step(self, gradients, value, count):
        self.optimizer.zero_grad()
        loss = 0.0
        for key, x in self.leaves.items():
            a, b, c = (torch.tensor(self.problem[letter][key]) for letter in "abc")
            loss = loss + (a * x**2 / 2 + b * x**4 / 4 + c * x).sum()
        torch.manual_seed(count)
        loss.backward(create_graph=True)
        self.optimizer.step()
        for leaf in self.leaves.values():
            leaf.grad = None


class Optax:
    """Drives an optax transformation."""

    def __init__(self, start, transformation):
        self.transformation = optax.with_extra_args_support(transformation)
        self.leaves = {k: jnp.asarray(v) for k, v in start.items()}
        self.state = self.transformation.init(self.leaves)

    def step(self, gradients, value, count):
        gradients = {k: jnp.asarray(v) for k, v in gradients.items()}
        updates, self.state = self.transformation.update(
            gradients, self.state, self.leaves, value=value
        )
        self.leaves = optax.apply_updates(self.leaves, updates)

    def params(self):
        return {k: np.asarray(v) for k, v in self.leaves.items()}


def by_torch(make, driver=Torch, **options):
    """A run with `make(leaves, **package arguments)`."""

    def bind(rate=None, **arguments):
        first = rate[0] if isinstance(rate, list) else rate
        if first is not None:
            arguments["lr"] = first

        def run(start):
            more = {"rate": rate} if driver is Torch else {}
            return driver(start, lambda leaves: make(leaves, **arguments), **more, **options)

        return run

    return bind


def by_optax(make):
    """A run with `make(**optax arguments)`."""

    def bind(**arguments):
        rate = arguments.get("learning_rate")
        if isinstance(rate, list):
            arguments["learning_rate"] = lambda count: jnp.asarray(rate)[count]
        return lambda start: Optax(start, make(**arguments))

    return bind


# --- the cases ------------------------------------------------------------------------------------

CASES: list[Case] = []


def case(method, name, run, kwargs, package, **more):
    CASES.append(Case(method, name, run, kwargs, package, **more))


def same(method, name, make, package, *, ours=None, **arguments):
    """An optax run whose arguments are ours too, up to those in `ours`; None drops one."""
    kwargs = {k: v for k, v in {**arguments, **(ours or {})}.items() if v is not None}
    case(method, name, by_optax(make)(**arguments), kwargs, package)


# adam, adamw, sgdw and their nearest relatives: torch and optax themselves

ADAM = by_torch(torch.optim.Adam)
ADAMW = by_torch(torch.optim.AdamW)
SGD = by_torch(torch.optim.SGD)
BETAS = {"b1": 0.8, "b2": 0.95}

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
same("adam", "nesterov", optax.adam, "optax", learning_rate=0.05, b1=0.8, b2=0.95, nesterov=True)
same("adam", "eps_root", optax.adam, "optax", learning_rate=WARMUP, eps=1e-3, eps_root=1e-2)
case(
    "adamw",
    "decay_schedule",
    ADAMW(WARMUP, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.3),
    {"learning_rate": WARMUP, **BETAS, "eps": 1e-2, "weight_decay": 0.3},
    "torch",
)
same(
    "adamw",
    "nesterov_decay",
    optax.adamw,
    "optax",
    learning_rate=DROP,
    b1=0.8,
    b2=0.95,
    eps_root=1e-3,
    weight_decay=0.2,
    nesterov=True,
)
case(
    "amsgrad",
    "raw_maximum",
    ADAM(SQUARE_ROOT, betas=(0.8, 0.7), eps=1e-3, amsgrad=True),
    {"learning_rate": SQUARE_ROOT, "b1": 0.8, "b2": 0.7, "eps": 1e-3, "max_of": "raw"},
    "torch",
)
same(
    "amsgrad",
    "paper_no_correction",
    optax.amsgrad,
    "optax",
    learning_rate=0.02,
    b1=0.8,
    b2=0.7,
    bias_correction_mu=False,
    bias_correction_nu=False,
)
same(
    "amsgrad",
    "schedule_eps",
    optax.amsgrad,
    "optax",
    learning_rate=DROP,
    b1=0.7,
    b2=0.6,
    eps=1e-2,
    eps_root=1e-3,
)
case(
    "adamax",
    "betas_eps_schedule",
    by_torch(torch.optim.Adamax)(SQUARE_ROOT, betas=(0.8, 0.7), eps=1e-2),
    {"learning_rate": SQUARE_ROOT, "b1": 0.8, "b2": 0.7, "eps": 1e-2},
    "torch",
)
same(
    "adamax",
    "decay",
    optax.adamaxw,
    "optax",
    learning_rate=WARMUP,
    b1=0.8,
    b2=0.9,
    weight_decay=0.3,
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
case(
    "sgdw",
    "decay_schedule",
    by_torch(pytorch_optimizer.SGDW)(DROP, momentum=0.7, weight_decay=0.5, foreach=False),
    {"learning_rate": DROP, "momentum": 0.7, "weight_decay": 0.5},
    "pytorch_optimizer",
)
case(
    "sgdw",
    "no_momentum",
    by_torch(pytorch_optimizer.SGDW)(0.05, momentum=0.0, weight_decay=0.5, foreach=False),
    {"learning_rate": 0.05, "momentum": 0.0, "weight_decay": 0.5},
    "pytorch_optimizer",
)

# lion

LION = by_torch(lion_pytorch.Lion)
case(
    "lion",
    "decay_schedule",
    LION(WARMUP, betas=(0.7, 0.9), weight_decay=0.5),
    {"learning_rate": WARMUP, "b1": 0.7, "b2": 0.9, "weight_decay": 0.5},
    "lion-pytorch",
)
same("lion", "optax_defaults", optax.lion, "optax", learning_rate=0.02)
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

# adabelief

BELIEF = by_torch(
    lambda leaves, **kw: adabelief_pytorch.AdaBelief(leaves, print_change_log=False, **kw)
)
case(
    "adabelief",
    "unrectified",
    BELIEF(WARMUP, betas=(0.8, 0.95), eps=1e-4, rectify=False),
    {"learning_rate": WARMUP, **BETAS, "eps": 1e-4, "rectify": False},
    "adabelief-pytorch",
)
case(
    "adabelief",
    "amsgrad_decay",
    BELIEF(0.03, betas=(0.7, 0.6), eps=1e-6, rectify=False, amsgrad=True, weight_decay=0.4),
    {
        "learning_rate": 0.03,
        "b1": 0.7,
        "b2": 0.6,
        "eps": 1e-6,
        "rectify": False,
        "amsgrad": True,
        "weight_decay": 0.4,
    },
    "adabelief-pytorch",
)
case(
    "adabelief",
    "rectified_decay",
    BELIEF(DROP, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.4),
    {"learning_rate": DROP, "b1": 0.8, "b2": 0.9, "eps": 1e-8, "weight_decay": 0.4},
    "adabelief-pytorch",
)
case(
    "adabelief",
    "fixed_decay",
    BELIEF(WARMUP, betas=(0.8, 0.95), eps=1e-8, weight_decay=0.05, fixed_decay=True),
    {"learning_rate": WARMUP, **BETAS, "eps": 1e-8, "weight_decay": 0.05, "fixed_decay": True},
    "adabelief-pytorch",
)
case(
    "adabelief",
    "coupled_no_sgd_phase",
    BELIEF(
        0.05,
        betas=(0.8, 0.95),
        eps=1e-8,
        weight_decay=0.2,
        weight_decouple=False,
        degenerated_to_sgd=False,
    ),
    {
        "learning_rate": 0.05,
        **BETAS,
        "eps": 1e-8,
        "weight_decay": 0.2,
        "weight_decouple": False,
        "degenerated_to_sgd": False,
    },
    "adabelief-pytorch",
)
same(
    "adabelief",
    "optax",
    optax.adabelief,
    "optax",
    learning_rate=SQUARE_ROOT,
    b1=0.8,
    b2=0.95,
    eps=1e-5,
    eps_root=1e-5,
    ours={"eps_root": None, "rectify": False},
)

# laprop, grams: the package puts eps elsewhere, hence tiny ones

LAPROP = by_torch(pytorch_optimizer.LaProp)
case(
    "laprop",
    "schedule_decay",
    LAPROP(WARMUP, betas=(0.8, 0.95), weight_decay=0.02, fixed_decay=True, foreach=False),
    {"learning_rate": WARMUP, **BETAS, "weight_decay": 0.02},
    "pytorch_optimizer",
)
case(
    "laprop",
    "centered",
    LAPROP(DROP, betas=(0.8, 0.7), centered=True, steps_before_using_centered=3, foreach=False),
    {"learning_rate": DROP, "b1": 0.8, "b2": 0.7, "centered": True, "centered_start": 3},
    "pytorch_optimizer",
    rtol=1e-6,
)
case(
    "laprop",
    "amsgrad",
    LAPROP(0.03, betas=(0.7, 0.6), ams_bound=True, eps=1e-12, foreach=False),
    {"learning_rate": 0.03, "b1": 0.7, "b2": 0.6, "amsgrad": True, "eps": 1e-12},
    "pytorch_optimizer",
    notes="the package adds 1e-15 to the running maximum before the root",
)
GRAMS = by_torch(pytorch_optimizer.Grams)
case(
    "grams",
    "schedule_decay",
    GRAMS(WARMUP, betas=(0.8, 0.95), eps=1e-15, weight_decay=0.4),
    {"learning_rate": WARMUP, **BETAS, "eps": 1e-15, "weight_decay": 0.4},
    "pytorch_optimizer",
    notes="eps is tiny so that its place does not matter",
)
case(
    "grams",
    "betas",
    GRAMS(0.02, betas=(0.5, 0.7), eps=1e-15),
    {"learning_rate": 0.02, "b1": 0.5, "b2": 0.7, "eps": 1e-15},
    "pytorch_optimizer",
    notes="eps is tiny so that its place does not matter",
)

# adafactor

FACTOR = {"w": (6, 4), "c": (3, 4, 5), "b": (5,), "s": ()}


def adafactor(name, ours, **arguments):
    kwargs = {
        k: v
        for k, v in arguments.items()
        if k not in ("clipping_threshold", "weight_decay_rate", "momentum", "dtype_momentum")
    }
    case(
        "adafactor",
        name,
        by_optax(optax.adafactor)(**arguments),
        {**kwargs, **ours},
        "optax",
        shapes=FACTOR,
        notes="the package evaluates its second-moment decay in float32",
    )


adafactor(
    "unfactored_unscaled",
    {"clip_threshold": None},
    learning_rate=SQUARE_ROOT,
    factored=False,
    multiply_by_parameter_scale=False,
    clipping_threshold=None,
    decay_rate=0.7,
)
adafactor(
    "momentum_decay",
    {"b1": 0.8, "weight_decay": 0.02, "scale_weight_decay": False, "clip_threshold": 0.7},
    learning_rate=0.1,
    min_dim_size_to_factor=3,
    clipping_threshold=0.7,
    momentum=0.8,
    dtype_momentum=jnp.float64,
    weight_decay_rate=0.02,
)
adafactor(
    "factored_schedule",
    {"clip_threshold": 0.5},
    learning_rate=WARMUP,
    min_dim_size_to_factor=4,
    decay_rate=0.9,
    eps=1e-3,
    clipping_threshold=0.5,
    multiply_by_parameter_scale=False,
)

# galore, with the SVD in float64 and singular vectors of one sign


class ReproducibleProjector(galore_adamw.GaLoreProjector):
    def get_orthogonal_matrix(self, weights, rank, type):
        left, _, right = np.linalg.svd(weights.numpy(), full_matrices=False)
        left, right = left[:, :rank], right[:rank]
        peaks = np.abs(left).argmax(axis=0)
        left = left * np.sign(left[peaks, np.arange(rank)])
        peaks = np.abs(right).argmax(axis=1)
        right = right * np.sign(right[np.arange(rank), peaks])[:, None]
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

# lookahead


def lookahead(name, pullback, period, alpha, inner, inner_kwargs, make):
    def wrapped(leaves, lr):
        return pytorch_optimizer.Lookahead(
            make(leaves, lr), k=period, alpha=alpha, pullback_momentum=pullback
        )

    case(
        "lookahead",
        name,
        by_torch(wrapped)(inner_kwargs["learning_rate"]),
        {
            "inner": inner,
            "inner_kwargs": inner_kwargs,
            "sync_period": period,
            "slow_step_size": alpha,
            "pullback_momentum": pullback,
        },
        "pytorch_optimizer",
        steps=10,
    )


HEAVY = {"learning_rate": 0.05, "momentum": 0.9}
for pullback in ("none", "reset", "pullback"):
    lookahead(
        f"sgd_{pullback}",
        pullback,
        3,
        0.5,
        "sgd",
        HEAVY,
        lambda leaves, lr: torch.optim.SGD(leaves, lr=lr, momentum=0.9),
    )
lookahead(
    "adam",
    "none",
    4,
    0.3,
    "adam",
    {"learning_rate": 0.05, **BETAS},
    lambda leaves, lr: torch.optim.Adam(leaves, lr=lr, betas=(0.8, 0.95)),
)

# schedule-free


def schedule_free(name, make, theirs, ours):
    rate = ours["learning_rate"]
    case(
        "schedule_free",
        f"{ours.pop('form')}_{name}",
        by_torch(make, ScheduleFree)(rate, **theirs),
        ours,
        "schedulefree",
        api=f"schedule_free_{make.__name__.removesuffix('ScheduleFree').lower()}",
        steps=10,
        notes="params are y, eval_params are x",
    )


for form, make, rate in (
    ("sgd", schedulefree.SGDScheduleFree, 0.1),
    ("adamw", schedulefree.AdamWScheduleFree, 0.05),
):
    beta = {"momentum": 0.8} if form == "sgd" else {"betas": (0.8, 0.95)}
    second = {} if form == "sgd" else {"b2": 0.95}
    schedule_free(
        "decay_warmup",
        make,
        {**beta, "weight_decay": 0.3, "warmup_steps": 4},
        {
            "form": form,
            "learning_rate": rate,
            "b1": 0.8,
            **second,
            "weight_decay": 0.3,
            "warmup_steps": 4,
        },
    )
    schedule_free(
        "weights",
        make,
        {"r": 1.5, "weight_lr_power": 1.0, "warmup_steps": 3},
        {
            "form": form,
            "learning_rate": rate,
            "r": 1.5,
            "weight_lr_power": 1.0,
            "warmup_steps": 3,
        },
    )
schedule_free(
    "silent",
    schedulefree.RAdamScheduleFree,
    {"betas": (0.8, 0.9), "weight_decay": 0.2},
    {"form": "radam", "learning_rate": 0.05, "b1": 0.8, "b2": 0.9, "weight_decay": 0.2},
)
schedule_free(
    "sgd_phase",
    schedulefree.RAdamScheduleFree,
    {"silent_sgd_phase": False, "r": 1.0},
    {"form": "radam", "learning_rate": 0.05, "silent_sgd_phase": False, "r": 1.0},
)

# mars; c_adamw is what its leaves of one dimension follow


def mars(method, name, shapes, theirs, ours, notes=""):
    kind = method.removeprefix("mars_")
    case(
        method,
        name,
        by_torch(pytorch_optimizer.MARS)(
            ours["learning_rate"],
            mars_type=kind,
            lr_1d=ours.get("learning_rate_1d", 3e-3),
            foreach=False,
            **theirs,
        ),
        ours,
        "pytorch_optimizer",
        shapes=shapes,
        notes=notes,
    )


TINY = "eps is tiny so that its place does not matter"
mars(
    "mars_adamw",
    "decay_1d",
    MATRICES,
    {
        "betas": (0.8, 0.9),
        "gamma": 0.05,
        "weight_decay": 0.3,
        "betas_1d": (0.7, 0.8),
        "weight_decay_1d": 0.2,
        "eps": 1e-14,
    },
    {
        "learning_rate": 0.03,
        "learning_rate_1d": 0.01,
        "b1": 0.8,
        "b2": 0.9,
        "gamma": 0.05,
        "weight_decay": 0.3,
        "b1_1d": 0.7,
        "b2_1d": 0.8,
        "weight_decay_1d": 0.2,
        "eps": 1e-14,
    },
    TINY,
)
mars(
    "mars_adamw",
    "optimize_1d",
    MIXED,
    {"betas": (0.8, 0.9), "optimize_1d": True},
    {"learning_rate": 0.03, "b1": 0.8, "b2": 0.9, "optimize_1d": True},
)
mars(
    "mars_adamw",
    "amsgrad",
    MIXED,
    {"betas": (0.8, 0.6), "ams_bound": True, "eps": 1e-14, "optimize_1d": True},
    {
        "learning_rate": 0.03,
        "b1": 0.8,
        "b2": 0.6,
        "amsgrad": True,
        "eps": 1e-14,
        "optimize_1d": True,
    },
    TINY,
)
mars(
    "mars_lion",
    "decay_1d",
    MATRICES,
    {
        "betas": (0.8, 0.9),
        "gamma": 0.05,
        "weight_decay": 0.3,
        "betas_1d": (0.7, 0.8),
        "weight_decay_1d": 0.2,
    },
    {
        "learning_rate": 0.03,
        "learning_rate_1d": 0.01,
        "b1": 0.8,
        "gamma": 0.05,
        "weight_decay": 0.3,
        "b1_1d": 0.7,
        "b2_1d": 0.8,
        "weight_decay_1d": 0.2,
    },
)
mars(
    "mars_lion",
    "optimize_1d",
    MIXED,
    {"betas": (0.9, 0.9), "optimize_1d": True, "gamma": 0.1},
    {"learning_rate": 0.02, "b1": 0.9, "optimize_1d": True, "gamma": 0.1},
)
case(
    "c_adamw",
    "count_scale",
    by_torch(pytorch_optimizer.MARS)(
        WARMUP,
        lr_1d=WARMUP[0],
        betas_1d=(0.5, 0.9),
        weight_decay_1d=0.3,
        eps=1e-15,
        cautious=True,
        foreach=False,
    ),
    {
        "learning_rate": WARMUP,
        "b1": 0.5,
        "b2": 0.9,
        "weight_decay": 0.3,
        "eps": 1e-15,
        "scale": "count",
    },
    "pytorch_optimizer",
    shapes=VECTORS,
    notes="MARS(cautious=True) on leaves of fewer than two dimensions, which it leaves to a "
    "cautious AdamW; eps is tiny so that its place does not matter",
)

# momo: losses and gradients belong to one function

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
same_momo = {"learning_rate": 0.5, "beta": 0.6, "lower_bound": 0.1}
case(
    "momo",
    "optax",
    by_optax(optax.contrib.momo)(**same_momo),
    same_momo,
    "optax",
    kind="quadratic",
    steps=10,
)

# curvature: diagonal Hessians, on which a Rademacher probe is exact


def separable(method, name, make, ours, package="pytorch_optimizer", **arguments):
    CASES.append(
        Case(
            method,
            name,
            lambda start, problem: Separable(
                start, lambda leaves: make(leaves, **arguments), problem
            ),
            ours,
            package,
            shapes=SMALL,
            kind="separable",
            steps=9,
            notes="Rademacher probes",
        )
    )


for name, period, gamma, decay in (("interval_3", 3, 0.05, 0.2), ("every_step", 1, 0.5, 0.0)):
    separable(
        "sophia_h",
        name,
        pytorch_optimizer.SophiaH,
        {
            "learning_rate": 0.1,
            "b1": 0.8,
            "b2": 0.9,
            "eps": 1e-12 * gamma,
            "gamma": gamma,
            "weight_decay": decay,
            "update_interval": period,
        },
        lr=0.1 / gamma,
        betas=(0.8, 0.9),
        p=gamma,
        update_period=period,
        eps=1e-12,
        weight_decay=decay * gamma,
        hessian_distribution="rademacher",
        foreach=False,
    )
separable(
    "adahessian",
    "interval_decay",
    pytorch_optimizer.AdaHessian,
    {
        "learning_rate": 0.1,
        "b1": 0.8,
        "b2": 0.9,
        "eps": 1e-3,
        "weight_decay": 0.3,
        "update_interval": 3,
    },
    lr=0.1,
    betas=(0.8, 0.9),
    eps=1e-3,
    weight_decay=0.3,
    update_period=3,
    foreach=False,
)
separable(
    "adahessian",
    "half_power",
    pytorch_optimizer.AdaHessian,
    {"learning_rate": 0.1, "b1": 0.7, "b2": 0.8, "eps": 1e-2, "hessian_power": 0.5},
    lr=0.1,
    betas=(0.7, 0.8),
    eps=1e-2,
    hessian_power=0.5,
    foreach=False,
)
case(
    "shampoo",
    "coupled_decay",
    by_torch(pytorch_optimizer.Shampoo)(0.2, matrix_eps=1e-2, weight_decay=0.3),
    {"learning_rate": 0.2, "eps": 1e-2, "weight_decay": 0.3},
    "pytorch_optimizer",
    shapes={"w": (4, 3), "b": (3,), "k": (2, 3, 2)},
)

# the other relatives of Adam

BOUND = by_torch(torch_optimizer.AdaBound)
for method, ams in (("adabound", False), ("amsbound", True)):
    case(
        method,
        "coupled_schedule",
        BOUND(
            SQUARE_ROOT,
            final_lr=0.02,
            gamma=0.3,
            betas=(0.8, 0.7),
            eps=1e-3,
            weight_decay=0.2,
            amsbound=ams,
        ),
        {
            "learning_rate": SQUARE_ROOT,
            "final_learning_rate": 0.02,
            "gamma": 0.3,
            "b1": 0.8,
            "b2": 0.7,
            "eps": 1e-3,
            "weight_decay": 0.2,
        },
        "torch-optimizer",
    )
    case(
        method,
        "tight_bounds",
        BOUND(0.1, final_lr=0.05, gamma=0.9, amsbound=ams),
        {"learning_rate": 0.1, "final_learning_rate": 0.05, "gamma": 0.9},
        "torch-optimizer",
    )
DIFF = by_torch(torch_optimizer.DiffGrad)
case(
    "diffgrad",
    "coupled_schedule",
    DIFF(WARMUP, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.3),
    {"learning_rate": WARMUP, **BETAS, "eps": 1e-2, "weight_decay": 0.3},
    "torch-optimizer",
)
case(
    "diffgrad",
    "betas",
    DIFF(0.03, betas=(0.5, 0.8)),
    {"learning_rate": 0.03, "b1": 0.5, "b2": 0.8},
    "torch-optimizer",
)
ADAN = by_torch(pytorch_optimizer.Adan)
for name, decouple in (("prox_clip_schedule", False), ("no_prox_clip_schedule", True)):
    case(
        "adan",
        name,
        ADAN(
            WARMUP,
            betas=(0.8, 0.7, 0.9),
            eps=1e-2,
            weight_decay=0.4,
            weight_decouple=decouple,
            max_grad_norm=2.0,
            foreach=False,
        ),
        {
            "learning_rate": WARMUP,
            "b1": 0.8,
            "b2": 0.7,
            "b3": 0.9,
            "eps": 1e-2,
            "weight_decay": 0.4,
            "max_grad_norm": 2.0,
            "no_prox": decouple,
        },
        "pytorch_optimizer",
        shapes={"w": (4, 3), "b": (3,), "k": (2, 3, 2)},
    )
case(
    "ademamix",
    "warmups_decay",
    by_torch(pytorch_optimizer.AdEMAMix)(
        0.03,
        betas=(0.8, 0.95, 0.99),
        alpha=3.0,
        t_alpha_beta3=5,
        eps=1e-3,
        weight_decay=0.3,
        weight_decouple=True,
    ),
    {
        "learning_rate": 0.03,
        "b1": 0.8,
        "b2": 0.95,
        "b3": 0.99,
        "alpha": 3.0,
        "eps": 1e-3,
        "weight_decay": 0.3,
        "alpha_warmup": 5,
        "b3_warmup": 5,
        "count_offset": 1,
    },
    "pytorch_optimizer",
)
same(
    "ademamix",
    "optax_decay",
    optax.contrib.ademamix,
    "optax",
    learning_rate=SQUARE_ROOT,
    b1=0.8,
    b2=0.95,
    b3=0.99,
    alpha=2.0,
    eps=1e-3,
    eps_root=1e-4,
    weight_decay=0.3,
)
ADAMP = by_torch(adamp.AdamP)
SGDP = by_torch(adamp.SGDP)
case(
    "adamp",
    "nesterov_decay",
    ADAMP(WARMUP, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.4, nesterov=True, wd_ratio=0.3),
    {
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
    {"learning_rate": 0.03, "delta": 4.0, "weight_decay": 0.3},
    "adamp",
    shapes=WEIGHTS,
)
case(
    "adamp",
    "never_projecting",
    ADAMP(0.03, delta=0.0, weight_decay=0.3),
    {"learning_rate": 0.03, "delta": 0.0, "weight_decay": 0.3},
    "adamp",
    shapes=WEIGHTS,
)
case(
    "sgdp",
    "momentum_dampening",
    SGDP(DROP, momentum=0.8, dampening=0.3, weight_decay=0.3, delta=0.8, wd_ratio=0.2),
    {
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
case(
    "sgdp",
    "nesterov",
    SGDP(0.03, momentum=0.9, nesterov=True, weight_decay=0.1, delta=4.0),
    {
        "learning_rate": 0.03,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.1,
        "delta": 4.0,
    },
    "adamp",
    shapes=WEIGHTS,
)
case(
    "novograd",
    "grad_averaging",
    by_torch(pytorch_optimizer.NovoGrad)(
        DROP, betas=(0.8, 0.7), weight_decay=0.3, grad_averaging=True, eps=1e-3, foreach=False
    ),
    {
        "learning_rate": DROP,
        "b1": 0.8,
        "b2": 0.7,
        "weight_decay": 0.3,
        "grad_averaging": True,
        "eps": 1e-3,
    },
    "pytorch_optimizer",
)
same(
    "novograd",
    "optax_decay",
    optax.novograd,
    "optax",
    learning_rate=WARMUP,
    b1=0.9,
    b2=0.25,
    eps=1e-2,
    weight_decay=0.3,
)
same(
    "lamb",
    "decay_schedule",
    optax.lamb,
    "optax",
    learning_rate=WARMUP,
    b1=0.8,
    b2=0.95,
    eps=1e-3,
    eps_root=1e-3,
    weight_decay=0.5,
)
same(
    "lars",
    "nesterov_decay_schedule",
    optax.lars,
    "optax",
    learning_rate=[100 * x for x in DROP],
    weight_decay=0.3,
    nesterov=True,
    momentum=0.8,
    eps=1e-2,
    trust_coefficient=0.02,
)
same(
    "lars",
    "unmasked",
    optax.lars,
    "optax",
    learning_rate=0.05,
    weight_decay=0.3,
    weight_decay_mask=False,
    trust_ratio_mask=False,
    momentum=0.8,
)


def gravity_draws(start, seed):
    # The package draws the initial velocities at its first step, leaf by leaf.
    torch.manual_seed(seed)
    return {k: torch.empty(np.shape(v)).normal_(0.0, 1.0).numpy() for k, v in start.items()}


for name, rate, alpha, beta in (("torch", 0.2, 0.01, 0.9), ("fast_start", 0.1, 0.1, 0.5)):
    case(
        "gravity",
        name,
        by_torch(pytorch_optimizer.Gravity)(rate, alpha=alpha, beta=beta),
        {"learning_rate": rate, "alpha": alpha, "beta": beta, "count_start": 1},
        "pytorch_optimizer",
        shapes=SMALL,
        draws=gravity_draws,
        notes="draws/v0 are standard normal, scaled by alpha/learning_rate at the start",
    )
for name, period, threshold in (("resets", 4, 1.5), ("no_clipping", 3, 0)):
    case(
        "spam",
        name,
        by_torch(pytorch_optimizer.SPAM)(
            0.03,
            betas=(0.8, 0.9),
            threshold=threshold,
            update_proj_gap=period,
            grad_accu_steps=2,
            warmup_epoch=0,
            weight_decay=0.3,
            eps=1e-3,
            foreach=False,
        ),
        {
            "learning_rate": 0.03,
            "b1": 0.8,
            "b2": 0.9,
            "threshold": float(threshold),
            "reset_interval": period,
            "grad_accu_steps": 2,
            "warmup_steps": 0,
            "weight_decay": 0.3,
            "eps": 1e-3,
        },
        "pytorch_optimizer",
        steps=11,
        notes="no damping after a reset: the package's cosine is one step ahead of the authors'",
    )
case(
    "stable_spam",
    "clean_resets",
    by_torch(pytorch_optimizer.StableSPAM)(
        WARMUP + DROP[:3],
        betas=(0.8, 0.9),
        gamma1=0.6,
        gamma2=0.8,
        theta=0.9,
        weight_decay=0.3,
        update_proj_gap=4,
        eps=1e-4,
        foreach=False,
    ),
    {
        "learning_rate": WARMUP + DROP[:3],
        "b1": 0.8,
        "b2": 0.9,
        "gamma1": 0.6,
        "gamma2": 0.8,
        "gamma3": 0.9,
        "weight_decay": 0.3,
        "reset_interval": 4,
        "eps": 1e-4,
        "reset_mode": "clean",
    },
    "pytorch_optimizer",
    steps=11,
)
case(
    "perpgrad",
    "sgd",
    by_torch(
        lambda leaves, lr: pytorch_optimizer.OrthoGrad(
            torch.optim.SGD(leaves, lr=lr, momentum=0.9), foreach=False
        )
    )(0.05),
    {"inner": "sgd", "inner_kwargs": {"learning_rate": 0.05, "momentum": 0.9}},
    "pytorch_optimizer",
    shapes={"w": (4, 3), "b": (3,), "k": (2, 3, 2)},
    notes="chain(perpgrad(), inner)",
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


# --- recording ------------------------------------------------------------------------------------


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
