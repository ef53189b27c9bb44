"""HESSO with CRIC: which structures are redundant is tried out before one of them goes."""

import jax
import jax.numpy as jnp
import numpy as np
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
    lift_tree,
    maximum,
    scheduled,
    step_count,
    transformation,
    where,
    zeros_like,
)
from ...transforms.control import at_finite_losses
from ...transforms.notation.context import Context
from ...transforms.notation.crowds import one_each, vector_of
from ...transforms.notation.ordering import are_largest
from ...transforms.notation.signal import Delay
from ...transforms.notation.values import Leaves, promoting
from ...transforms.trees.vector import one_leaf
from .hesso import (
    CRITERIA,
    Criteria,
    checked_criteria,
    heavy_ball,
    kept_apart,
    scaled_steps,
    scores_of_structures,
    target_of,
)
from .structures import (
    Groups,
    Structures,
    TargetSparsity,
    in_structures,
    of_sets,
    rows_of_matrices,
)

TRIALS = (0.25, 0.5, 0.75)
"""Sparsities at which each set is tried out, two steps each."""

STEPS_PER_SET = 2 * len(TRIALS)

CRITERIA_AND_LOSS: Criteria = {**CRITERIA, "loss": 1.0}


def _trial_of(
    context: Context, x: Leaves, scores: Leaves, now: jax.Array, groups: Groups
) -> Leaves:
    """The structures that are set to zero at a step of the trials of single sets."""
    structures = Structures(groups, x, context.label)
    sparsity = jnp.asarray(TRIALS)[(now // 2) % len(TRIALS)]
    if not structures.groups:
        return one_leaf(scores.values[0] > 0)

    def zeroed(number: jax.Array, part: jax.Array) -> jax.Array:
        here = (now >= 0) & (now // STEPS_PER_SET == number) & (now % 2 == 0)
        count = jnp.maximum(jnp.floor(part.size * sparsity), 1)
        return here & are_largest(-part, count)

    sets = structures.split(scores.values[0])
    numbers = one_each(jnp.arange(len(sets)), sets)
    return one_leaf(vector_of(of_sets(zeroed, numbers, sets)))


def _lowest_of(
    context: Context, x: Leaves, scores: Leaves, groups: Groups, target_sparsity: float
) -> Leaves:
    """As many structures as are to go in the end, of all sets, with the lowest scores."""
    number = target_of(Structures(groups, x, context.label), target_sparsity)
    return one_leaf(are_largest(-scores.values[0], number))


def _spared_of(context: Context, x: Leaves, chosen: Leaves, groups: Groups) -> Leaves:
    """What is chosen, but for the last structures of a set of which all are."""
    mask = chosen.values[0]
    structures = Structures(groups, x, context.label)
    return one_leaf(kept_apart(structures, mask, jnp.zeros_like(mask)))


def _of_set(context: Context, x: Leaves, like: Leaves, now: jax.Array, groups: Groups) -> Leaves:
    """Of which set a structure is that is tried out now, and one over the size of the set."""
    structures = Structures(groups, x, context.label)
    vector = like.values[0]
    numbers = np.repeat(np.arange(len(structures.sizes)), structures.sizes)
    shares = np.repeat(1 / np.maximum(structures.sizes, 1), structures.sizes)
    found = jnp.where(now // STEPS_PER_SET == numbers, jnp.asarray(shares, vector.dtype), 0)
    return one_leaf(found if structures.sizes else vector)


def _sets_of(context: Context, x: Leaves, groups: Groups) -> jax.Array:
    return jnp.asarray(len(Structures(groups, x, context.label).groups), jnp.int32)


def _count_of(marks: Leaves) -> jax.Array:
    return jnp.sum(marks.values[0], dtype=jnp.int32)


_trial = lift_tree(promoting(_trial_of), "trial", context=True)
_lowest = lift_tree(promoting(_lowest_of), "lowest", context=True)
_spared = lift_tree(promoting(_spared_of), "spared", context=True, out=1)
_share_of_set = lift_tree(promoting(_of_set), "of_set", context=True, out=1)
_number_of_sets = lift_tree(_sets_of, "sets", context=True, out="scalar")
_number = lift_tree(_count_of, "number", out="scalar")


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

        def marks(name: str) -> Delay:
            return delay(scores != scores, name=name, dtype=jnp.int8)

        first = maximum(start_cric_step, 1)
        t = step_count()
        ended_at = delay(zeros_like(t), name="ended_at")
        searching = (t >= first) & (ended_at == 0)
        now = t - first  # steps since the trials began
        sets = _number_of_sets(params, groups=groups)
        in_cycles = searching & (now >= STEPS_PER_SET * sets)
        in_trials = searching & ~in_cycles

        cached, reference = delay(params, name="remembered"), delay(0.0, name="reference")
        begins = t == first
        cache = cached << where(begins, params, cached)
        loss = reference << where(begins, value, reference)

        sums, counted = delay(scores, name="score_sums"), delay(0.0, name="scored_steps")
        total = sums << sums + where(searching, scores, 0.0)
        steps = counted << counted + where(searching, 1.0, 0.0)

        tried = _trial(params, scores, where(in_trials, now, -1), groups=groups)
        ratios = delay(scores, name="loss_ratios")
        records = in_trials & (now % 2 == 1)
        share = _share_of_set(params, scores, now, groups=groups) / len(TRIALS)
        relative = value / where(loss == 0, 1.0, loss)
        losses = ratios << ratios + where(records, share * relative, 0.0)

        cycles, trials, history, violating = (
            delay(zeros_like(t), name="cycle"),
            marks("trials"),
            marks("history"),
            marks("violating"),
        )
        within = now - STEPS_PER_SET * sets
        renews = in_cycles & (within % sampling_steps == 0)
        lowest = _lowest(params, scores, groups=groups, target_sparsity=target_sparsity)
        cycle = cycles << cycles + where(renews, 1, 0)
        fresh = where(cycle == 1, lowest, trials & ~history)
        violators = violating << where(renews, fresh, violating)
        past = history << where(renews, history | violators, history)
        trials << where(in_cycles, (trials | lowest) & ~violators & ~past, trials)

        few = _number(violators) <= tolerance
        ends = in_cycles & ((cycle >= max_cycles) | ((cycle >= 1) & few))
        ended = ended_at << where(ends, t, ended_at)
        chosen = marks("redundant")
        final = total / maximum(steps, 1.0) + weights.get("loss", 0.0) * losses
        best = _lowest(params, final, groups=groups, target_sparsity=target_sparsity)
        redundant = chosen << where(ends, _spared(params, best, groups=groups), chosen)

        after = t - ended - 1
        fading = (ended > 0) & ~ends
        k = (within - 1) % sampling_steps
        in_cycle = (sampling_steps - k - 1.0) / (sampling_steps - k)
        at_last = maximum(hybrid_steps - after - 1.0, 0.0) / maximum(hybrid_steps - after, 1.0)
        factor = where(tried, 0.0, where(in_cycles & violators, in_cycle, 1.0))
        factor = where(fading & redundant, at_last, factor)

        move = -scheduled(learning_rate) * d
        restored = cache - params
        outside = where(searching, 0.0, move)
        inside = where(in_trials, 0.0, move + where(renews, restored, 0.0))
        stepped = in_structures(inside, outside, params, groups=groups)
        scaled = scaled_steps(stepped, params, factor, groups=groups)
        return where(records | ends, restored, scaled)

    return at_finite_losses(flow(step))
