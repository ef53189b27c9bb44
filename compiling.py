"""What to tell the compiler of a training step."""

from typing import Any

import jax

CPU = {
    # Without it, a buffer that is read after its new value is written is copied first.
    "xla_cpu_copy_insertion_use_region_analysis": True,
    # By default operations are ordered for many threads, whatever memory that takes.
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


def compiler_options(backend: str | None = None) -> dict[str, Any]:
    """Options of `jax.jit` under which the step of an optimizer copies little and holds little.

    On a CPU, XLA by default copies old values that are still read once the new ones are written,
    and orders a program for many threads, so that the temporary arrays of all leaves exist at once.
    These options let it update in place, and leaf by leaf. On other backends there is nothing to
    say.

    Only the outermost `jax.jit` takes options: that around the whole training step.

    Args:
      backend: "cpu", "gpu", "tpu"; default the one that JAX runs on.

    Returns:
      A new dict, for `compiler_options=` of `jax.jit` or of `compile`.

    Example:
      >>> import jax, jax.numpy as jnp, gradchain, optax
      >>> opt = gradchain.optimizers.lion(1e-3)
      >>> def step(params, state, grads):
      ...     updates, state = opt.update(grads, state, params)
      ...     return optax.apply_updates(params, updates), state
      >>> x = jax.ShapeDtypeStruct((512, 512), jnp.float32)
      >>> def temporary_bytes(options):
      ...     jitted = jax.jit(step, donate_argnums=(0, 1), compiler_options=options)
      ...     program = jitted.lower(x, jax.eval_shape(opt.init, x), x).compile()
      ...     return program.memory_analysis().temp_size_in_bytes
      >>> temporary_bytes(gradchain.compiler_options()) <= temporary_bytes({})
      True
      >>> gradchain.compiler_options("gpu")
      {}
    """
    return dict(CPU) if (backend or jax.default_backend()) == "cpu" else {}
