"""HESSO with CRIC: which structures are redundant is tried out before one of them goes."""

import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import (
    Count,
    Decay,
    Flow,
    Fraction,
    Mask,
    NonNegative,
    Signal,
    Size,
    decay_weights,
    delay,
    flow,
    maximum,
    scheduled,
    step_count,
    transformation,
    where,
    zeros_like,
)
from ...transforms.control import at_finite_losses
from ...transforms.notation.signal import Delay
from .fading import scaled_steps
from .hesso import heavy_ball
from .scores import CRITERIA, Criteria, checked_criteria, scores_of_structures
from .structures import Groups, TargetSparsity, in_structures, rows_of_matrices
from .trials import (
    STEPS_PER_SET,
    TRIALS,
    lowest,
    number,
    number_of_sets,
    share_of_set,
    spared,
    trial,
)

CRITERIA_AND_LOSS: Criteria = {**CRITERIA, "loss": 1.0}


def _marks(scores: Signal, name: str) -> Delay:
    """One flag per structure, none at first."""
    return delay(scores != scores, name=name, dtype=jnp.int8)


def _remembered(params: Signal, value: Signal, begins: Signal) -> tuple[Signal, Signal]:
    """The params and the loss at which the trials begin."""
    cached, reference = delay(params, name="remembered"), delay(0.0, name="reference")
    cache = cached << where(begins, params, cached)
    return cache, reference << where(begins, value, reference)


def _mean_of(scores: Signal, searching: Signal) -> Signal:
    """The mean of the scores over the steps of the search."""
    sums, counted = delay(scores, name="score_sums"), delay(0.0, name="scored_steps")
    total = sums << sums + where(searching, scores, 0.0)
    steps = counted << counted + where(searching, 1.0, 0.0)
    return total / maximum(steps, 1.0)


def _recorded(scores: Signal, relative: Signal, records: Signal) -> Signal:
    """The losses of the trials, summed for the structures of each set."""
    ratios = delay(scores, name="loss_ratios")
    return ratios << ratios + where(records, relative, 0.0)


def _cycles(scores: Signal, lowest: Signal, on: Signal, renews: Signal) -> tuple[Signal, Signal]:
    """The number of the cycle, and the structures that fade in it."""
    cycles = delay(zeros_like(step_count()), name="cycle")
    trials, history, violating = (_marks(scores, n) for n in ("trials", "history", "violating"))
    cycle = cycles << cycles + where(renews, 1, 0)
    fresh = where(cycle == 1, lowest, trials & ~history)
    violators = violating << where(renews, fresh, violating)
    past = history << where(renews, history | violators, history)
    trials << where(on, (trials | lowest) & ~violators & ~past, trials)
    return cycle, violators


@method(
    "Chen et al. 2024, HESSO: Towards Automatic Efficient and User Friendly Any Neural Network "
    "Training and Pruning",
    arxiv="2409.09085",
    tags=("momentum", "sparse"),
    learning_rate=0.1,
    required={"groups": rows_of_matrices, "sampling_steps": 2, "hybrid_steps": 4},
    small_model={"max_cycles": 2},
)
@transformation()
def hesso_cric(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    target_sparsity: TargetSparsity = 0.5,
    *,
    sampling_steps: Size,
    hybrid_steps: Size,
    tolerance: Count = 0,
    start_cric_step: Count = 0,
    max_cycles: Count = 10,
    criteria: Criteria | None = None,
    momentum: Decay = 0.0,
    dampening: Fraction = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
) -> Flow:
    """HESSO whose choice of structures is corrected by trials, and made once.

    After s0 = `start_cric_step` steps of gradient descent the params and the loss are remembered.

    1. Set by set, a quarter, a half and three quarters of the structures with the lowest scores are
       set to zero for a step each; the loss, relative to that remembered if it is not 0, is
       recorded.
    2. Cycles of S = `sampling_steps` steps start at the remembered params. The structures that had
       been among the lowest, but did not fade yet, fade to zero; those that get among the lowest
       meanwhile do so in the next cycle. It ends with a cycle in which no more than `tolerance`
       fade, or with the last. Leaves outside all sets rest.
    3. The scores of all these steps are averaged, the recorded losses added, the lowest structures
       chosen, and the remembered params restored. The chosen ones fade out in H = `hybrid_steps`
       steps of gradient descent, as in `hesso`, and stay at zero.

    The momentum takes the gradients of all steps in. A step whose loss is not finite does not
    count: params and state stay.

    Args:
      learning_rate: number or schedule.
      groups, target_sparsity, momentum, dampening, weight_decay, mask: see `hesso`.
      sampling_steps: steps of a cycle.
      hybrid_steps: steps in which the chosen structures fade out.
      tolerance: how many structures may still be new in the last cycle.
      start_cric_step: the step that begins the trials; 0 is as 1, the first.
      max_cycles: how many cycles there are at most.
      criteria: weight of each criterion; default 0.2 for those of `hesso`, and 1 for "loss".

    Returns:
      The optimizer; `update` needs `params` and `value`. Its state is the momentum, the remembered
      params, and some numbers per structure.

    Raises:
      ValueError: for a hyper-parameter out of range, an unknown leaf or criterion, or axes of
        unequal length.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradchain.optimizers import hesso_cric
      >>> opt = hesso_cric(0.1, [{"w": 0}], sampling_steps=2, hybrid_steps=2, max_cycles=1)
      >>> x = {"w": jnp.array([[0.1, 0.1], [3.0, 4.0]])}
      >>> g, state = {"w": jnp.ones((2, 2))}, opt.init(x)
      >>> for _ in range(9):
      ...     u, state = opt.update(g, state, x, value=1.0)
      ...     x = {"w": x["w"] + u["w"]}
      >>> x["w"].round(2).tolist()
      [[0.0, 0.0], [2.799999952316284, 3.799999952316284]]

    References:
      Chen et al. 2024 (arXiv 2409.09085); microsoft/only_train_once.
    """
    weights = checked_criteria(criteria, CRITERIA_AND_LOSS, "hesso_cric")

    def step(g: Signal, params: Signal, value: Signal) -> Signal:
        d = g >> decay_weights(weight_decay, mask=mask) >> heavy_ball(momentum, dampening)
        scores = scores_of_structures(params, d, groups=groups, criteria=weights)

        t, first = step_count(), maximum(start_cric_step, 1)
        now = t - first  # steps since the trials began
        ended_at = delay(zeros_like(t), name="ended_at")
        searching = (now >= 0) & (ended_at == 0)
        within = now - STEPS_PER_SET * number_of_sets(params, groups=groups)
        in_cycles, in_trials = searching & (within >= 0), searching & (within < 0)
        cache, loss = _remembered(params, value, now == 0)
        mean = _mean_of(scores, searching)

        tried = trial(params, scores, where(in_trials, now, -1), groups=groups)
        records = in_trials & (now % 2 == 1)
        share = share_of_set(params, scores, now, groups=groups) / len(TRIALS)
        losses = _recorded(scores, share * (value / where(loss == 0, 1.0, loss)), records)

        renews = in_cycles & (within % sampling_steps == 0)
        final = mean + weights.get("loss", 0.0) * losses
        low = lowest(params, scores, final, groups=groups, target_sparsity=target_sparsity)
        cycle, violators = _cycles(scores, low[0], in_cycles, renews)
        few = number(violators) <= tolerance
        ends = in_cycles & ((cycle >= max_cycles) | ((cycle >= 1) & few))
        ended = ended_at << where(ends, t, ended_at)

        chosen = _marks(scores, "redundant")
        redundant = chosen << where(ends, spared(params, low[1], groups=groups), chosen)

        k, after = (within - 1) % sampling_steps, t - ended - 1
        in_cycle = (sampling_steps - k - 1.0) / (sampling_steps - k)
        at_last = maximum(hybrid_steps - after - 1.0, 0.0) / maximum(hybrid_steps - after, 1.0)
        factor = where(tried, 0.0, where(in_cycles & violators, in_cycle, 1.0))
        factor = where((ended > 0) & ~ends & redundant, at_last, factor)

        move, restored = -scheduled(learning_rate) * d, cache - params
        inside = where(in_trials, 0.0, move + where(renews, restored, 0.0))
        outside = where(searching, 0.0, move)
        stepped = in_structures(inside, outside, params, groups=groups)
        scaled = scaled_steps(stepped, params, factor, groups=groups)
        return where(records | ends, restored, scaled)

    return at_finite_losses(flow(step))
