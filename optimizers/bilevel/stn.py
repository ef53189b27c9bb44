"""Self-tuning networks: the lower level learns how it answers to the upper one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...registry import method
from ...transforms import Count, Key, NonNegative, PositiveConstant, Sampler, Size, checked
from ...transforms.notation.known import choose, repeat
from ...transforms.notation.roots import balanced
from ...transforms.notation.values import working
from ...transforms.trees.random import typed_key
from .best_response import BestResponse, responded, started
from .stepper import BilevelStepper, Loss, at_count, check_losses, owned


class StnState(NamedTuple):
    """What `stn` keeps.

    Attributes:
      x: the upper variable.
      y: the lower variable that answers to it.
      best_response: the map that gives it.
      scale: deviations of the perturbations of x, before the softplus.
      upper_state: of the upper optimizer.
      lower_state: of the lower optimizer.
      key: data of the key.
      count: steps made.
    """

    x: Any
    y: Any
    best_response: BestResponse
    scale: Any
    upper_state: Any
    lower_state: Any
    key: jax.Array
    count: Any


@method(
    "MacKay et al. 2019, Self-Tuning Networks: Bilevel Optimization of Hyperparameters using "
    "Structured Best-Response Functions",
    arxiv="1903.03088",
    tags=("bilevel", "noise"),
    kind="stepper",
    required={"upper_tx": optax.sgd(0.1), "lower_tx": optax.sgd(0.1)},
)
@checked()
def stn(
    upper_tx: optax.GradientTransformation,
    lower_tx: optax.GradientTransformation,
    train_steps: Size = 2,
    val_steps: Size = 1,
    entropy_weight: NonNegative = 1e-3,
    initial_scale: PositiveConstant = 0.5,
    warmup_steps: Count = 0,
    num_samples: Size = 1,
    key: Key = 0,
    noise_fn: Sampler | None = None,
) -> BilevelStepper:
    r"""Learns the best response of the lower level around where the upper one stands.

    The lower variable is a function of the upper one, for each leaf with the outputs on its last
    axis

    .. math::
        \hat y(x) = W_0 + W_1 \odot (V^T x)

    with one entry of :math:`V^T x`, a gate, for each output. With f the upper and g the lower loss,
    :math:`\sigma = \mathrm{softplus}(s)` and :math:`e \sim N(0, \sigma^2)` drawn anew each time, a
    step makes

    .. math::
        \texttt{train\_steps} \text{ times down in } (W_0, W_1, V)&: \quad
        \mathbb{E}_e\, g(x + e, \hat y(x + e)) \\
        \texttt{val\_steps} \text{ times down in } (x, s)&: \quad
        \mathbb{E}_e\, f(x + e, \hat y(x + e)) - \tau \textstyle\sum \log \sigma

    The first does not move x by the lower loss; the second goes through the response without
    Hessians. The last term keeps the deviations from vanishing. x should be without bounds and of
    about unit size: exponents, or logits of what has bounds.

    Args:
      upper_tx: any optimizer, of the pair (x, s).
      lower_tx: any optimizer, of the `BestResponse` (W_0, W_1, V).
      train_steps: at the lower level in each step.
      val_steps: at the upper level in each step.
      entropy_weight: tau; number or schedule.
      initial_scale: the first sigma.
      warmup_steps: steps in which the lower level alone moves.
      num_samples: perturbations over which a loss is averaged.
      key: seed or key of the perturbations, and of the first W_1.
      noise_fn: `(key, count, upper) -> tree of standard normals`, in place of the random ones; the
        key is another for each loss and each sample; count is 0 at the first step.

    Returns:
      A `BilevelStepper`: `init(upper, lower)`, `step(state, upper_loss, lower_loss)`, with x and y
      in the state; twice the lower variable and the gates are learned.

    Raises:
      ValueError: for a hyper-parameter out of range, or losses that return no scalar.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from gradchain.optimizers import stn
      >>> f = lambda x, y: jnp.sum((y - 1.0) ** 2) / 2
      >>> g = lambda x, y: jnp.sum((y - x) ** 2) / 2
      >>> stepper = stn(optax.adam(0.03), optax.sgd(0.1))
      >>> state = stepper.init(jnp.array([0.0]), jnp.array([0.0]))
      >>> step = jax.jit(lambda state: stepper.step(state, f, g))
      >>> for _ in range(200):
      ...     state = step(state)
      >>> state.x.round(1).tolist(), state.y.round(1).tolist()
      ([1.0], [1.0])

    References:
      MacKay, Vicol, Lorraine, Duvenaud & Grosse 2019, Self-Tuning Networks (arXiv 1903.03088), and
      the authors' code. Chosen here: the map is one of trees, not of layers, so any model can be
      tuned, and a whole batch sees one perturbation where the paper draws one for each example
      (`num_samples` draws more); the gates of a kernel and of its bias are separate, as there; W_0
      starts as the given lower variable and V as 0, so that the first response is that variable
      everywhere, and W_1 as random signs over the root of the entries of an output, while the code
      draws W_0 and W_1 uniformly with that bound and V with a deviation of 0.01; the first sigma is
      the code's, which leaves it there by default and then does not perturb the upper loss, while
      the paper learns it, as ours; s goes with x to one optimizer, which for Adam is the same as
      two.
    """
    lower_opt, upper_opt = map(optax.with_extra_args_support, (lower_tx, upper_tx))

    def init(upper: optax.Params, lower: optax.Params) -> StnState:
        check_losses("stn", upper, lower)
        x, y, root = owned(upper), owned(lower), typed_key(key)
        best_response = started(lower, upper, root)
        raw = jax.tree.map(lambda leaf: jnp.full_like(working(leaf), _before_softplus()), upper)
        return StnState(
            x,
            y,
            best_response,
            raw,
            upper_opt.init((x, raw)),
            lower_opt.init(best_response),
            jax.random.key_data(root),
            jnp.zeros((), jnp.int32),
        )

    def _before_softplus() -> jax.Array:
        return jnp.log(jnp.expm1(jnp.asarray(initial_scale, jnp.result_type(float))))

    def step(state: StnState, upper_loss: Loss, lower_loss: Loss) -> StnState:
        check_losses("stn", state.x, state.y, upper_loss=upper_loss, lower_loss=lower_loss)
        implementation = jax.random.key_impl(typed_key(key))
        root = jax.random.wrap_key_data(state.key, impl=implementation)
        fresh = jax.random.split(jax.random.fold_in(root, state.count), train_steps + val_steps)
        tau = at_count(entropy_weight, state.count)

        def expected(
            loss: Loss, x: optax.Params, raw: optax.Params, answer: BestResponse, k: jax.Array
        ) -> jax.Array:
            def of(sample: int) -> Any:
                there = _perturbed(x, raw, draw(jax.random.fold_in(k, sample), state.count, x))
                return loss(there, responded(answer, there))

            return sum(of(sample) for sample in range(num_samples)) / num_samples

        def train(i: int | jax.Array, carry: Any) -> Any:
            answer, lower_state = carry
            value_fn = lambda a: expected(lower_loss, state.x, state.scale, a, fresh[i])  # noqa: E731
            return _descended(lower_opt, value_fn, answer, lower_state)

        answer, lower_state = repeat(train_steps, train, (state.best_response, state.lower_state))

        def validate(i: int | jax.Array, carry: Any) -> Any:
            def value_fn(pair: tuple[optax.Params, optax.Params]) -> jax.Array:
                here, raw = pair
                loss = expected(upper_loss, here, raw, answer, fresh[train_steps + i])
                return loss - jnp.asarray(tau, loss.dtype) * _entropy(pair[1]).astype(loss.dtype)

            return _descended(upper_opt, value_fn, *carry)

        here = ((state.x, state.scale), state.upper_state)
        upward = lambda carry: repeat(val_steps, validate, carry)  # noqa: E731
        (x, raw), upper_state = choose(
            state.count >= warmup_steps, upward, lambda carry: carry, here
        )
        y = responded(answer, x)
        return StnState(x, y, answer, raw, upper_state, lower_state, state.key, state.count + 1)

    draw = noise_fn or _normals
    return BilevelStepper(init, step)


def _descended(
    opt: Any, value_fn: Any, at: tuple[optax.Params, optax.Params] | BestResponse, opt_state: Any
) -> Any:
    value, slope = jax.value_and_grad(value_fn)(at)
    updates, opt_state = opt.update(slope, opt_state, at, value=value, value_fn=value_fn)
    return optax.apply_updates(at, updates), opt_state


def _normals(key: jax.Array, count: jax.Array, upper: optax.Params) -> optax.Params:
    leaves, structure = jax.tree.flatten(upper)
    keys = jax.random.split(key, max(len(leaves), 1))
    drawn = [
        jax.random.normal(k, leaf.shape, working(leaf).dtype)
        for k, leaf in zip(keys, leaves, strict=False)
    ]
    return jax.tree.unflatten(structure, drawn)


def _perturbed(x: optax.Params, raw: optax.Params, noise: optax.Params) -> optax.Params:
    return jax.tree.map(
        lambda a, s, e: (working(a) + jax.nn.softplus(s) * e).astype(a.dtype), x, raw, noise
    )


def _entropy(raw: optax.Params) -> jax.Array:
    """Of independent Gaussians, up to a constant."""
    return balanced([jnp.sum(jnp.log(jax.nn.softplus(s))) for s in jax.tree.leaves(raw)])
