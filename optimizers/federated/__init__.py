"""Clients that train on data of their own, and a server that makes one model of it, in rounds."""

from .anarchic_fedavg import anarchic_fedavg
from .async_federated import aggregation_weights, async_federated
from .fed_au import fed_au, participation_weights
from .fedavg_momentum import fedavg_momentum
from .fedhyper import fedhyper_client_local, fedhyper_global, fedhyper_server_local
from .fedspeed import fedspeed
from .fzoos import fzoos_client
from .queries import active_queries, nearest_queries
from .random_features import random_fourier_features
from .scaffold_momentum import scaffold_momentum
from .trajectory_surrogate import trajectory_gradient_surrogate

__all__ = [
    "active_queries",
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
    "nearest_queries",
    "participation_weights",
    "random_fourier_features",
    "scaffold_momentum",
    "trajectory_gradient_surrogate",
]
