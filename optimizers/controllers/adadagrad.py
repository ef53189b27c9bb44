"""AdAdaGrad: the batch grows as the gradients of single examples begin to disagree."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from ...registry import method
from ...transforms import FlowError, Size, checked
from .batch_tests import BatchTest, norm_test
from .kept import Kept


class BatchSize(NamedTuple):
    """What the loop is to do next.

    Attributes:
      batch_size: examples of the next step.
      tested: whether the last step was tested.
    """

    batch_size: int
    tested: bool


@method(
    "Lau, Liu & Kolar 2024, AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods",
    arxiv="2402.11215",
    kind="controller",
    tags=("loop",),
    required={"test": lambda grads: norm_test(grads, eta=0.1), "max_batch_size": 512},
    name="adadagrad",
)
class AdaptiveBatchSize(Kept):
    """The batch size that a test of per-example gradients asks for, never a smaller one.

        b_{t+1} = min(max(b_t, what the test asks for, rounded up), max_batch_size)

    Args:
      test: per-example gradients -> `BatchTest`, such as `partial(norm_test, eta=0.1)`. The paper's
        pairs are `norm_test` with `adagrad_norm`, and `coordinate_norm_test` with `adagrad`.
      max_batch_size: the largest batch.
      test_interval: steps from one test to the next; the first step is tested.
      init_batch_size: examples of the first step, at least two.
      multiple_of: batches are rounded up to multiples of it, such as the number of devices times
        that of accumulated micro-batches; but for the last one, cut off at `max_batch_size`.
      powers_of_two: batches are rounded up to `multiple_of` times a power of two, so that a step is
        compiled for few sizes.

    Raises:
      ValueError: for an argument out of range.

    Example:
      >>> from functools import partial
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import AdaptiveBatchSize, norm_test
      >>> controller = AdaptiveBatchSize(partial(norm_test, eta=0.2), 64, multiple_of=2)
      >>> grads = {"w": jnp.array([[1.0], [2.0], [3.0], [4.0]])}
      >>> controller.batch_size, controller.step(grads), controller.step(0 * grads["w"]).batch_size
      (2, BatchSize(batch_size=8, tested=True), 8)

    References:
      Lau, Liu & Kolar 2024 (arXiv 2402.11215), and the authors' code, timlautk/AdAdaGrad.
    """

    @checked()
    def __init__(
        self,
        test: Callable[[Any], BatchTest],
        max_batch_size: Size,
        test_interval: Size = 1,
        *,
        init_batch_size: Size = 2,
        multiple_of: Size = 1,
        powers_of_two: bool = False,
    ) -> None:
        if not 2 <= init_batch_size <= max_batch_size:
            raise FlowError(
                f"AdaptiveBatchSize: init_batch_size={init_batch_size!r} must be an integer in "
                f"[2, max_batch_size={max_batch_size!r}]"
            )
        self.test = test
        self.settings = {
            "max_batch_size": max_batch_size,
            "test_interval": test_interval,
            "init_batch_size": init_batch_size,
            "multiple_of": multiple_of,
            "powers_of_two": powers_of_two,
        }
        self.state: dict[str, Any] = {"batch_size": init_batch_size, "count": 0}

    @property
    def batch_size(self) -> int:
        """Examples of the next step."""
        return int(self.state["batch_size"])

    @property
    def due(self) -> bool:
        """Whether the next step is tested, so that its per-example gradients are needed."""
        return bool(self.state["count"] % self.settings["test_interval"] == 0)

    def step(self, per_example_grads: optax.Params | None = None) -> BatchSize:
        """To be called after each step.

        Args:
          per_example_grads: those of the step, or what the test said of them (a `BatchTest`, which
            may come out of the compiled step); anything where no test is `due`.

        Returns:
          The batch size from the next step on.

        Raises:
          ValueError: where a test is due and there is nothing to test.
        """
        tested = self.due
        if tested and per_example_grads is None:
            raise FlowError("AdaptiveBatchSize: step needs per_example_grads: a test is due")
        self.state["count"] += 1
        if tested:
            found = per_example_grads
            if not isinstance(found, BatchTest):
                found = self.test(found)
            self.state["batch_size"] = self._grown(float(found.next_batch_size))
        return BatchSize(self.batch_size, tested)

    def _grown(self, wanted: float) -> int:
        now, largest = self.batch_size, int(self.settings["max_batch_size"])
        if not wanted > now:  # NaN says nothing
            return now
        unit = int(self.settings["multiple_of"])
        # the cap comes first: what is infinite has no integer
        units = math.ceil(min(wanted, largest) / unit)
        if self.settings["powers_of_two"]:
            units = 1 << (units - 1).bit_length()
        return min(units * unit, largest)
