"""Arguments of private methods that recorded runs leave at rest, transcribed in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from at_rest import DECAY, RATE, START, STEPS, draw, walk
from gradchain import optimizers as o
from trajectories import assert_close

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(("ahead", "size"), [(0.0, None), (0.7, 7)])
def test_private_sgd_with_noise_and_plain_momentum(ahead, size):
    batch = [draw(20 + t, (5,)) for t in range(STEPS)]
    noise = [draw(40 + t) for t in range(STEPS)]
    table = jax.tree.map(lambda *x: jnp.stack(x), *noise)
    opt = o.dp_sgd(
        RATE,
        l2_norm_clip=1.5,
        noise_multiplier=0.8,
        momentum=0.7,
        nesterov=bool(ahead),
        batch_size=size,
        weight_decay=DECAY,
        noise_fn=lambda key, count, params: jax.tree.map(lambda x: x[count], table),
    )
    x, m, wanted = START, dict.fromkeys(START, 0.0), []
    for g, xi in zip(batch, noise, strict=True):
        sizes = np.sqrt(sum(np.sum(v**2, axis=tuple(range(1, v.ndim))) for v in g.values()))
        factors = np.minimum(1, 1.5 / sizes)
        d = {
            k: (np.tensordot(factors, g[k], 1) + 0.8 * 1.5 * xi[k]) / (size or 5) + DECAY * x[k]
            for k in x
        }
        m = {k: 0.7 * m[k] + d[k] for k in x}
        x = {k: x[k] - RATE * (d[k] + ahead * m[k] if ahead else m[k]) for k in x}
        wanted.append(x)
    assert_close(walk(opt, grads=batch), wanted)
