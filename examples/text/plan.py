"""What a run of several workers is to be; known before JAX is imported."""

from dataclasses import dataclass

METHODS = ("adamw", "diloco", "demo", "power_sgd")


@dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers of a run; `--resume` reads it back from the folder."""

    methods: tuple[str, ...] = METHODS
    steps: int = 400
    local_steps: int = 20
    batch_size: int = 8
    context: int = 64
    width: int = 64
    layers: int = 2
    heads: int = 4
    seed: int = 0
    eval_every: int = 50
    checkpoint_every: int = 50
