"""What the records of methods with little memory need beyond their data."""

import jax.numpy as jnp
import numpy as np
from gradchain.transforms.subspaces import LowRank


def slices(record):
    """The recorded slices as a sampler; each choice holds for an update interval."""
    choices = sorted(
        (int(group.split("/")[-1]), drawn)
        for group, drawn in record.constants.items()
        if group.startswith("draws/indices/")
    )
    names = choices[0][1]
    table = {name: jnp.asarray(np.stack([drawn[name] for _, drawn in choices])) for name in names}
    interval = record.kwargs["update_interval"]

    def sampler(key, count, params):
        nothing = jnp.zeros(0, jnp.int32)
        drawn = {name: rows[count // interval] for name, rows in table.items()}
        return {name: drawn.get(name, nothing) for name in params}

    return sampler


def directions(record):
    """The recorded random directions as a sampler; each draw holds for an update interval."""
    drawn = {name: jnp.asarray(x) for name, x in record.constants.get("draws/v0", {}).items()}
    interval = record.kwargs["update_interval"]
    nothing = jnp.zeros(0)

    def sampler(key, count, params):
        return {
            name: drawn[name][count // interval] if name in drawn else nothing for name in params
        }

    return sampler


def factors(record):
    """The params of the start with a matrix in factors, and room for its rank to grow."""
    given = record.series["factors"]
    held = LowRank(*(jnp.asarray(given[name][0]) for name in "USV"))
    return {"w": held.padded(record.kwargs["max_rank"])}


def dense(params):
    """The matrices themselves in the place of factors."""
    return {name: x.matrix() if isinstance(x, LowRank) else x for name, x in params.items()}
