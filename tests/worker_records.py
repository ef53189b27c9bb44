"""Replays recorded runs of several workers, on a mesh and stacked on one device."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gradchain.transforms.workers import axis
from workers import AXIS, WORLDS

APART = {"mo_nna", "cd_prox_sgt"}
"""Methods whose workers have params of their own."""


def by_worker(tree: Mapping[str, Any]) -> Any:
    """Leaves `<worker>/<leaf>` with the steps in front as leaves with workers, then steps."""
    found: dict[str, dict[int, Any]] = {}
    for name, values in tree.items():
        worker, _, leaf = name.partition("/")
        if leaf:
            found.setdefault(leaf, {})[int(worker)] = values
    return {leaf: np.stack([own[i] for i in sorted(own)]) for leaf, own in found.items()}


def start_of(record: Any) -> Any:
    """The params before the first step, which all workers share."""
    params = record.series["params"]
    return {leaf: jnp.asarray(x[0]) for leaf, x in params.items() if "/" not in leaf}


def expected(record: Any) -> dict[str, Any]:
    """The params after each step, in either world."""
    if record.api in APART:
        params = by_worker(record.series["params"])
        moved = jax.tree.map(lambda x: np.moveaxis(x, 0, 1), params)
    else:
        moved = jax.tree.map(lambda x: x[1:], record.series["params"])
    return {f"params, {world}": moved for world in WORLDS}


def in_worlds(record: Any, train: Callable[..., Any], own: Any, agree: bool = True) -> Any:
    """The params of `train(own, start)` in either world, workers behind the steps."""
    found = {}
    for name, world in WORLDS.items():
        params = world(train, own, start_of(record), agree)
        found[name] = params if agree else jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), params)
    return {f"params, {name}": params for name, params in found.items()}


def arguments_of(record: Any) -> dict[str, Any]:
    """The recorded arguments, and those that arrays stand for."""
    arguments = dict(record.kwargs)
    factors = {side: record.constants.get(f"draws/{side}") for side in "pq"}
    given = {side: tree for side, tree in factors.items() if tree is not None}
    if given:
        leaves = start_of(record)
        arguments["init_factors"] = {
            side: {leaf: tree.get(leaf) for leaf in leaves} for side, tree in given.items()
        }
    if "draws" in record.series and record.api == "diff2":
        normals = jax.tree.map(jnp.asarray, by_worker(record.series["draws"]))
        arguments["noise_fn"] = lambda key, count, params: jax.tree.map(
            lambda x: x[jax.lax.axis_index(AXIS), count], normals
        )
    if "mixing" in record.constants:
        arguments["mixing"] = record.constants["mixing"]
    return {**arguments, "axis_name": AXIS}


def with_gradients(record: Any, factory: Callable[..., Any]) -> dict[str, Any]:
    """Each worker is fed with its own recorded gradients."""
    own = {"grads": by_worker(record.series["grads"]), "extra": extras(record)}
    opt = optax.with_extra_args_support(factory(**arguments_of(record)))
    apart = record.api in APART

    def train(own: Any, start: Any) -> Any:
        def step(carry: Any, now: Any) -> Any:
            params, state = carry
            updates, state = opt.update(now["grads"], state, params, **now["extra"])
            params = optax.apply_updates(params, updates)
            return (params, state), params

        start = axis.own(start, AXIS) if apart else start
        return jax.lax.scan(step, (start, opt.init(start)), own)[1]

    return in_worlds(record, train, jax.tree.map(jnp.asarray, own), not apart)


def extras(record: Any) -> dict[str, Any]:
    """Further inputs of a step, with the workers in front."""
    if "previous_grads" in record.series:
        return {"previous_grads": by_worker(record.series["previous_grads"])}
    if record.api != "mo_nna":
        return {}
    faulty = by_worker(record.series["byzantine"])
    honest = record.series["responders"]
    received = jax.tree.map(
        lambda x: np.broadcast_to(
            np.moveaxis(x, 0, 1), (honest.shape[1], *np.moveaxis(x, 0, 1).shape)
        ),
        faulty,
    )
    ids = np.arange(honest.shape[1])
    mask = (honest[..., None] == ids).any(-2)
    return {"received": received, "neighbors": np.moveaxis(mask, 1, 0)}


def losses(record: Any) -> Any:
    """`(worker, noise, params) -> loss` of the recorded problems; the workers in front."""
    problem: dict[str, Any] = {}
    for name, value in record.series["problem"].items():
        kind, _, leaf = name.partition("/")
        problem.setdefault(kind, {})[leaf] = jnp.asarray(value)
    shape = next(iter(problem["a"].values())).shape
    count = record.kwargs.get("num_local_steps") or record.kwargs.get("num_samples")
    noise = {
        name.partition("/")[2]: jnp.moveaxis(jnp.asarray(x), 2, 0)
        for name, x in record.constants.items()
        if name.startswith("noise/")
    } or jax.tree.map(
        lambda x: jnp.zeros((shape[0], record.steps, count, *x.shape[1:])), problem["a"]
    )

    def loss(problem: Any, xi: Any, params: Any) -> Any:
        def term(a: Any, b: Any, c: Any, xi: Any, x: Any) -> Any:
            return jnp.sum(a * x**2 / 2 + b * x**4 / 4 + c * x + xi * (x + x**2 / 2))

        terms = jax.tree.map(term, problem["a"], problem["b"], problem["c"], xi, params)
        return sum(jax.tree.leaves(terms))

    return {"problem": problem, "noise": noise}, loss


def with_losses(record: Any, factory: Callable[..., Any]) -> dict[str, Any]:
    """Rounds of steps along the gradients of each worker's own loss."""
    own, loss = losses(record)
    if record.api == "just_one_byte":
        return with_values(record, factory, own, loss)
    opt = in_rounds(record, factory)

    def train(own: Any, start: Any) -> Any:
        def step(carry: Any, xi: Any) -> Any:
            params, state = carry
            g = jax.grad(lambda x: loss(own["problem"], xi, x))(params)
            updates, state = opt.update(g, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        def round_(carry: Any, xi: Any) -> Any:
            carry, _ = jax.lax.scan(step, carry, xi)
            return carry, jax.tree.map(lambda x: jax.lax.pmean(x, AXIS), carry[0])

        start = axis.own(start, AXIS)
        return jax.lax.scan(round_, (start, opt.init(start)), own["noise"])[1]

    return in_worlds(record, train, own)


def in_rounds(record: Any, factory: Callable[..., Any]) -> Any:
    """`local_sgd` or `co2` around the recorded inner optimizer."""
    arguments = dict(record.kwargs)
    name = arguments.pop("inner")
    inner = {
        key.removeprefix("inner_"): arguments.pop(key)
        for key in list(arguments)
        if key.startswith("inner_")
    }
    arguments |= {"axis_name": AXIS}
    if record.api == "local_sgd":
        arguments["outer"] = optax.sgd(
            arguments.pop("outer_learning_rate"),
            arguments.pop("outer_momentum"),
            arguments.pop("outer_nesterov"),
        )
    return factory(getattr(optax, name)(**inner), **arguments)


def with_values(record: Any, factory: Callable[..., Any], own: Any, loss: Any) -> dict[str, Any]:
    """Workers that evaluate their losses alone, along recorded draws."""
    drawn: dict[str, Any] = {}
    for name, value in record.series["draws"].items():
        worker, sample, leaf = name.split("/")
        drawn.setdefault(leaf, {})[int(worker), int(sample)] = jnp.asarray(value)
    workers, samples = (max(i) + 1 for i in zip(*next(iter(drawn.values())), strict=True))
    table = {
        leaf: jnp.stack([jnp.stack([x[i, j] for j in range(samples)]) for i in range(workers)])
        for leaf, x in drawn.items()
    }

    def perturbation(step: Any, machine: Any, sample: Any, params: Any) -> Any:
        return jax.tree.map(lambda x: x[machine, sample, step], table)

    opt = factory(**record.kwargs, axis_name=AXIS, perturbation_fn=perturbation)

    def train(own: Any, start: Any) -> Any:
        def step(carry: Any, xi: Any) -> Any:
            params, state = carry

            def value_fn(x: Any, j: Any) -> Any:
                return loss(own["problem"], jax.tree.map(lambda x: x[j], xi), x)

            updates, state = opt.update(None, state, params, value_fn=value_fn)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (start, opt.init(start)), own["noise"])[1]

    return in_worlds(record, train, own)


def with_operators(record: Any, factory: Callable[..., Any]) -> dict[str, Any]:
    """Variational inequalities with affine operators, F_i(z) = A_i z + d_i."""
    own = {name: jnp.asarray(record.constants[f"problem/{name}"]) for name in "Ad"}
    opt = optax.with_extra_args_support(factory(**record.kwargs, axis_name=AXIS, **draws(record)))

    def train(own: Any, start: Any) -> Any:
        def operator(params: Any) -> Any:
            return {"z": own["A"] @ params["z"] + own["d"]}

        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            g = operator(params)
            updates, state = opt.update(g, state, params, operator_fn=operator)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (start, opt.init(start)), None, record.steps)[1]

    return in_worlds(record, train, own)


def draws(record: Any) -> dict[str, Any]:
    """The recorded coins and supports of Rand-k, as the functions that give them."""
    found: dict[str, Any] = {}
    given = {n: jnp.asarray(x) for n, x in record.constants.items() if n.startswith("draws/")}
    if "draws/coin" in given:
        found["coin_fn"] = lambda key, count: given["draws/coin"][count]

    def sparse(places: Any, vector: Any) -> Any:
        kept = jnp.zeros_like(vector).at[places].set(vector[places])
        return kept * (vector.size / places.size)

    if "draws/device_index" in given:
        found["compressor_device"] = lambda key, count, worker, vector: sparse(
            given["draws/device_index"][count, worker], vector
        )
        found["compressor_server"] = lambda key, count, vector: sparse(
            given["draws/server_index"][count], vector
        )
    return found


KINDS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "workers": with_gradients,
    "workers_closure": with_losses,
    "vi_workers": with_operators,
}
