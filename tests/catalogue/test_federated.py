"""What every federated pair must do, by `federated.simulate` and by its functions alone."""

import inspect

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradchain import federated
from gradchain.catalogue import METHODS
from gradchain.optimizers import adam, fedhyper_global, fedhyper_server_local, sgd
from subjects import rounded_in, strict

NAMES = sorted(name for name, entry in METHODS.items() if entry.kind == "federated")
CLIENTS, SLOTS = 6, 3
TARGETS = np.random.default_rng(0).normal(size=(CLIENTS, 4))

every_pair = pytest.mark.parametrize("name", NAMES)


def _beside(name):
    return {"weights": (1 / CLIENTS,) * CLIENTS} if name == "async_federated" else {}


def build(name):
    return METHODS[name].build(**_beside(name))


def start(dtype=jnp.float32):
    return {"w": jnp.full(4, 3.0, dtype), "s": jnp.asarray(-2.0, dtype)}


def gradient(params, client, turn, step):
    """Of a quadratic around a point of the client's own; a little noise by round and step."""
    target = jnp.asarray(TARGETS, jnp.float32)[client]
    wobble = 0.01 * jnp.cos(jnp.asarray(turn + 3 * step + client, float))
    return {
        "w": (params["w"] - target.astype(params["w"].dtype)),
        "s": params["s"] + wobble.astype(params["s"].dtype),
    }


def tables(rounds, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(CLIENTS)[:SLOTS] for _ in range(rounds)])


def simulate(name, there, params=None, **arguments):
    steps = arguments.pop("local_steps", np.full(there.shape, 3))
    return federated.simulate(
        build(name),
        start() if params is None else params,
        gradient,
        there,
        num_clients=CLIENTS,
        local_steps=steps,
        record=lambda params, state: params,
        **arguments,
    )


@every_pair
def test_clients_who_differ_make_one_model(name):
    run = simulate(name, tables(120))
    distance = np.linalg.norm(run.params["w"] - TARGETS.mean(axis=0))
    assert distance < 0.35 * np.linalg.norm(3.0 - TARGETS.mean(axis=0))
    assert abs(float(run.params["s"])) < 0.7


@every_pair
def test_empty_slots_and_rounds(name):
    """Whatever an empty slot holds, NaN included, and wherever it is; a round without anybody."""
    there = tables(4)
    there[1, 1:] = -1
    wider = np.insert(there, 1, -1, axis=1)
    found, again = simulate(name, there), simulate(name, wider)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-6), found.recorded, again.recorded
    )
    nobody = np.insert(there, 2, -1, axis=0)
    held = simulate(name, nobody).recorded["w"]
    np.testing.assert_array_equal(held[1], held[2])

    algorithm, params = build(name), start()
    state = algorithm.server.init(params, CLIENTS)
    own = algorithm.client.init(params, 0)
    sent = algorithm.server.broadcast(params, state)
    message, _ = algorithm.client.run(sent, own, lambda p, k: gradient(p, 0, 0, k), 2)
    stacked = jax.tree.map(lambda x: jnp.stack([x, jnp.full_like(x, jnp.nan)]), message)
    new, state = algorithm.server.update(params, state, stacked, jnp.array([0, -1]))
    inexact = [x for x in jax.tree.leaves((new, state)) if jnp.issubdtype(x.dtype, jnp.inexact)]
    assert all(jnp.isfinite(x).all() for x in inexact)


@every_pair
def test_nothing_is_rounded_in_float64(name):
    """Such as a share of clients, a quotient of counts; and no type is promoted silently."""
    algorithm = build(name)

    def turn(params, count):
        state, own = algorithm.server.init(params, CLIENTS), algorithm.client.init(params, 0)
        sent = algorithm.server.broadcast(params, state)
        message, _ = algorithm.client.run(sent, own, lambda p, k: p, count)
        messages = jax.tree.map(lambda x: jnp.stack([x, x]), message)
        return algorithm.server.update(params, state, messages, jnp.array([0, 1]))

    with jax.enable_x64(True), strict():
        assert rounded_in(jax.make_jaxpr(turn)(start(jnp.float64), jnp.int32(2))) == []


@every_pair
def test_dtypes_and_traced_numbers_of_steps(name):
    with strict():
        run = simulate(name, tables(3), start(jnp.bfloat16), local_steps=[[1, 2, 3]] * 3)
    assert {x.dtype for x in jax.tree.leaves(run.params)} == {jnp.dtype(jnp.bfloat16)}
    algorithm = build(name)
    own = algorithm.client.init(start(), 0)
    sent = algorithm.server.broadcast(start(), algorithm.server.init(start(), CLIENTS))

    def of_client(count):
        return algorithm.client.run(sent, own, lambda p, k: gradient(p, 0, 0, k), count)[0]

    traced = jax.jit(of_client)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-6, 1e-7), traced(2), of_client(2))
    traced(3)
    assert traced._cache_size() == 1


def test_old_broadcasts_are_kept_as_long_as_they_are_asked_for():
    """Plain averaging by hand, where each client sets out from a version of its own."""
    there, started = np.array([[0], [1], [2], [3]]), np.array([[0], [0], [1], [3]])
    method = build("async_federated")
    run = federated.simulate(
        method, jnp.array(1.0), lambda x, c, r, k: x - c, there, num_clients=CLIENTS,
        started=started, record=lambda params, state: params,
    )  # fmt: skip
    versions = [1.0]
    for client, version in zip(there[:, 0], started[:, 0], strict=True):
        end = client + (versions[version] - client) * 0.95**4
        versions.append(versions[-1] + (end - versions[version]) / CLIENTS)
    np.testing.assert_allclose(run.recorded, versions[1:], rtol=1e-5)


def test_thousands_of_clients_and_other_optimizers():
    method = federated.averaging(sgd(0.1, momentum=0.5), adam(0.1), num_local_steps=2)
    there = np.arange(3000).reshape(30, 100)
    run = federated.simulate(
        method, jnp.array(5.0), lambda x, c, r, k: x - 1.0, there, num_clients=3000
    )
    assert abs(float(run.params) - 1.0) < abs(5.0 - 1.0) / 2
    scaled = federated.averaging(
        sgd(0.1), gradchain.chain(fedhyper_global(), sgd(1.0)), num_local_steps=2
    )
    run = federated.simulate(
        scaled, jnp.array(5.0), lambda x, c, r, k: x - 1.0, there, num_clients=3000
    )
    assert abs(float(run.params) - 1.0) < 0.05


@pytest.mark.parametrize(
    ("there", "arguments", "problem"),
    [
        ([[0, 6, 1]], {}, "participants must be from -1 to num_clients - 1 = 5"),
        ([[0, 1, 1]], {}, "twice in one round"),
        ([0, 1], {}, r"participants must be int\[rounds, slots\]"),
        ([[0, 1, 2]], {"local_steps": [[0, 1, 1]]}, "at least 1"),
        ([[0, 1, 2]], {"local_steps": [[9, 1, 1]]}, "at most num_local_steps=4"),
        ([[0, 1, 2]], {"started": [[1, 0, 0]]}, "started must be from 0"),
    ],
)
def test_bad_tables_are_refused(there, arguments, problem):
    with pytest.raises(ValueError, match=f"simulate: .*{problem}"):
        simulate("fed_au", np.array(there), **arguments)


def test_refusals_of_methods():
    with pytest.raises(ValueError, match="local_steps must be given"):
        federated.simulate(build("anarchic_fedavg"), 1.0, gradient, [[0]], num_clients=1)
    with pytest.raises(ValueError, match="one for each of 4 clients"):
        build("async_federated").server.init(start(), 4)
    with pytest.raises(ValueError, match="'fedfix' needs delta="):
        gradchain.optimizers.aggregation_weights("fedfix", [1.0], [1.0])


def test_rates_of_clients_by_the_server():
    controller, change = fedhyper_server_local(0.01, 0.001, 0.02), start()
    state, rates = controller.init(change), []
    for sign in (1, 1, -1, -1):
        rate, state = controller.update(jax.tree.map(lambda x, s=sign: 0.1 * s * x, change), state)
        rates.append(float(rate))
    size = 0.01 * float(optax.tree.vdot(change, change))
    np.testing.assert_allclose(rates, [0.01, 0.01 * (1 + size), 0.01, 0.01 * (1 + size)], rtol=1e-5)


@pytest.mark.parametrize("name", ["async_federated", "fedavg_momentum", "fedspeed"])
def test_rates_are_numbers_or_schedules_of_the_round(name):
    """For two rounds as with a number, then as with half of it from where that has come to."""
    rates = {"learning_rate": 0.05, "global_learning_rate": 0.5}
    rates = {
        k: v for k, v in rates.items() if k in inspect.signature(METHODS[name].factory).parameters
    }
    half = {k: (lambda turn, v=v: jnp.where(turn < 2, v, v / 2)) for k, v in rates.items()}
    there = tables(3)

    def run(rates, stop):
        method = METHODS[name].build(**rates, **_beside(name))
        return federated.simulate(
            method, start(), gradient, there[:stop], num_clients=CLIENTS,
            record=lambda params, state: params,
        )  # fmt: skip

    found, plain = run(half, 3), run(rates, 3)
    np.testing.assert_allclose(found.recorded["w"][:2], plain.recorded["w"][:2], rtol=1e-6)
    last, before = (
        jnp.linalg.norm(x["w"][2] - x["w"][1]) for x in (found.recorded, plain.recorded)
    )
    assert last < 0.97 * before
    assert int(found.server_state.round) == 3


def test_a_gradient_unlike_the_params_is_refused():
    for wrong in ({"a": jnp.zeros(2)}, jnp.zeros(3)):
        with pytest.raises(ValueError, match="gradient of a client must be a tree like the params"):
            federated.simulate(
                federated.averaging(sgd(0.1), sgd(1.0), 1), jnp.zeros(2),
                lambda x, c, r, k, wrong=wrong: wrong, [[0]], num_clients=1,
            )  # fmt: skip
