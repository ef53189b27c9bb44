"""Matrix methods as several packages have them, each ready to be stepped.

Used by `matrix_peers.py`, which also starts this file as a process of another environment for a
peer that does not fit into its own: nothing here is imported before it is needed but JAX, NumPy
and optax, of any version.
"""

import importlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

PERIOD = 10
RATE = 1e-3
OURS = "gradchain"
WIDTHS = (256, 256, 256, 256, 64)
"""Of the dense layers that K-FAC has."""
BATCH = 128


Shapes = dict[str, tuple[int, ...]]

OPTIONS: dict[str, Any] = {}
"""Of the compiler, for those that are compiled here; those that it does not know are left out."""


def same(count: int, *shape: int) -> Shapes:
    return {str(i): shape for i in range(count)}


def size_of(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def blocks(layers: int, width: int) -> Shapes:
    """The matrices of a Transformer."""
    shapes = {"qkv": (width, 3 * width), "out": (width, width)}
    shapes |= {"up": (width, 4 * width), "down": (4 * width, width)}
    return {f"{i}/{name}": shape for i in range(layers) for name, shape in shapes.items()}


TREES: dict[str, Callable[[], Shapes]] = {
    "100 x 64x64": lambda: same(100, 64, 64),
    "24 x 256x256": lambda: same(24, 256, 256),
    "4 blocks of width 128": lambda: blocks(4, 128),
    "small": lambda: same(3, 8, 8),
}


@dataclass
class Running:
    """Something that is stepped.

    Attributes:
      step: takes one step, and waits until it is done.
      compile: processor seconds until it can be stepped; None where nothing is compiled.
      state: bytes.
      temporary: bytes beyond params, gradients and state; None where nobody says.
    """

    step: Callable[[], None]
    compile: float | None
    state: int
    temporary: int | None = None

    def period(self) -> list[float]:
        """Processor seconds of each step of a period."""
        times = []
        for _ in range(PERIOD):
            began = time.process_time()
            self.step()
            times.append(time.process_time() - began)
        return times


@dataclass(frozen=True)
class Contender:
    """A method as one package has it.

    Attributes:
      name: what it is called there, with the settings that matter.
      package: the module that is imported.
      start: `(module, shapes) -> Running`.
      periodic: whether it has roots or bases that stay for a period.
    """

    name: str
    package: str
    start: Callable[[Any, Shapes], Running]
    periodic: bool = True


def arrays(shapes: Shapes, seed: int) -> dict[str, np.ndarray]:
    """Standard normals, the same for JAX and torch."""
    rng = np.random.default_rng(seed)
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


def compiled(lowered: Any) -> Any:
    """As advised, if this compiler takes the advice."""
    try:
        return lowered.compile(compiler_options=OPTIONS)
    except Exception:
        return lowered.compile()


def in_jax(build: Callable[[Any], Any]) -> Callable[[Any, Shapes], Running]:
    """A transformation, jitted with its update applied, params and state donated."""

    def start(module: Any, shapes: Shapes) -> Running:
        opt = build(module)
        params, grads = (jax.tree.map(jnp.asarray, arrays(shapes, seed)) for seed in (0, 1))
        began = time.process_time()
        state = jax.block_until_ready(jax.jit(opt.init)(params))
        before = jax.tree.map(jnp.array, state)

        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = opt.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        program = compiled(jax.jit(step, donate_argnums=(0, 1)).lower(params, before, grads))
        spent = time.process_time() - began
        held = [params, before]

        def run() -> None:
            held[:] = jax.block_until_ready(program(*held, grads))

        temporary = program.memory_analysis().temp_size_in_bytes
        return Running(run, spent, size_of(before), temporary)

    return start


def in_torch(build: Callable[[Any, list[Any]], Any]) -> Callable[[Any, Shapes], Running]:
    """An optimizer of torch, of one thread and eager, as these are used on a CPU."""

    def start(module: Any, shapes: Shapes) -> Running:
        import torch

        torch.set_num_threads(1)
        params = [torch.nn.Parameter(torch.tensor(x)) for x in arrays(shapes, 0).values()]
        for param, grad in zip(params, arrays(shapes, 1).values(), strict=True):
            param.grad = torch.tensor(grad)
        opt = build(module, params)

        def step() -> None:
            opt.step()

        step()
        return Running(step, None, torch_bytes(opt.state, {id(param) for param in params}))

    return start


def torch_bytes(held: Any, seen: set[int]) -> int:
    """Of all tensors in a state of dicts, lists and objects, each once."""
    import torch

    if id(held) in seen:
        return 0
    seen.add(id(held))
    if isinstance(held, torch.Tensor):
        storage = held.untyped_storage()
        if storage.data_ptr() in seen:
            return 0
        seen.add(storage.data_ptr())
        return storage.nbytes()
    if isinstance(held, dict):
        return sum(torch_bytes(value, seen) for value in held.values())
    if isinstance(held, list | tuple):
        return sum(torch_bytes(value, seen) for value in held)
    return torch_bytes(vars(held), seen) if hasattr(held, "__dict__") else 0


def layer_params(shapes: Iterable[int]) -> dict[str, Any]:
    """Of dense layers between these widths."""
    rng, widths = np.random.default_rng(0), list(shapes)
    return {
        f"dense_{i}": {
            "kernel": jnp.asarray(rng.normal(size=pair) / np.sqrt(pair[0]), jnp.float32),
            "bias": jnp.zeros(pair[1]),
        }
        for i, pair in enumerate(itertools.pairwise(widths))
    }


def batch() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(BATCH, WIDTHS[0])).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(rng.integers(0, WIDTHS[-1], size=BATCH))


def dense_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def our_k_fac(module: Any, shapes: Shapes) -> Running:
    """A whole training step of a linen model: its forward and backward pass count too."""
    from flax import linen as nn
    from gradchain.layers import linen_layer_gradients

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for i, width in enumerate(WIDTHS[1:]):
                x = nn.Dense(width, name=f"dense_{i}")(nn.tanh(x) if i else x)
            return x

    opt = module.optimizers.k_fac(RATE, damping=1e-2, update_interval=1, inverse_interval=PERIOD)
    (x, y), params = batch(), layer_params(WIDTHS)
    began = time.process_time()
    state = jax.block_until_ready(jax.jit(opt.init)(params))

    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        found = linen_layer_gradients(
            lambda p: dense_loss(Model().apply({"params": p}, x), y), params
        )
        updates, state = opt.update(found.grads, state, params, **found.extra)
        return optax.apply_updates(params, updates), state

    program = compiled(jax.jit(step, donate_argnums=(0, 1)).lower(params, state, x, y))
    spent = time.process_time() - began
    held = [params, state]

    def run() -> None:
        held[:] = jax.block_until_ready(program(*held, x, y))

    return Running(run, spent, size_of(state), program.memory_analysis().temp_size_in_bytes)


def their_k_fac(module: Any, shapes: Shapes) -> Running:
    """kfac-jax with constant rate, momentum and damping, of the empirical Fisher as ours."""

    def loss(params: Any, data: Any) -> Any:
        x, y = data
        for i in range(len(params)):
            layer = params[f"dense_{i}"]
            x = (jnp.tanh(x) if i else x) @ layer["kernel"] + layer["bias"]
        module.register_softmax_cross_entropy_loss(x, y)
        return dense_loss(x, y)

    opt = module.Optimizer(
        jax.value_and_grad(loss), l2_reg=0.0, use_adaptive_learning_rate=False,
        use_adaptive_momentum=False, use_adaptive_damping=False,
        estimation_mode="fisher_empirical", num_burnin_steps=0, curvature_update_period=1,
        inverse_update_period=PERIOD, multi_device=False,
    )  # fmt: skip
    data, rng = batch(), jax.random.key(0)
    began = time.process_time()
    params = layer_params(WIDTHS)
    state = opt.init(params, rng, data)
    held = [params, state]

    def run() -> None:
        held[:] = opt.step(*held, rng, batch=data, momentum=0.9, learning_rate=RATE, damping=1e-2)[
            :2
        ]
        jax.block_until_ready(held)

    run()
    spent = time.process_time() - began
    return Running(run, spent, size_of(held[1]))


def ours(name: str, shown: str = "", periodic: bool = True, **arguments: Any) -> Contender:
    return Contender(
        f"{name}{shown}",
        OURS,
        in_jax(lambda module: getattr(module.optimizers, name)(RATE, **arguments)),
        periodic,
    )


def _google(eigh: bool) -> Callable[[Any], Any]:
    return lambda module: module.distributed_shampoo(
        RATE, block_size=1024, start_preconditioning_step=1, preconditioning_compute_steps=PERIOD,
        graft_type=module.GraftingType.RMSPROP, eigh=eigh, generate_training_metrics=False,
    )  # fmt: skip


def _meta(module: Any, params: list[Any]) -> Any:
    return module.DistributedShampoo(
        params, lr=RATE, betas=(0.9, 0.999), epsilon=1e-8, precondition_frequency=PERIOD,
        grafting_config=module.AdamPreconditionerConfig(beta2=0.999, epsilon=1e-8),
        distributed_config=module.SingleDeviceDistributedConfig(target_parameter_dimensionality=2),
    )  # fmt: skip


def _meta_soap(module: Any, params: list[Any]) -> Any:
    return module.DistributedShampoo(
        params, lr=RATE, betas=(0.95, 0.95), epsilon=1e-8, precondition_frequency=PERIOD,
        preconditioner_config=module.DefaultSOAPConfig,
        distributed_config=module.SingleDeviceDistributedConfig(target_parameter_dimensionality=2),
    )  # fmt: skip


def _scalable(module: Any, params: list[Any]) -> Any:
    return module.ScalableShampoo(
        params, lr=RATE, block_size=1024, start_preconditioning_step=1,
        preconditioning_compute_steps=PERIOD,
    )  # fmt: skip


def _kron(module: Any) -> Any:
    return module.kron(RATE, preconditioner_update_probability=1.0)


_DISTRIBUTED = {
    "target_ndim": 2, "eps": 1e-8, "b2": 0.999, "grafting": "adam", "update_interval": PERIOD,
}  # fmt: skip

FAMILIES: dict[str, tuple[Contender, ...]] = {
    "shampoo": (
        ours("shampoo", update_interval=PERIOD),
        Contender(
            "Shampoo",
            "pytorch_optimizer",
            in_torch(lambda m, p: m.Shampoo(p, lr=RATE, preconditioning_compute_steps=PERIOD)),
        ),
    ),
    "distributed_shampoo": (
        ours("distributed_shampoo", **_DISTRIBUTED),
        ours("distributed_shampoo", ", newton", root_solver="newton", **_DISTRIBUTED),
        Contender("Shampoo, eigh", "precondition.distributed_shampoo", in_jax(_google(eigh=True))),
        Contender(
            "Shampoo, newton", "precondition.distributed_shampoo", in_jax(_google(eigh=False))
        ),
        Contender("DistributedShampoo", "distributed_shampoo", in_torch(_meta)),
        Contender("ScalableShampoo", "pytorch_optimizer", in_torch(_scalable)),
    ),
    "soap": (
        ours("soap", update_interval=PERIOD),
        Contender("DistributedShampoo, SOAP", "distributed_shampoo", in_torch(_meta_soap)),
        Contender(
            "SOAP",
            "pytorch_optimizer",
            in_torch(lambda m, p: m.SOAP(p, lr=RATE, precondition_frequency=PERIOD)),
        ),
    ),
    "psgd_kron": (
        ours("psgd_kron", periodic=False, mode="whiten", momentum=0.9),
        Contender("kron", "psgd_jax.kron", in_jax(_kron), False),
        Contender("kron", "distributed_kron", in_jax(_kron), False),
        Contender(
            "Kron",
            "pytorch_optimizer",
            in_torch(lambda m, p: m.Kron(p, lr=RATE, pre_conditioner_update_probability=1.0)),
            False,
        ),
    ),
    "muon": (
        ours("muon", periodic=False),
        Contender("contrib.muon", "optax", in_jax(lambda m: m.contrib.muon(RATE)), False),
        Contender(
            "Muon",
            "torch",
            in_torch(lambda m, p: m.optim.Muon(p, lr=RATE, weight_decay=0.0)),
            False,
        ),
        Contender(
            "Muon",
            "pytorch_optimizer",
            in_torch(lambda m, p: m.Muon([{"params": p, "use_muon": True}], lr=RATE)),
            False,
        ),
    ),
    "mars_shampoo": (
        ours("mars_shampoo", periodic=False),
        Contender(
            "MARS, shampoo",
            "pytorch_optimizer",
            in_torch(lambda m, p: m.MARS(p, lr=RATE, mars_type="shampoo")),
            False,
        ),
    ),
    "k_fac": (
        Contender("k_fac", OURS, our_k_fac),
        Contender("K-FAC", "kfac_jax", their_k_fac),
    ),
}
"""The first of each is ours, which the others are compared with."""

DISTRIBUTIONS = {
    "precondition.distributed_shampoo": "precondition-opt",
    "distributed_shampoo": "torch-shampoo",
    "kfac_jax": "kfac-jax",
    "psgd_jax.kron": "psgd-jax",
    "distributed_kron": "distributed-kron",
}
"""What is installed, where it is not called like the module."""


def version_of(package: str) -> str:
    try:
        return metadata.version(DISTRIBUTIONS.get(package, package))
    except metadata.PackageNotFoundError:
        return "?"


def start(family: str, number: int, tree: str) -> Running | str:
    """A contender, ready to be stepped, or the reason why it is not."""
    contender = FAMILIES[family][number]
    try:
        return contender.start(importlib.import_module(contender.package), TREES[tree]())
    except Exception as error:  # a peer that cannot run is reported
        if contender.package == OURS:
            raise
        reason = str(error).strip().partition("\n")[0]
        return f"{type(error).__name__}: {reason[:120]}"


def serve(family: str, number: int, tree: str) -> None:
    """For another process: what `start` finds, then a period for every line that is read."""
    found = start(family, number, tree)
    version = version_of(FAMILIES[family][number].package)
    figures = found if isinstance(found, str) else [found.compile, found.state, found.temporary]
    print(json.dumps([figures, version]), flush=True)
    for _ in sys.stdin:
        print(json.dumps(found.period()), flush=True)


if __name__ == "__main__":
    OPTIONS |= json.loads(sys.argv[4])
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
