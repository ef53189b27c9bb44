"""Clients that train on data of their own, and a server that makes one model of it, in rounds."""

from .anarchic_fedavg import anarchic_fedavg
from .async_federated import aggregation_weights, async_federated
from .fed_au import fed_au, participation_weights
from .fedavg_momentum import fedavg_momentum
from .fedhyper import fedhyper_client_local, fedhyper_global, fedhyper_server_local
from .fedspeed import fedspeed
from .fzoos import fzoos_client, trajectory_gradient_surrogate
from .scaffold_momentum import scaffold_momentum

__all__ = [
    "aggregation_weights",
    "anarchic_fedavg",
    "async_federated",
    "fed_au",
    "fedavg_momentum",
    "fedhyper_client_local",
    "fedhyper_global",
    "fedhyper_server_local",
    "fedspeed",
    "fzoos_client",
    "participation_weights",
    "scaffold_momentum",
    "trajectory_gradient_surrogate",
]
