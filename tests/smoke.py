"""Every method takes a step and every helper answers: run at the lowest versions that we declare.

    python tests/smoke.py --floors     # prints the requirements, each at its floor
    python tests/smoke.py              # the check, in an environment with those installed

It needs the package, Optax and Flax alone. All methods are traced and lowered, which meets every
function of JAX that they call; one of each family is run.
"""

import sys
import tomllib
from pathlib import Path


def floors() -> list[str]:
    """The runtime dependencies and Flax, each at the lowest version that is allowed."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["flax"]]
    return [requirement.replace(">=", "==") for requirement in wanted]


def methods() -> int:
    """One step of every transformation of the catalogue."""
    import jax
    from gradchain.catalogue import METHODS
    from samples import sample
    from subjects import NAMES, finite, small_tree, step_of

    params, families = small_tree(), set()
    for name in NAMES:
        opt = sample(name)
        state = opt.init(params)
        lowered = jax.jit(step_of(opt)).lower(params, state)
        if METHODS[name].family not in families:
            families.add(METHODS[name].family)
            assert finite(lowered.compile()(params, state)), name
    return len(NAMES)


def others() -> int:
    """What is no transformation of one gradient, and all schedules, are built."""
    from gradchain.catalogue import METHODS, SCHEDULES
    from subjects import NAMES

    rest = [entry for name, entry in METHODS.items() if name not in NAMES]
    schedules = [entry.build(1.0, 10) for entry in SCHEDULES.values() if entry.build]
    return len([entry.build() for entry in rest]) + len([schedule(0) for schedule in schedules])


def helpers() -> None:
    """What looks at flows, what Flax models are given, and the layers of a model."""
    import gradchain
    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen, nnx
    from gradchain import layers, training

    opt = gradchain.optimizers.adam(1e-2)
    assert str(gradchain.describe(opt, jax.eval_shape(lambda: {"w": jnp.ones(2)})))
    assert str(gradchain.draw(opt))
    x, y = jnp.ones((2, 3)), jnp.ones((2, 4))

    def loss(outputs):
        return jnp.mean((outputs - y) ** 2)

    model = linen.Dense(4)
    params = model.init(jax.random.key(0), x)["params"]
    found = layers.linen_layer_gradients(lambda p: loss(model.apply({"params": p}, x)), params)
    state = training.TrainState.create(apply_fn=model.apply, params=params, tx=opt)
    assert jnp.isfinite(optax.global_norm(state.apply_gradients(grads=found.grads).params))

    module = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    value_fn = training.nnx_value_fn(module, lambda m: loss(m(x)))
    assert jnp.isfinite(value_fn(nnx.state(module, nnx.Param)))
    assert layers.nnx_layer_gradients(module, lambda m: loss(m(x))).extra


if __name__ == "__main__":
    if "--floors" in sys.argv:
        print(*floors())
    else:
        helpers()
        print(methods(), "transformations,", others(), "other methods and schedules")
