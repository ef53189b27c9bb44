"""Heavy ball with step decay."""

import math
from typing import Annotated

import optax

from ...registry import method
from ...schedules import stage_decay
from ...transforms import (
    Decay,
    DType,
    Flow,
    FlowError,
    Interval,
    Ratio,
    Size,
    Static,
    transformation,
)
from .stochastic_heavy_ball import stochastic_heavy_ball

StageFactor = Annotated[float, Static(), Interval(0.0, math.inf, low_open=True)]


@method(
    "Pan et al. 2024, Accelerated Convergence of Stochastic Heavy Ball Method under Anisotropic "
    "Gradient Noise",
    arxiv="2312.14567",
    tags=("momentum", "own-schedule", "low-memory"),
    learning_rate=1e-2,
    required={"total_steps": 400, "num_stages": 4},
)
@transformation()
def heavy_ball_step_decay(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Decay | None = None,
    *,
    total_steps: Size,
    num_stages: Size | None = None,
    factor: StageFactor = 2.0,
    condition_number: Ratio | None = None,
    mu_dtype: DType | None = None,
) -> Flow:
    r"""Heavy ball whose rate is divided by a factor after each of several equal stages.

    It is `stochastic_heavy_ball` with the schedule `stage_decay`: the velocity keeps its size when
    the rate drops.

    Args:
      learning_rate: rate of the first stage; 1/L for largest eigenvalue L. A schedule is
        multiplied with the stages.
      momentum: in [0, 1); default :math:`(1 - 1/\sqrt\kappa)^2` if `condition_number` is given,
        else 0.9.
      total_steps: length of the run.
      num_stages: number of stages, at most `total_steps`; default
        :math:`\lceil \log_f (T \sqrt\kappa) \rceil`, which takes `condition_number`.
      factor: f, by which the rate is divided after a stage.
      condition_number: kappa of the Hessian, for the defaults above.
      mu_dtype: storage of the first moments; default at least float32.

    Raises:
      FlowError: if neither `num_stages` nor `condition_number` is given, or if there are more
        stages than steps.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import heavy_ball_step_decay
      >>> opt = heavy_ball_step_decay(1.0, momentum=0.5, total_steps=2, num_stages=2)
      >>> g = jnp.array([1.0])
      >>> first, state = opt.update(g, opt.init(g))
      >>> float(first[0]), float(opt.update(g, state)[0][0])
      (-1.0, -1.0)

    References:
      Pan et al. 2024, Accelerated Convergence of Stochastic Heavy Ball Method under Anisotropic
      Gradient Noise (arXiv 2312.14567). There is no published code; the defaults that follow from
      kappa are those of its theory up to constants.
    """
    if momentum is None:
        momentum = 0.9 if condition_number is None else (1 - condition_number**-0.5) ** 2
    if num_stages is None:
        num_stages = _stages(total_steps, condition_number, factor)
    if num_stages > total_steps:
        raise FlowError(
            f"heavy_ball_step_decay: num_stages={num_stages} is out of range; "
            f"it must be at most total_steps={total_steps}"
        )
    stages = stage_decay(1.0, total_steps, num_stages, factor)
    if not callable(learning_rate):
        return stochastic_heavy_ball(lambda count: learning_rate * stages(count), momentum)
    return stochastic_heavy_ball(lambda count: learning_rate(count) * stages(count), momentum)


def _stages(total_steps: int, condition_number: float | None, factor: float) -> int:
    if condition_number is None:
        raise FlowError(
            "heavy_ball_step_decay: give num_stages, or condition_number, from which it follows"
        )
    return max(1, math.ceil(math.log(total_steps * math.sqrt(condition_number), factor)))
