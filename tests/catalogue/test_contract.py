"""What every method of the catalogue must do (DESIGN, section 7); a method enters by existing."""

import functools
import inspect
import pickle

import chex
import compilation
import digits
import gradchain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from gradchain import eval_params
from gradchain.catalogue import METHODS
from gradchain.transforms import Interval
from gradchain.transforms.notation.arguments import arguments_of as typed_arguments_of
from numeric import given_numbers, numeric
from samples import REAL_ONLY, arguments_of, method_named, sample
from shared import slope_of, trained
from subjects import (
    NAMES,
    extras_for,
    finite,
    gradients,
    odd_tree,
    rounded_in,
    same,
    seed_of,
    signature_of,
    small_tree,
    step_of,
    strict,
)
from turns import in_turn

every_method = pytest.mark.parametrize("name", NAMES)
LOW = (jnp.bfloat16, jnp.float16)


def kinds_of(name):
    """The dtypes that are tried: one of the low ones in every run, the other by hand."""
    now, later = LOW if seed_of(name) % 2 else LOW[::-1]
    yield pytest.param(name, now)  # float32: with the leaves that are no arrays
    yield pytest.param(name, later, marks=pytest.mark.by_hand)
    if name not in REAL_ONLY:
        yield pytest.param(name, jnp.complex64)


@pytest.mark.parametrize(("name", "dtype"), [case for name in NAMES for case in kinds_of(name)])
def test_dtypes_are_stable(name, dtype):
    """Updates come out in the dtype of the params; state keeps its dtypes, at least float32."""
    opt = sample(name)
    params = small_tree(dtype)
    state = jax.eval_shape(opt.init, params)
    new_params, new_state = jax.eval_shape(step_of(opt), params, state)
    assert signature_of(new_params) == signature_of(params)
    assert signature_of(new_state) == signature_of(state)
    for leaf in jax.tree.leaves(state):
        assert leaf.dtype not in LOW


LESS_BY_DESIGN = {"micro_adam", "mu_lo"}
"""Of which one stores in bfloat16, and the other is given weights in float32."""


@every_method
def test_float64_is_kept(name):
    """In params and state, and nothing between them is rounded to less, such as t / k of counts."""
    with jax.enable_x64(True):
        opt = sample(name)
        wide = {"wide": jnp.ones((3, 2), jnp.float64)}
        for params in (small_tree(jnp.float64), {**small_tree(jnp.float32), **wide}):
            state = jax.eval_shape(opt.init, params)
            traced, found = jax.make_jaxpr(step_of(opt), return_shape=True)(params, state)
            assert signature_of(found) == signature_of((params, state))
            if "wide" not in params and name not in LESS_BY_DESIGN:
                assert rounded_in(traced) == []


def names_in(state):
    """By which a checkpoint is restored."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]


@every_method
def test_odd_trees_and_donation_behind_a_clip(name):
    """Scalars, empty leaves, tuples, None and masked nodes train without NaN, all donated.

    No type and no rank is promoted silently. Behind `clip_by_global_norm` to the same end, to the
    bit, where the gradients are 2^120 as long, with states of the same names as without it.
    """
    opt = gradchain.chain(gradchain.optimizers.clip_by_global_norm(0.5), sample(name))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, scale):
        grads = jax.tree.map(lambda g: scale * g, gradients(params))
        updates, state = opt.update(grads, state, params, **extras_for(opt, params))
        return optax.apply_updates(params, updates), state

    ends = []
    for scale in np.float32([1, 2.0**120]):
        params = odd_tree()
        begun = state = opt.init(params)
        with strict():
            for _ in range(2):
                params, state = step(params, state, scale)
        assert finite(params)
        assert jax.tree.structure((params, state)) == jax.tree.structure((odd_tree(), begun))
        ends.append((params, state))
    assert same(*ends)
    assert names_in(begun) == names_in(jax.eval_shape(sample(name).init, odd_tree()))
    assert step._cache_size() == 1


class Model(nnx.Module):
    def __init__(self):
        self.first = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
        self.second = nnx.Linear(3, 4, use_bias=False, rngs=nnx.Rngs(1))
        self.scale = nnx.Param(jnp.ones(()))


@in_turn(NAMES, 1, of=2)
def test_the_params_of_an_nnx_model(name):
    """An `nnx.State` of variables goes in and comes out."""
    opt = sample(name)
    params = nnx.state(Model(), nnx.Param)
    state = opt.init(params)
    new_params, new_state = jax.eval_shape(step_of(opt), params, state)
    assert signature_of(new_params) == signature_of(params)
    assert signature_of(new_state) == signature_of(state)


@every_method
def test_zero_gradients_are_safe(name):
    one = trained(name)
    params, state = one.start, one.begun
    for _ in range(2):
        params, state = one.scaled_step(params, state, slope_of(params), np.float32(0))
        assert finite((params, state))


@in_turn(NAMES, 0, of=8)
def test_zero_gradients_are_safe_in_half_precision(name):
    """The params are float16; the arithmetic is that of float32 params."""
    dtype = jnp.float16
    opt = sample(name)
    params = {**small_tree(dtype), "zero": jnp.zeros((3, 3), dtype)}
    zeros = jax.tree.map(jnp.zeros_like, params)

    def step(carry, _):
        params, state = carry
        updates, state = opt.update(zeros, state, params, **extras_for(opt, params))
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def run(params):
        return jax.lax.scan(step, (params, opt.init(params)), length=2)[0]

    assert finite(run(params))


FROM_OTHER_STEPS = (
    "optimistic_mirror_descent",
    "past_extragradient",
    "projected_optimistic_gradient",
    "xgrad",
)
"""They read their rate at another step, so they are given it as a schedule."""


def with_numbers(name, numbers):
    """The method with these numbers, which may be traced."""
    if name in FROM_OTHER_STEPS:
        rate = numbers["learning_rate"]
        numbers = {**numbers, "learning_rate": lambda step: rate}
    if method_named(name).in_front:
        return sample(name, **numbers)
    return method_named(name).factory(**{**arguments_of(name), **numbers})


BATCHED = {"soap": ("learning_rate", "weight_decay")}
"""Which numbers are batched or injected, where it is not all: bases of singular factors turn with
the last bit of a decay."""


@every_method
def test_vmap_and_scan_equal_the_loop(name):
    """Training under scan, vmapped over starts and every number, is training one after another."""
    one = trained(name)
    start, expected = one.start, one.params
    numbers = given_numbers(name)
    numbers = {key: x for key, x in numbers.items() if key in BATCHED.get(name, numbers)}
    starts = jax.tree.map(lambda x: np.stack([0.5 * np.asarray(x) + np.float32(0.1), x]), start)
    chosen = jax.tree.map(lambda x: np.float32([0.9 * x, x]), numbers)

    def train(params, numbers):
        opt = with_numbers(name, numbers)

        def body(carry, _):
            return step_of(opt)(*carry), None

        return jax.lax.scan(body, (params, opt.init(params)), length=3)[0][0]

    together = jax.device_get(jax.jit(jax.vmap(train))(starts, chosen))
    found = jax.tree.map(lambda x: x[1], together)
    chex.assert_trees_all_close(found, expected, rtol=2e-4, atol=2e-5)


@every_method
def test_gradient_through_the_update_is_finite(name):
    """Also where entries of the gradient, or a whole leaf, are exactly 0 in a batch."""
    opt = sample(name)
    params = small_tree()

    def after(grads):
        state = opt.init(params)
        updates, state = opt.update(grads, state, params, **extras_for(opt, params))
        return sum(jnp.sum(u**2) for u in jax.tree.leaves(updates))

    grads = gradients(params)
    sparse = {**grads, "w": grads["w"].at[0].set(0.0), "b": jnp.zeros_like(grads["b"])}
    slope = jax.jit(jax.grad(after))
    if not finite((slope(grads), slope(sparse))):
        # the suite's quick code may round to NaN what the code that users run does not
        slope = jax.jit(jax.grad(after), compiler_options=compilation.AS_USERS_RUN)
        assert finite((slope(grads), slope(sparse)))


ALWAYS = ("adafactor", "egn", "fadam", "hspg", "micro_adam", "perpgrad", "scaled_gd")
"""They take a root of a number, a power, a maximum or a factorisation."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ALWAYS else pytest.mark.by_hand) for n in NAMES]
)
def test_gradient_through_several_updates_is_finite(name):
    """With respect to params, gradients and all numbers, where some of these or all are 0."""
    small = small_tree()

    def after(params, grads, numbers):
        opt = with_numbers(name, numbers)

        def step(carry, grads):
            params, state = carry
            updates, state = opt.update(grads, state, params, **extras_for(opt, params))
            return (optax.apply_updates(params, updates), state), None

        params = jax.lax.scan(step, (params, opt.init(params)), grads)[0][0]
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(params))

    grads = jax.tree.map(np.asarray, gradients(small))
    cut = {**grads, "w": grads["w"] * (np.arange(4) > 0)[:, None], "b": 0 * grads["b"]}
    zero = jax.tree.map(np.zeros_like, grads)
    nothing = jax.tree.map(np.zeros_like, small)
    params = {**small, "b": nothing["b"]}
    slope = jax.jit(jax.grad(after, argnums=(0, 1, 2)))
    apart = [
        jax.tree.map(lambda g, three=three: np.resize(np.float32(three), g.shape), grads)
        for three in ((1e-30, 0, 1e3), (0, 1e-24, -1e6))
    ]
    alike = [(one,) * 3 for one in (zero, *apart)]
    for three in ((grads, cut, zero), (zero, grads, cut), *alike):
        stacked = jax.tree.map(lambda *x: np.stack(x), *three)
        for at in (params, nothing):
            assert finite(slope(at, stacked, given_numbers(name)))


AT_ZERO = ("distributed_shampoo", "micro_adam", "proxy_prox", "sam")
"""They divide by what a number at 0 leaves of nothing."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in AT_ZERO else pytest.mark.by_hand) for n in NAMES]
)
def test_every_number_may_end_at_zero(name):
    """Where 0 is allowed, by a schedule that comes to it; with gradients of 0 and others."""
    kinds = typed_arguments_of(method_named(name).factory)
    numbers = {n: x for n, x in numeric(name).items() if not isinstance(x, tuple)}
    small = small_tree()
    usual = jax.tree.map(np.asarray, gradients(small))
    grads = {"usual": usual, "zero": jax.tree.map(np.zeros_like, usual)}

    @jax.jit
    def run(tables, grads):
        opt = with_numbers(name, {n: lambda t, x=x: x[t] for n, x in tables.items()})
        start = small, opt.init(small)

        def step(carry, _):
            params, state = carry
            updates, state = opt.update(grads, state, params, **extras_for(opt, params))
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, start, length=3)[0]

    usual_tables = {n: np.float32([x, x, x]) for n, x in numbers.items()}
    for n, x in numbers.items():
        if any(domain.problem(0.0) for domain in kinds[n].domains):
            continue
        for table in (np.float32([x, x, 0]), np.float32([0, 0, x])):
            for which, gradient in grads.items():
                assert finite(run({**usual_tables, n: table}, gradient)), (n, table, which)


@every_method
def test_abstract_init(name):
    """init of abstract params is abstract, and tells the shapes of the state."""
    opt = sample(name)
    params = odd_tree()
    abstract = jax.eval_shape(lambda: params)
    assert signature_of(opt.init(abstract)) == signature_of(opt.init(params))


@every_method
def test_state_never_aliases_the_params(name):
    params = small_tree()
    pointers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(params)}
    state = jax.tree.leaves(sample(name).init(params))
    inside = [leaf.unsafe_buffer_pointer() for leaf in state if leaf.size]
    assert not pointers & set(inside)
    assert len(set(inside)) == len(inside)


@every_method
def test_resume_is_bit_exact(name):
    """A state that went through bytes continues as if nothing had happened."""
    one = trained(name)
    step, params, state = one.step, one.params, one.state
    saved = pickle.dumps(jax.tree.map(np.asarray, (params, state)))
    resumed = jax.tree.map(jnp.asarray, pickle.loads(saved))
    for _ in range(4):
        params, state = step(params, state)
        resumed = step(*resumed)
    assert same((params, state), resumed)


@every_method
def test_wrappers_of_optax(name):
    """masked, partition, apply_if_finite and MultiSteps around the method, each in the next."""
    params = small_tree()
    inside = optax.masked(sample(name), {"w": True, "u": True, "b": False, "s": False})
    labels = {"w": "a", "u": "a", "b": "a", "s": "b"}
    group = optax.partition({"a": inside, "b": optax.sgd(0.1)}, labels)
    opt = optax.MultiSteps(optax.apply_if_finite(group, 3), every_k_schedule=2)
    extras = extras_for(sample(name), params)
    state = opt.init(params)
    updates, new_state = jax.eval_shape(
        lambda g, s, p: opt.update(g, s, p, **extras), gradients(params), state, params
    )
    assert signature_of(updates) == signature_of(params)
    assert signature_of(new_state) == signature_of(state)


@every_method
def test_tree_map_params(name):
    opt = sample(name)
    state = opt.init(small_tree())
    mapped = optax.tree_map_params(opt, lambda x: x, state)
    assert same(mapped, state)


@every_method
def test_unexpected_extra_arguments_are_ignored(name):
    opt = sample(name)
    params = small_tree()
    extras = extras_for(opt, params)

    state = opt.init(params)

    def program(**more):
        traced = jax.make_jaxpr(lambda s, p: opt.update(gradients(p), s, p, **extras, **more))
        return len(traced(state, params).eqns)

    assert program(something_that_nobody_expects=1) == program()


@every_method
def test_missing_inputs_are_named(name):
    opt = sample(name)
    params = small_tree()
    state = opt.init(params)
    given = extras_for(opt, params)
    for missing in gradchain.needs(opt):
        rest = {key: value for key, value in given.items() if key != missing}
        at = None if missing == "params" else params
        with pytest.raises(ValueError, match=missing):
            jax.eval_shape(lambda g, at=at, rest=rest: opt.update(g, state, at, **rest), params)


@every_method
def test_wrong_trees_and_dtypes_are_refused(name):
    opt = sample(name)
    params = small_tree()
    with pytest.raises(ValueError, match="int32"):
        opt.init({"w": jnp.ones((2, 2), jnp.int32)})
    state = opt.init(params)
    other = {key: value for key, value in params.items() if key != "w"}
    with pytest.raises(ValueError, match="tree"):
        opt.update(params, state, other, **extras_for(opt, params))


def refused_values(argument):
    """Values that the argument's annotation does not allow, the open ends among them."""
    for domain in argument.domains:
        if isinstance(domain, Interval):
            yield from (np.nan, 1.5) if domain.integer else (np.nan,)
            if domain.low > -np.inf:
                yield from (domain.low - 1, domain.low)[: 1 + domain.low_open]
            if domain.high < np.inf:
                yield from (domain.high + 1, domain.high)[: 1 + domain.high_open]
    if argument.domains or argument.choices:
        odd = [x for x in ("something else", 3.5, object()) if argument.problem(x)]
        assert odd
        yield from odd
    if argument.domains and not argument.optional:
        yield None


@pytest.mark.parametrize("name", sorted(METHODS))
def test_hyperparameters_out_of_range_are_refused_by_name(name):
    """Whatever an argument's type does not allow is refused; both names are in the error."""
    method = method_named(name)
    label = method.factory.__name__
    given = arguments_of(name)
    for argument in typed_arguments_of(method.factory).values():
        for value in refused_values(argument):
            changed = {**given, argument.name: value}
            with pytest.raises(ValueError, match=f"^{label}: {argument.name}="):
                method.factory(**changed)


@every_method
def test_injected_hyperparameters_change_without_another_program(name):
    """Injected numbers are traced: the types of the state stay; b2 keeps its precision.

    Where there is a rate, that the updates are the plain ones is asked of an injected schedule.
    """
    method = method_named(name)
    params, expected = trained(name).start, trained(name).params
    arguments = arguments_of(name)
    plain = method.factory(**arguments)
    numbers = {*given_numbers(name)}
    static = numbers - {*BATCHED.get(name, numbers)}
    inject = gradchain.inject_hyperparams(method.factory, static)
    behind = [optax.adam(method.learning_rate)] if method.in_front else []
    opt = optax.chain(inject(**arguments), *behind)

    @jax.jit
    def step(params, state):
        extras = extras_for(plain, params)
        updates, state = opt.update(gradients(params), state, params, **extras)
        return optax.apply_updates(params, updates), state

    state = opt.init(params)
    if "learning_rate" in state[0].hyperparams:
        state[0].hyperparams["learning_rate"] = jnp.float32(0.5 * method.learning_rate)
        assert signature_of(jax.eval_shape(step, params, state)[1]) == signature_of(state)
    else:
        for _ in range(3):
            params, state = step(params, state)
        chex.assert_trees_all_close(params, expected, rtol=2e-4, atol=1e-6)
        assert step._cache_size() == 1
    low = inject(**arguments).init(small_tree(jnp.bfloat16))
    if "b2" in low.hyperparams:
        b2 = arguments.get("b2", inspect.signature(method.factory).parameters["b2"].default)
        expected = b2(0) if callable(b2) else b2  # a schedule shows its present value
        assert float(low.hyperparams["b2"]) == pytest.approx(float(expected), rel=1e-6)
        assert low.hyperparams["b2"].dtype == jnp.float32


@every_method
def test_state_bytes_are_what_describe_says(name):
    opt = sample(name)
    params = small_tree()
    state = opt.init(params)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert gradchain.describe(opt, jax.eval_shape(lambda: params)).state_bytes == held


@every_method
def test_evaluation_weights_are_params_shaped(name):
    opt = sample(name)
    params = small_tree(jnp.bfloat16)
    state = opt.init(params)
    assert signature_of(eval_params(state, params)) == signature_of(params)


@every_method
def test_repr_names_the_method(name):
    method = method_named(name)
    before = "chain(" if method.in_front else ""
    assert repr(sample(name)).startswith(f"{before}{name}(")


@every_method
def test_it_trains_a_small_real_model(name):
    """Sixty steps on the digits leave a loss well below that of the start."""
    values, final = digits.train(sample(name), steps=60)
    assert bool(jnp.all(jnp.isfinite(values)))
    assert float(final) < 0.95 * float(values[0])
