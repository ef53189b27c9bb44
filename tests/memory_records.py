"""What the records of methods with little memory need beyond their data."""

import jax.numpy as jnp
import numpy as np


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
