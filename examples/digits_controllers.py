"""The CNN of `digits_linen.py`, whose rate or batch size a controller sets while it trains.

    python examples/digits_controllers.py --controller auto_lrs
    python examples/digits_controllers.py --controller adadagrad --json decisions.json
    python examples/digits_controllers.py --controller lanczos_lr_momentum

The optimizer takes its rate and momentum as injected hyper-parameters, so that a new one compiles
nothing; a new batch size does, once per size. Decisions are shown as they fall.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits_linen import CNN, Batch, accuracy, digits
from gradchain.optimizers import (
    AdaptiveBatchSize,
    AutoLRS,
    adagrad_norm,
    lanczos_lr_momentum,
    norm_test,
    sgd,
)
from gradchain.training import TrainState
from rich.console import Console
from rich.live import Live
from rich.table import Table

SHOWN = 8
CURVATURE_BATCH, CURVATURE_INTERVAL = 512, 50


def loss_of(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    logits = CNN().apply({"params": params}, images)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@jax.jit
def train_step(
    state: TrainState, images: jax.Array, labels: jax.Array, hyperparams: dict[str, jax.Array]
) -> tuple[TrainState, jax.Array]:
    """One step with these hyper-parameters; returns the new state and the loss before it."""
    value, grads = jax.value_and_grad(loss_of)(state.params, images, labels)
    now = {**state.opt_state.hyperparams, **hyperparams}
    state = state.replace(opt_state=state.opt_state._replace(hyperparams=now))
    return state.apply_gradients(grads=grads), value


class Loop:
    """The training state, the data, and what has been decided."""

    def __init__(self, optimizer: Any, data: tuple[Batch, Batch], steps: int, seed: int):
        self.train_part, self.test_part = data
        model = CNN()
        params = model.init(jax.random.key(seed), self.train_part[0][:1])["params"]
        state = TrainState.create(apply_fn=model.apply, params=params, tx=optimizer)
        # an array as after every step, so that the first one has the same program
        self.state = state.replace(step=jnp.zeros((), jnp.int32))
        self.random = np.random.default_rng(seed)
        self.steps, self.step = steps, 0
        self.losses: list[float] = []
        self.decisions: list[dict[str, Any]] = []
        self.live: Live | None = None

    def batch(self, size: int) -> Batch:
        chosen = self.random.choice(len(self.train_part[0]), size, replace=False)
        return self.train_part[0][chosen], self.train_part[1][chosen]

    def train(self, batch: Batch, **hyperparams: float) -> float:
        given = {name: jnp.asarray(value) for name, value in hyperparams.items()}
        self.state, loss = train_step(self.state, *batch, given)
        self.step += 1
        self.losses.append(float(loss))
        return self.losses[-1]

    def decided(self, **decision: Any) -> None:
        """Keeps a decision, and shows it with the latest others."""
        self.decisions.append({"step": self.step, **decision})
        if self.live is not None:
            table = Table(*self.decisions[-1], box=None, title=f"step {self.step}/{self.steps}")
            for row in self.decisions[-SHOWN:]:
                table.add_row(
                    *(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row.values())
                )
            self.live.update(table)


def by_auto_lrs(loop: Loop) -> None:
    """The rate of SGD with momentum, searched for in stages."""
    controller = AutoLRS(
        1e-3, 1.0, explore_steps=16, exploit_steps=100, num_candidates=5, max_exploit_steps=400
    )
    decision, kept = controller.step(), loop.state
    while loop.step < loop.steps:
        loss = None
        if decision.action in ("save", "restore"):
            loop.decided(**decision._asdict())
        if decision.action == "save":
            kept = loop.state
        elif decision.action == "restore":
            loop.state = kept
        elif decision.action == "evaluate":
            loss = float(loss_of(loop.state.params, *loop.test_part))
        else:
            loss = loop.train(loop.batch(64), learning_rate=decision.learning_rate)
        decision = controller.step(loss)


@partial(jax.jit, static_argnames="test")
def tested(params: Any, images: jax.Array, labels: jax.Array, test: Callable[[Any], Any]) -> Any:
    """What a test says of the gradients of single examples."""
    one = jax.grad(lambda p, x, y: loss_of(p, x[None], y[None]))
    return test(jax.vmap(one, in_axes=(None, 0, 0))(params, images, labels))


def by_adadagrad(loop: Loop) -> None:
    """The batch size under AdaGrad-Norm."""
    controller = AdaptiveBatchSize(
        partial(norm_test, eta=1.0),
        max_batch_size=512,
        test_interval=10,
        init_batch_size=16,
        multiple_of=16,
        powers_of_two=True,
    )
    while loop.step < loop.steps:
        batch, size = loop.batch(controller.batch_size), controller.batch_size
        found = tested(loop.state.params, *batch, controller.test) if controller.due else None
        loop.train(batch)
        decision = controller.step(found)
        if decision.batch_size != size:
            loop.decided(batch_size=decision.batch_size)


def by_lanczos(loop: Loop) -> None:
    """Rate and momentum of heavy-ball SGD, from the curvature of a large batch now and then."""
    estimate = lanczos_lr_momentum(lr_scale=0.1, max_momentum=0.9)

    @jax.jit
    def pair_at(params: Any, images: jax.Array, labels: jax.Array) -> Any:
        return estimate(params, lambda p: loss_of(p, images, labels))

    while loop.step < loop.steps:
        if loop.step % CURVATURE_INTERVAL == 0:
            pair = pair_at(loop.state.params, *loop.batch(CURVATURE_BATCH))
            chosen = {
                "learning_rate": float(pair.learning_rate),
                "momentum": float(pair.momentum),
            }
            loop.decided(**chosen)
        loop.train(loop.batch(64), **chosen)


CONTROLLERS: dict[str, tuple[Callable[[Loop], None], Callable[[], Any]]] = {
    "auto_lrs": (by_auto_lrs, lambda: gradchain.inject_hyperparams(sgd)(0.1, momentum=0.9)),
    "adadagrad": (by_adadagrad, lambda: gradchain.inject_hyperparams(adagrad_norm)(1.0)),
    "lanczos_lr_momentum": (
        by_lanczos,
        lambda: gradchain.inject_hyperparams(sgd)(0.1, momentum=0.9),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--controller", choices=CONTROLLERS, default="auto_lrs")
    parser.add_argument("--steps", type=int, default=900, help="all training steps (default 900)")
    parser.add_argument("--seed", type=int, default=0, help="of split, weights, batches")
    parser.add_argument("--json", type=Path, metavar="FILE", help="decisions and losses go here")
    options = parser.parse_args(arguments)
    console = Console()
    control, optimizer = CONTROLLERS[options.controller]
    loop = Loop(optimizer(), digits(options.seed), options.steps, options.seed)
    with Live(console=console, transient=True) as live:
        loop.live = live if console.is_terminal else None
        control(loop)
    reached = float(accuracy(loop.state, *loop.test_part))
    console.print(
        f"{options.controller}: {len(loop.decisions)} decisions in {loop.step} steps, "
        f"test accuracy {reached:.2%}"
    )
    if options.json is not None:
        found = {
            "controller": options.controller,
            "decisions": loop.decisions,
            "losses": loop.losses,
            "test_accuracy": reached,
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")
        console.print(str(options.json), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
