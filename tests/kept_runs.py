"""A run of methods that are fed otherwise than by the text example, or keep params of their own.

    python tests/kept_runs.py --out FOLDER [--steps 60] teng k_fac f2sa
    python tests/kept_runs.py --out FOLDER --resume

It saves every third step, as the text example does, so that it can be killed at any moment:
`python tests/killed.py 20 --script tests/kept_runs.py teng k_fac f2sa`.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compilation

if __name__ == "__main__":
    compilation.set_environment()  # before JAX is imported
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import continuity
import jax
import jax.numpy as jnp
import optax
from gradchain import optimizers
from text.checkpoint import Checkpoints

Run = tuple[Any, Callable[[Any], Any]]
"""What is kept at first, and a compiled step of it."""

POINTS = jnp.linspace(0.0, 6.0, 16)


def series(params: Any, x: Any) -> Any:
    """Three waves of amplitudes and lengths that are learned."""
    return params["a"] @ jnp.sin(params["k"] * x)


def heat(u: Any, x: Any) -> Any:
    """The heat equation."""
    return 0.1 * jax.grad(jax.grad(u))(x)


def upper_loss(x: Any, y: Any) -> Any:
    """How far y is from where it should come to lie."""
    return jnp.sum((y - 1.0) ** 2) / 2 + 0.1 * jnp.sum(x**2)


def lower_loss(x: Any, y: Any) -> Any:
    """What y follows."""
    return jnp.sum((y - jnp.sin(x)) ** 2) / 2 + 0.05 * jnp.sum(y**4)


def of_time() -> Run:
    """A solution that goes forward in time."""
    stepper = optimizers.teng(series, heat, 0.01, inner_iters=3)
    first = {"a": jnp.array([1.0, -0.5, 0.3]), "k": jnp.array([1.0, 2.0, 3.0])}
    return stepper.init(first), jax.jit(lambda state: stepper.step(state, POINTS))


def of_two_levels(stepper: Any, *losses: Any) -> Run:
    """A stepper of bilevel losses."""
    state = stepper.init(jnp.array([0.3, -0.2]), jnp.array([0.1, 0.4]), *losses)
    return state, jax.jit(lambda state: stepper.step(state, upper_loss, lower_loss))


STEPPERS: dict[str, Callable[[], Run]] = {
    "teng": of_time,
    "f2sa": lambda: of_two_levels(optimizers.f2sa(0.05, 0.1)),
    "stn": lambda: of_two_levels(optimizers.stn(optax.adam(0.03), optax.sgd(0.1))),
    "bo_rep": lambda: of_two_levels(optimizers.bo_rep(0.05), upper_loss, lower_loss),
}


def begun(name: str) -> Run:
    """A stepper, or a transformation with whatever it is to be given."""
    if name in STEPPERS:
        return STEPPERS[name]()
    step = continuity.compiled_step(name)
    return continuity.start(name), lambda kept: step(*kept)


def summary(kept: Any) -> dict[str, Any]:
    """Of one run: the bits of what it has come to."""
    leaves = jax.device_get(jax.tree.leaves(kept))
    bits = b"".join(leaf.tobytes() for leaf in leaves)
    return {"train": [hashlib.sha256(bits).hexdigest()], "numbers": sum(x.size for x in leaves)}


def main(folder: Path, resume: bool, steps: int, every: int, names: list[str]) -> None:
    """Runs from the newest checkpoint to the end."""
    settings = folder / "settings.json"
    if resume:
        steps, every, names = json.loads(settings.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "settings.part"
    draft.write_text(json.dumps([steps, every, names]))
    draft.replace(settings)
    runs = {name: begun(name) for name in names}
    kept = {name: run[0] for name, run in runs.items()}
    first = 0
    with Checkpoints(folder / "checkpoints") as checkpoints:
        found = checkpoints.restore(kept)
        if found is not None:
            first, kept, _ = found
        for step in range(first + 1, steps + 1):
            kept = {name: run[1](kept[name]) for name, run in runs.items()}
            if step % every == 0:
                checkpoints.save(step, kept, {})
    rows = {name: summary(kept[name]) for name in names}
    (folder / "results.json").write_text(json.dumps({"optimizers": rows}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--checkpoint-every", type=int, default=3)
    given = parser.parse_args()
    main(given.out, given.resume, given.steps, given.checkpoint_every, given.names)
