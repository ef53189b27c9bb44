"""Replays recorded runs of published implementations against our methods.

A record is one `.npz` file of `tests/references` (its README says how the arrays are named).
`check` builds the method of a record, feeds it what the recorded run was fed and compares, in
float64, the parameters after every step:

    record = load("adam__defaults.npz")
    check(record)                            # the catalogue's method
    check(record, factory=optax.adam)        # or any other factory

A record says nearly everything in data. What it cannot say (a wrapper to be put around an inner
optimizer, the interface through which a method takes its random draws) is one line in the tables
of hooks below, `BUILD`, `ARGUMENTS`, `EXTRAS`, `OBSERVE`, keyed by the record's `api`.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aggregator_records
import bilevel_records
import federated_records
import flat_records
import game_records
import gradchain
import jax
import jax.numpy as jnp
import manifold_records
import measured_records
import memory_records
import numpy as np
import optax
import worker_records
import zeroth_order_records
from gradchain.catalogue import METHODS
from optax.contrib import MuonDimensionNumbers

REFERENCES = Path(__file__).parent / "references"

LOOSEST_RTOL = 1e-6
SOLVED_APPROXIMATELY = {"cagrad", "nash_mtl"}
"""Methods whose recorded implementation stops an inner solver early: their records' own `rtol`
holds, and tests of their own check that ours solves exactly."""
IN_FLOAT32 = {"mu_lo"}
"""Methods whose recorded implementation computes in float32: their records' own `rtol` holds, and
tests of their own follow a transcription in float64."""
ATOL = 1e-12

_SERIES = re.compile(r"^(?P<group>.+?)/(?P<first>\d+)\.\.(?P<last>\d+)(?:/(?P<leaf>.+))?$")

Tree = Any
Factory = Callable[..., Any]


# --- records -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """One recorded run.

    Attributes:
      name: file name without its suffix, `<method>__<case>`.
      method: name of the method in the catalogue.
      api: the public function that was recorded; usually the method itself.
      kind: what drives the run: `gradients`, `separable`, `logistic`, `layers`, ...
      kwargs: arguments in our names; a list for `learning_rate` means schedule(count).
      rtol: relative tolerance.
      source: the implementation that was run.
      notes: what is special about the run.
      series: group -> tree with a leading time axis (`params`, `grads`, `draws/v`, ...).
      constants: group -> tree without one (`problem/a`, ...).
      steps: number of updates.
    """

    name: str
    method: str
    api: str
    kind: str
    kwargs: Mapping[str, Any]
    rtol: float
    source: str
    notes: str
    series: Mapping[str, Tree]
    constants: Mapping[str, Tree]
    steps: int


def _insert(tree: dict[str, Tree], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _leaf_path(leaf: str) -> list[str]:
    # `l0.kernel` is the kernel of layer l0: nested, as a Flax model has it.
    return leaf.split(".")


def load(path: str | Path) -> Record:
    """Reads a record; a bare file name is looked up among the references."""
    path = Path(path)
    if not path.exists():
        path = REFERENCES / path
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    meta = json.loads(str(arrays.pop("meta")))
    series: dict[str, Tree] = {}
    constants: dict[str, Tree] = {}
    last = 0
    for key, value in arrays.items():
        if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
            raise ValueError(f"{path.name}: {key} is not finite")
        found = _SERIES.match(key)
        if found:
            last = max(last, int(found["last"]))
            if found["leaf"] is None:
                series[found["group"]] = value
            else:
                _insert(series.setdefault(found["group"], {}), _leaf_path(found["leaf"]), value)
        elif key.count("/") >= 2:
            group, leaf = key.rsplit("/", 1)
            _insert(constants.setdefault(group, {}), _leaf_path(leaf), value)
        else:
            constants[key] = value
    return Record(
        name=path.stem,
        method=meta["method"],
        api=meta["api"],
        kind="aggregated" if any(key.startswith("aggregated/") for key in arrays) else meta["kind"],
        kwargs=meta["kwargs"],
        rtol=meta["rtol"],
        source=meta["source"],
        notes=meta.get("notes", ""),
        series=series,
        constants=constants,
        steps=last,
    )


def description(path: Path) -> dict[str, Any]:
    """What a record says of itself, without its arrays."""
    with np.load(path) as archive:
        return json.loads(str(archive["meta"]))


def collect(directory: Path = REFERENCES) -> list[str]:
    """File names of the records to be met: their method, or function, is in the catalogue.

    Only the descriptions are read; a run's arrays are loaded by its test.
    """
    names = []
    for path in sorted(directory.glob("*.npz")):
        meta = description(path)
        is_method = {meta["method"], meta["api"]} & set(METHODS)
        if is_method or meta["kind"] == "manifold_ops":
            names.append(path.name)
    return names


def public(name: str) -> Factory:
    """The public function of that name: of the catalogue, or a component beside the optimizers."""
    if name in METHODS:
        return METHODS[name].factory
    rooms = (gradchain, gradchain.optimizers, gradchain.schedules, gradchain.transforms)
    inner = [room for room in vars(gradchain.transforms).values() if inspect.ismodule(room)]
    for namespace in (*rooms, *inner):
        if name in namespace.__all__:
            return getattr(namespace, name)
    raise LookupError(f"gradchain has no public function {name!r}, which a record calls for")


def eval_params(state: Tree, params: Tree) -> Tree:
    """The library's evaluation weights."""
    return gradchain.eval_params(state, params)


# --- arguments -----------------------------------------------------------------------------------


def tabulated(values: list[float]) -> optax.Schedule:
    """The schedule that takes the recorded values at count 0, 1, ..."""
    return lambda count: jnp.asarray(values)[count]


def inner_optimizer(name: str, arguments: Mapping[str, Any]) -> optax.GradientTransformation:
    """The inner transformation of a wrapper's record: optax's, so that only the wrapper is ours."""
    arguments = _with_schedules(arguments)
    return getattr(optax, name)(**arguments)


def _with_schedules(arguments: Mapping[str, Any]) -> dict[str, Any]:
    rate = arguments.get("learning_rate")
    if isinstance(rate, list):
        return {**arguments, "learning_rate": tabulated(rate)}
    return dict(arguments)


def sampler(record: Record) -> Callable[..., Tree] | None:
    """The recorded draws as a `sampler(key, count, params)`; None without draws."""
    if "draws" in record.series:
        drawn = jax.tree.map(jnp.asarray, record.series["draws"])
        return lambda key, count, params: jax.tree.map(lambda x: x[count], drawn)
    groups = {k: v for table in (record.series, record.constants) for k, v in table.items()}
    drawn_groups = [group for group in groups if group.startswith("draws/")]
    if not drawn_groups:
        return None
    if len(drawn_groups) > 1 and "draws/v" not in drawn_groups:
        raise ValueError(f"{record.name}: several kinds of draws; a hook must say which is which")
    group = "draws/v" if "draws/v" in drawn_groups else drawn_groups[0]
    drawn = jax.tree.map(jnp.asarray, groups[group])
    if group in record.series:
        return lambda key, count, params: jax.tree.map(lambda x: x[count], drawn)
    return lambda key, count, params: drawn


def _accepts(factory: Factory, name: str) -> bool:
    parameters = inspect.signature(factory).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _default_build(record: Record, factory: Factory) -> optax.GradientTransformationExtraArgs:
    arguments = _with_schedules(record.kwargs)
    if "inner" in arguments:
        inner = inner_optimizer(arguments.pop("inner"), arguments.pop("inner_kwargs", {}))
        return factory(inner, **arguments)
    if record.api in ARGUMENTS:
        arguments = ARGUMENTS[record.api](record, arguments)
    draws = None if "sampler" in arguments else sampler(record)
    if draws is not None and _accepts(factory, "sampler"):
        arguments.setdefault("sampler", draws)
    if draws is not None and "noise_fn" in inspect.signature(factory).parameters:
        arguments.setdefault("noise_fn", draws)
    # Where the draws are injected, or do not matter (a Rademacher probe of a diagonal Hessian is
    # exact), any key will do.
    if "key" in inspect.signature(factory).parameters:
        arguments.setdefault("key", jax.random.key(0))
    return factory(**arguments)


# --- hooks: one line for each method whose record data alone cannot describe ----------------------


def _in_front(record: Record, factory: Factory) -> Any:
    arguments = dict(record.kwargs)
    inner = inner_optimizer(arguments.pop("inner"), arguments.pop("inner_kwargs", {}))
    return optax.chain(factory(**arguments), inner)


def _averaged_base(record: Record, factory: Factory) -> Any:
    arguments = dict(record.kwargs)
    momentum = arguments.pop("momentum") or None
    base = inner_optimizer(
        arguments.pop("base"),
        {"learning_rate": arguments.pop("learning_rate"), "momentum": momentum},
    )
    return factory(base, **arguments)


def _two_rates(record: Record, factory: Factory) -> Any:
    # `inner` is the name of a factory here, not a transformation to be wrapped.
    return factory(**record.kwargs)


BUILD: dict[str, Callable[[Record, Factory], Any]] = {
    **flat_records.BUILD,
    "perpgrad": _in_front,
    "clip_by_global_norm": _in_front,
    "momentum_weight_interpolation": _averaged_base,
    "ttur": _two_rates,
}

ARGUMENTS: dict[str, Callable[[Record, dict[str, Any]], dict[str, Any]]] = {
    **zeroth_order_records.ARGUMENTS,
    **dict.fromkeys(
        (
            "extragradient",
            "optimistic_mirror_descent",
            "past_extragradient",
            "projected_optimistic_gradient",
            "reflected_gradient",
        ),
        game_records.with_sets,
    ),
    **dict.fromkeys(manifold_records.METHODS, manifold_records.with_manifolds),
    "sparse_momentum": lambda record, arguments: {
        **arguments,
        "init_mask": {"bias": None, **record.constants["draws/mask"]},
    },
    # JSON has no tuples, and a list would be taken for a tree of sizes.
    "mup_adam": lambda record, arguments: {
        **arguments,
        "base_shapes": {leaf: tuple(shape) for leaf, shape in arguments["base_shapes"].items()},
    },
    # [inputs, outputs] of each leaf, each an axis or a list of them
    "muon": lambda record, arguments: {
        **arguments,
        **{
            name: {leaf: axes and MuonDimensionNumbers(*axes) for leaf, axes in numbers.items()}
            for name, numbers in arguments.items()
            if name == "muon_weight_dimension_numbers"
        },
    },
    "scaled_gd": lambda record, arguments: {
        **arguments,
        "pairs": [tuple(pair) for pair in arguments["pairs"]],
    },
    # Named in the record after the step of lazy_newton that it replaces.
    "lazy_cubic_newton": lambda record, arguments: {
        name: value for name, value in arguments.items() if name != "regularization"
    },
    # Shards' Gaussians lie stacked in the record.
    "fsgld": lambda record, arguments: {
        **arguments,
        **{
            name: [
                jax.tree.map(lambda x, s=s: x[s], record.constants[f"problem/{name}"])
                for s in range(len(arguments["shard_probs"]))
            ]
            for name in ("means", "precisions")
        },
    },
    **dict.fromkeys(
        ("apollo", "apollo_mini"),
        lambda record, arguments: {**arguments, "sampler": memory_records.directions(record)},
    ),
    "grass": lambda record, arguments: {**arguments, "sampler": memory_records.slices(record)},
    "mkor": lambda record, arguments: {
        **arguments,
        "first_order_layers": tuple(arguments.get("first_order_layers", ())),
    },
    "psgd_lra": lambda record, arguments: {
        **arguments,
        "coin_fn": lambda key, count: jnp.asarray(record.series["draws/update_u"])[count] > 0,
        "init_factors": (
            jnp.asarray(record.constants["draws/U0"]),
            jnp.asarray(record.constants["draws/V0"]),
        ),
    },
}

# Further extra arguments of `update`, from the arrays of the step.
EXTRAS: dict[str, Callable[[Mapping[str, Tree]], dict[str, Tree]]] = {
    "m_config": lambda step: {"index": step["index"]},
    **zeroth_order_records.EXTRAS,
    "psgd_kron": lambda step: {"probe": step["draws/v"]},
    "psgd_lra": lambda step: {"probe": step["draws/v"]},
    "psgd_xmat": lambda step: {"probe": step["draws/v"]},
}

Observer = Callable[[Tree, Tree], Tree]

# What is compared with a recorded group, where it is not the training parameters.
OBSERVE: dict[str, Observer] = {
    "eval_params": eval_params,
    "average": eval_params,
    "iterate": eval_params,
}
# The recorded parameters of weight prediction are the true weights, not the predicted ones at which
# our training loop takes its gradients.
OBSERVE_BY_API: dict[str, dict[str, Observer]] = {
    "xgrad": {"params": eval_params},
    "dlrt": {
        "params": lambda state, params: memory_records.dense(params),
        "rank": lambda state, params: params["w"].rank().astype(float),
    },
    "sparse_momentum": {
        "mask": lambda state, params: {
            name: state.mask[name].astype(float) for name in params if name != "bias"
        }
    },
}


# The params at the start, where they are held in another form than recorded.
STARTS: dict[str, Callable[[Record], Tree]] = {"dlrt": memory_records.factors}


# --- the objectives -------------------------------------------------------------------------------


def _separable(record: Record, step: Mapping[str, Tree]) -> dict[str, Any]:
    a, b, c = (record.constants[f"problem/{name}"] for name in "abc")

    def loss(params: Tree) -> jax.Array:
        terms = jax.tree.map(
            lambda x, a, b, c: jnp.sum(a * x**2 / 2 + b * x**4 / 4 + c * x), params, a, b, c
        )
        return sum(jax.tree.leaves(terms))

    return {"value_fn": lambda params: loss(memory_records.dense(params))}


def _logistic(record: Record, step: Mapping[str, Tree]) -> dict[str, Any]:
    x, y, l2 = (record.constants[f"problem/{name}"] for name in ("x", "y", "l2"))

    def loss(params: Tree) -> jax.Array:
        w = params["w"]
        return jnp.mean(jax.nn.softplus(-y * (x @ w))) + l2 / 2 * jnp.sum(w**2)

    return {"value_fn": loss}


def _regression(record: Record, step: Mapping[str, Tree]) -> dict[str, Any]:
    batch = step["batch"]
    return {"value_fn": lambda p: 0.5 * jnp.mean((batch["y"] - batch["x"] @ p["w"]) ** 2)}


def _gauss_newton(record: Record, step: Mapping[str, Tree]) -> dict[str, Any]:
    x, y = step["batch"]["x"], step["batch"]["y"]

    def outputs(params: Tree) -> jax.Array:
        return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]

    def loss(predicted: jax.Array) -> jax.Array:
        if record.kwargs["loss"] == "ce":
            log_p = jax.nn.log_softmax(predicted)
            return -jnp.mean(jnp.take_along_axis(log_p, y[:, None].astype(int), axis=1))
        return 0.5 * jnp.mean((predicted[:, 0] - y) ** 2)

    return {
        "value_fn": lambda params: loss(outputs(params)),
        "outputs_fn": outputs,
        "outputs_loss_fn": loss,
    }


OBJECTIVES: dict[str, Callable[[Record, Mapping[str, Tree]], dict[str, Any]]] = {
    "separable": _separable,
    "logistic": _logistic,
    "regression": _regression,
    "egn": _gauss_newton,
    "vector_field": game_records.field,
    "linear_model": flat_records.linear_model,
    "domains": flat_records.domains,
}

# Recorded groups that are passed to `update`, and under which name.
PASSED = {
    "values": "value",
    "hessian_diag": "hessian_diag",
    "previous_grads": "previous_grads",
    "shard": "shard",
    "cluster": "cluster",
    "server": "server_gradient",
    "client": "client_gradient",
    "predicted_grads": "predicted_grads",
    "inputs": "layer_inputs",
    "cotangents": "layer_cotangents",
}


def extra_arguments(record: Record, step: Mapping[str, Tree], params: Tree) -> dict[str, Any]:
    """What `update` is given besides the gradients at this step."""
    extra: dict[str, Any] = {}
    if record.kind in OBJECTIVES:
        extra = OBJECTIVES[record.kind](record, step)
        if "value_fn" in extra:
            extra["value"] = extra["value_fn"](params)
    extra |= {name: step[group] for group, name in PASSED.items() if group in step}
    if "proxy/a" in record.constants:
        extra["proxy_fn"] = flat_records.separable(record.constants, "proxy")
    if record.api in EXTRAS:
        extra |= EXTRAS[record.api](step)
    return extra


def incoming(record: Record, step: Mapping[str, Tree], params: Tree, extra: Mapping) -> Tree:
    """The updates fed in: recorded, stacked over objectives, or the objective's own gradient."""
    if "grads" in step:
        return step["grads"]
    if "stacked" in step:
        return step["stacked"]
    if "grad_fn" in extra:
        return extra["grad_fn"](params)
    return jax.grad(extra["value_fn"])(params)


# --- replay ---------------------------------------------------------------------------------------


def build(record: Record, factory: Factory | None = None) -> Any:
    """The transformation that a record describes."""
    factory = public(record.api) if factory is None else factory
    return BUILD.get(record.api, _default_build)(record, factory)


def observers(record: Record) -> dict[str, Observer]:
    """Recorded group -> what of (state, params) it is compared with."""
    table: dict[str, Observer] = {"params": lambda state, params: params, **OBSERVE}
    table |= OBSERVE_BY_API.get(record.api, {})
    return {group: table[group] for group in table if group in record.series}


def replay(record: Record, factory: Factory | None = None) -> dict[str, Tree]:
    """Runs our method on a record.

    Args:
      record: the record.
      factory: what builds the method; default the public function that the record names.

    Returns:
      Recorded group -> tree of what our method had there after each step, with a leading axis of
      `record.steps`; for the kind `transform` the group `updates`.
    """
    if record.kind not in KINDS:
        raise NotImplementedError(f"{record.name}: no replay for the kind {record.kind!r}")
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, KINDS[record.kind](record, factory))


def _recorded_start(record: Record) -> Tree:
    return jax.tree.map(lambda x: jnp.asarray(x[0]), record.series["params"])


def _training(record: Record, factory: Factory | None) -> dict[str, Tree]:
    transformation = optax.with_extra_args_support(build(record, factory))
    watched = observers(record)
    start = STARTS.get(record.api, _recorded_start)(record)
    not_fed = {*watched, "updates", "factors"}
    fed = {k: v for k, v in record.series.items() if k not in not_fed}
    fed = jax.tree.map(jnp.asarray, fed)
    still = record.kind == "transform"

    def step(carry, fed_now):
        params, state = carry
        extra = extra_arguments(record, fed_now, params)
        gradient = incoming(record, fed_now, params, extra)
        updates, state = transformation.update(gradient, state, params, **extra)
        if still:
            return (params, state), {"updates": updates}
        params = optax.apply_updates(params, updates)
        return (params, state), {k: look(state, params) for k, look in watched.items()}

    @jax.jit
    def run(params):
        return jax.lax.scan(step, (params, transformation.init(params)), fed, record.steps)[1]

    return run(start)


def _schedule(record: Record, factory: Factory | None) -> dict[str, Tree]:
    factory = public(record.api) if factory is None else factory
    schedule = factory(**record.kwargs)
    return {"values": jax.vmap(schedule)(jnp.asarray(record.constants["steps"]))}


def _scales(record: Record, factory: Factory | None) -> dict[str, Tree]:
    factory = public(record.api) if factory is None else factory
    scales = factory(**record.kwargs)
    # Accepted either way round: quantity -> role, or role -> quantity.
    roles = {"input", "hidden", "output"}
    if roles & set(scales):
        scales = {q: {r: scales[r][q] for r in scales} for q in next(iter(scales.values()))}
    return scales


def _workers(record: Record, factory: Factory | None) -> dict[str, Tree]:
    factory = public(record.api) if factory is None else factory
    return worker_records.KINDS[record.kind](record, factory)


KINDS: dict[str, Callable[[Record, Factory | None], dict[str, Tree]]] = {
    **dict.fromkeys(
        ("gradients", "stacked", "layers", "transform", "separable", "logistic", "regression"),
        _training,
    ),
    **dict.fromkeys(("domains", "egn", "ginzburg_landau", "linear_model"), _training),
    "vector_field": _training,
    "aggregated": aggregator_records.replayed,
    "bilevel": bilevel_records.replayed,
    "hypergradient": bilevel_records.hypergradient,
    "loss_term": flat_records.loss_term,
    **measured_records.KINDS,
    "manifold_ops": manifold_records.replayed,
    "schedule": _schedule,
    "scales": _scales,
    **dict.fromkeys(worker_records.KINDS, _workers),
    "federated": lambda record, factory: federated_records.replayed(
        record, public(record.api) if factory is None else factory
    ),
}


def expected(record: Record) -> dict[str, Tree]:
    """What a replay is to be compared with: the recorded groups, after each step."""
    if record.kind == "schedule":
        return {"values": record.constants["values"]}
    if record.kind == "scales":
        table: dict[str, Tree] = {}
        for key, value in record.constants.items():
            quantity, role = key.split("/")
            table.setdefault(quantity, {})[role] = value
        return table
    if record.kind == "aggregated":
        return aggregator_records.expected(record)
    if record.kind == "bilevel":
        return bilevel_records.expected(record)
    if record.kind == "hypergradient":
        return {n: record.constants[f"out/{n}"] for n in ("hypergradient", "inverse_hvp")}
    if record.kind == "loss_term":
        return {name: record.constants[name] for name in flat_records.LOSS_TERM}
    if record.kind == "manifold_ops":
        return manifold_records.expected(record)
    if record.kind in measured_records.KINDS:
        return measured_records.expected(record)
    if record.kind in worker_records.KINDS:
        return worker_records.expected(record)
    if record.kind == "transform":
        return {"updates": record.series["updates"]}
    groups = {}
    for group in observers(record):
        # Groups recorded from the start on hold one entry more than there are steps.
        groups[group] = jax.tree.map(lambda x: x[len(x) - record.steps :], record.series[group])
    return groups


def tolerance(record: Record, wanted: np.ndarray, start: np.ndarray | None) -> np.ndarray:
    """Allowed deviation of a leaf, per step.

    `rtol` (never more than 1e-6) times the leaf's scale: the largest entry of what was recorded at
    that step, or, if that is smaller, the farthest that any of its entries moved from where it
    started. A run which hardly moves is thus not passed by an optimizer that does not move.
    """
    axes = tuple(range(1, wanted.ndim))
    scale = np.max(np.abs(wanted), axis=axes, initial=0.0)
    if start is not None:
        scale = np.minimum(scale, np.max(np.abs(wanted - start), initial=0.0))
    approximate = record.api in SOLVED_APPROXIMATELY | IN_FLOAT32
    return (record.rtol if approximate else min(record.rtol, LOOSEST_RTOL)) * scale + ATOL


def deviations(record: Record, got: Mapping[str, Tree]) -> Iterator[tuple[str, int, float, float]]:
    """(leaf, step, deviation, tolerance) of the first bad step of each leaf that deviates."""
    for group, wanted_tree in expected(record).items():
        if group not in got:
            yield group, 0, float("nan"), 0.0
            continue
        start_tree = record.series["params"] if group in observers(record) else None
        if jax.tree.structure(start_tree) != jax.tree.structure(wanted_tree):  # it has no start
            start_tree = None
        wanted_leaves, _ = jax.tree_util.tree_flatten_with_path(wanted_tree)
        starts = jax.tree.leaves(start_tree) if start_tree is not None else None
        got_leaves = jax.tree.leaves(got[group])
        if len(got_leaves) != len(wanted_leaves):
            raise AssertionError(f"{record.name}: {group} has {len(got_leaves)} leaves")
        for index, (path, wanted) in enumerate(wanted_leaves):
            leaf = group + jax.tree_util.keystr(path)
            wanted = np.asarray(wanted)
            # A group may be recorded at the last steps only.
            ours = np.asarray(got_leaves[index])
            skipped = len(ours) - len(wanted) if wanted.ndim else 0
            ours = ours[skipped:] if wanted.ndim else ours
            if ours.shape != wanted.shape or ours.dtype != np.float64:
                raise AssertionError(f"{record.name}: {leaf} is {ours.dtype}{ours.shape}")
            wanted, ours = np.atleast_1d(wanted), np.atleast_1d(ours)
            start = None if starts is None else starts[index][0]
            allowed = tolerance(record, wanted, start)
            off = np.max(np.abs(ours - wanted), axis=tuple(range(1, wanted.ndim)), initial=0.0)
            bad = np.flatnonzero(~(off <= allowed))
            if bad.size:
                first = int(bad[0])
                yield leaf, skipped + first + 1, float(off[first]), float(allowed[first])


def check(record: Record, factory: Factory | None = None) -> None:
    """Asserts that our method follows a record.

    Args:
      record: the record.
      factory: what builds the method; default the public function that the record names.

    Raises:
      AssertionError: naming the leaves that deviate, each with its first bad step.
    """
    bad = list(deviations(record, replay(record, factory)))
    if bad:
        lines = [
            f"  {leaf} at step {step}: off by {off:.3g}, allowed {allowed:.3g}"
            for leaf, step, off, allowed in bad
        ]
        raise AssertionError(
            f"{record.name} departs from {record.source}, {dict(record.kwargs)}\n"
            + "\n".join(lines)
            + (f"\n  notes: {record.notes}" if record.notes else "")
        )
