"""Arguments of federated methods that recorded runs leave at rest, transcribed in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from at_rest import START, draw
from gradchain import federated
from gradchain import optimizers as o
from trajectories import assert_close

pytestmark = pytest.mark.usefixtures("x64")


CLIENTS, LOCAL = 3, 2
CURVES, CENTRES = draw(5, (CLIENTS,)), draw(6, (CLIENTS,))
PRESENT = np.array([[0, 1], [1, 2], [0, 2]])


def pull(params, client, turn=0, step=0):
    """A quadratic of the client, with its own noise in each step."""
    return {
        k: (0.5 + CURVES[k][client] ** 2) * (params[k] - CENTRES[k][client])
        + 0.1 * (turn + 1) * (step + 1)
        for k in params
    }


def rounds_of(method, there=PRESENT):
    def gradient(params, client, turn, step):
        curves, centres = (jax.tree.map(jnp.asarray, x) for x in (CURVES, CENTRES))
        return {
            k: (0.5 + curves[k][client] ** 2) * (params[k] - centres[k][client])
            + 0.1 * (turn + 1) * (step + 1)
            for k in params
        }

    run = federated.simulate(
        method,
        jax.tree.map(jnp.asarray, START),
        gradient,
        there,
        num_clients=CLIENTS,
        local_steps=np.full(there.shape, LOCAL),
        record=lambda params, state: params,
    )
    return [jax.tree.map(lambda x, r=r: np.asarray(x[r]), run.recorded) for r in range(len(there))]


def plus(*terms):
    """The sum of trees, each times its number."""
    return {k: sum(a * tree[k] for a, tree in terms) for k in START}


ZERO = {k: np.zeros_like(x) for k, x in START.items()}


def test_anarchic_clients_of_a_silo():
    """The server keeps the last upload of every client; those that never came count as zero."""
    x, uploads, wanted = START, [ZERO] * CLIENTS, []
    for turn, present in enumerate(PRESENT):
        for client in present:
            y = x
            for step in range(LOCAL):
                y = plus((1, y), (-0.05, pull(y, client, turn, step)))
            uploads[client] = plus((1 / LOCAL, x), (-1 / LOCAL, y))
        x = plus((1, x), *((-2.0 / 4, upload) for upload in uploads))
        wanted.append(x)
    got = rounds_of(o.anarchic_fedavg(0.05, 2.0, cross_silo=True, num_clients=4))
    assert_close(got, wanted)


@pytest.mark.parametrize("name", ["fedavg_momentum", "scaffold_momentum"])
def test_momentum_of_clients_with_less_variance(name):
    """STORM: the gradient at the last params is taken of the same batch."""
    beta, eta, gamma = 0.3, 0.05, 0.2
    x = last = START
    g, control, controls, wanted = ZERO, ZERO, [ZERO] * CLIENTS, []
    for turn, present in enumerate(PRESENT):
        directions, changes = [], ZERO
        for client in present:
            y, raw = x, ZERO
            for step in range(LOCAL):
                now, then = pull(y, client, turn, step), pull(last, client, turn, step)
                d = plus((1, now), (1 - beta, g), (-(1 - beta), then))
                if name.startswith("scaffold"):
                    d = plus((1, d), (beta, control), (-beta, controls[client]))
                y, raw = plus((1, y), (-eta, d)), plus((1, raw), (1, now))
            directions.append(plus((1 / eta / LOCAL, x), (-1 / eta / LOCAL, y)))
            changes = plus((1, changes), (1 / LOCAL, raw), (-1, controls[client]))
            controls[client] = plus((1 / LOCAL, raw))
        last, g = x, plus(*((1 / len(present), d) for d in directions))
        control = plus((1, control), (1 / CLIENTS, changes))
        x = plus((1, x), (-gamma, g))
        wanted.append(x)
    make = getattr(o, name)
    got = rounds_of(make(eta, gamma, beta, num_local_steps=LOCAL, variance_reduced=True))
    assert_close(got, wanted)


def test_fedspeed_as_the_paper_has_it():
    """The ascent is as long as the gradient, and the server adds the duals of those that came."""
    eta, prox, rho, alpha, decay, bound = 0.05, 0.2, 0.3, 0.8, 0.01, 1.5
    x, duals, wanted = START, [ZERO] * CLIENTS, []

    def size(tree):
        return np.sqrt(sum(np.sum(v**2) for v in tree.values()))

    for turn, present in enumerate(PRESENT):
        rate, ends = eta * 0.9**turn, []
        for client in present:
            y = x
            for step in range(LOCAL):
                first = pull(y, client, turn, step)
                second = pull(plus((1, y), (rho, first)), client, turn, step)
                q = plus((1 - alpha, first), (alpha, second), (prox, duals[client]), (-prox, x))
                q = plus((min(1, bound / (size(q) + 1e-6)), q))
                y = plus((1, y), (-rate, q), (-rate * (decay + prox), y))
            duals[client] = plus((1, duals[client]), (1, y), (-1, x))
            ends.append(plus((1, y), (1, duals[client])))
        x = plus(*((1 / len(present), end) for end in ends))
        wanted.append(x)
    got = rounds_of(
        o.fedspeed(
            eta, prox, rho, alpha, decay, bound, num_local_steps=LOCAL, round_decay=0.9,
            normalize=False, server_dual="active",
        )
    )  # fmt: skip
    assert_close(got, wanted)


def test_rounds_without_a_client_count_up_to_a_cutoff():
    """A client that stays away has an interval after two rounds; the weight is their mean."""
    there = np.array([[0, 1], [0, 1], [0, 1], [2, 0], [2, 1]])
    since, counted, weights = np.zeros(3), np.zeros(3), np.ones(3)
    x, wanted = START, []
    for turn, present in enumerate(there):
        moved = ZERO
        for client in present:
            y = x
            for step in range(LOCAL):
                y = plus((1, y), (-0.05, pull(y, client, turn, step)))
            moved = plus((1, moved), (weights[client], y), (-weights[client], x))
        x = plus((1, x), (0.8 / 3, moved))
        wanted.append(x)
        since += 1
        ends = np.isin(np.arange(3), present) | (since == 2)
        means = (counted * weights + since) / (counted + 1)
        weights = np.where(ends, np.where(counted == 0, since, means), weights)
        counted, since = counted + ends, np.where(ends, 0, since)
    assert weights[2] > 1
    got = rounds_of(o.fed_au(0.05, 0.8, cutoff=2, num_local_steps=LOCAL), there)
    assert_close(got, wanted)
