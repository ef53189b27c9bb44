"""Federated methods are pairs of a client and a server, which `simulate` brings together.

method = fedavg_momentum(0.05, 0.2, num_local_steps=4)
run = federated.simulate(method, params, client_grad, participants, num_clients=1000)
"""

from .optimizers.federated.averaging import averaging
from .optimizers.federated.pair import Client, Federated, Server
from .optimizers.federated.simulate import Run, simulate

__all__ = ["Client", "Federated", "Run", "Server", "averaging", "simulate"]
