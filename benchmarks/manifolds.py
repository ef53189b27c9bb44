"""How far points are off their manifolds after 100,000 noisy steps in float32.

python benchmarks/manifolds.py
"""

import sys
import time

import jax
import jax.numpy as jnp
import optax
from gradchain import optimizers
from gradchain.transforms.manifolds import poincare_ball, sphere, stiefel

STEPS = 100_000
PLACES = {
    "sphere": (sphere(), (4, 3)),
    "sphere, exact": (sphere(exact=True), (4, 3)),
    "stiefel, canonical": (stiefel(), (6, 3)),
    "stiefel, euclidean": (stiefel("euclidean"), (6, 3)),
    "ball": (poincare_ball(), (4, 3)),
    "ball, exact": (poincare_ball(exact=True), (4, 3)),
}


def main() -> int:
    """Prints the distances; random gradients at a rate at which every step matters."""
    places = {name: place for name, (place, _) in PLACES.items()}
    keys = iter(jax.random.split(jax.random.key(0), len(PLACES) + 1))
    points = {name: place.random(next(keys), shape) for name, (place, shape) in PLACES.items()}
    opt = optimizers.riemannian_adam(0.03, places)

    def step(carry, key):
        x, state = carry
        draws = iter(jax.random.split(key, len(x)))
        g = jax.tree.map(lambda p: jax.random.normal(next(draws), p.shape), x)
        updates, state = opt.update(g, state, x)
        return (optax.apply_updates(x, updates), state), None

    run = jax.jit(lambda c, keys: jax.lax.scan(step, c, keys)[0])
    start = time.perf_counter()
    last, _ = run((points, opt.init(points)), jax.random.split(next(keys), STEPS))
    for name, place in places.items():
        if "ball" in name:
            print(f"{name:20} largest norm {float(jnp.linalg.norm(last[name], axis=-1).max()):.6f}")
        else:
            print(f"{name:20} off by {float(place.distance(last[name])):.2e}")
    print(f"{STEPS} steps, {time.perf_counter() - start:.0f} s, float32")
    return 0


if __name__ == "__main__":
    sys.exit(main())
