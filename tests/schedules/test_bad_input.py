"""What is wrong is said: the argument, the value and what is allowed."""

import inspect

import jax
import numpy as np
import pytest
from gradchain import schedules as s
from gradchain.catalogue import SCHEDULES

PROFILE = s.rex(1.0, 10)
FITTING = {
    "schedules": [PROFILE, PROFILE],
    "boundaries": [5],
    "schedule": PROFILE,
    "percentages": "30-60",
    "kind": "sqrt",
}
"""Arguments of the right kind; all others that a schedule must be given are numbers."""
BAD_VALUES = [
    ("peak_value", lambda: s.linear_decay(-1.0, 10)),
    ("end_value", lambda: s.linear_decay(1.0, 10, end_value=float("nan"))),
    ("total_steps", lambda: s.linear_decay(1.0, 0)),
    ("warmup_steps", lambda: s.linear_decay(1.0, 10, 11)),
    ("warmup_steps", lambda: s.linear_decay(1.0, 10, -1)),
    ("warmup_steps", lambda: s.linear_decay(1.0, 10, 1.5)),
    ("warmup_steps", lambda: s.linear_decay(1.0, 10, 2.0)),
    ("warmup_steps", lambda: s.linear_decay(1.0, 10, float("nan"))),
    ("init_value", lambda: s.rex(-1.0, 10)),
    ("beta", lambda: s.rex(1.0, 10, beta=1.0)),
    ("schedules", lambda: s.join(np.ones(2), [5])),
    ("transition_steps", lambda: s.rex(1.0, 0)),
    ("sampling_steps", lambda: s.rex(1.0, 10, sampling_steps=0)),
    ("decay_steps", lambda: s.wsd(1.0, 10, decay_steps=11)),
    ("decay_steps", lambda: s.wsd(1.0, 10, decay_steps=-0.1)),
    ("decay_fraction", lambda: s.wsd(1.0, 10, decay_fraction=1.1)),
    ("decay_shape", lambda: s.wsd(1.0, 10, decay_shape="sqrt")),
    ("end_value", lambda: s.wsd(1.0, 10, decay_shape="exponential")),
    ("half_life", lambda: s.wsd(1.0, 10, decay_shape="half_life")),
    ("half_life", lambda: s.wsd(1.0, 10, half_life=3.0)),
    ("half_life", lambda: s.wsd(1.0, 10, decay_shape="half_life", half_life=0.0)),
    ("power", lambda: s.cosine_power_annealing(1.0, 10, power=0.5)),
    ("init_value", lambda: s.ademamix_b3_schedule(0.99, 1.0, 10)),
    ("end_value", lambda: s.ademamix_b3_schedule(1.0, 0.9, 10)),
    ("b2", lambda: s.ranger21_schedule(1.0, 10, b2=1.0)),
    ("warmdown_start", lambda: s.ranger21_schedule(1.0, 10, warmdown_start=1.1)),
    ("boundaries", lambda: s.step_decay(1.0, [5, 3])),
    ("boundaries", lambda: s.join([PROFILE, PROFILE], [])),
    ("boundaries", lambda: s.sampled(PROFILE, boundaries=[3, 3])),
    ("factor", lambda: s.step_decay(1.0, [5], factor=0.0)),
    ("num_stages", lambda: s.stage_decay(1.0, 10, 11)),
    ("end_factor", lambda: s.exponential_to(1.0, 10, 0.0)),
    ("pct_start", lambda: s.one_cycle(10, 1.0, 0.6, three_phase=True)),
    ("anneal", lambda: s.one_cycle(10, 1.0, anneal="cosine")),
    ("div_factor", lambda: s.one_cycle(10, 1.0, div_factor=0)),
    ("factor", lambda: s.reduce_on_plateau(1.0, factor=1.0)),
    ("patience", lambda: s.reduce_on_plateau(1.0, patience=-1)),
    ("reset_interval", lambda: s.spam_rewarmup(0)),
    ("init_factor", lambda: s.spam_rewarmup(init_factor=1.5)),
    ("final_sparsity", lambda: s.sparsity_schedule(1.0, 10)),
    ("end_fraction", lambda: s.sparsity_schedule(0.5, 10, 0.5, 0.4)),
    ("fractions_of", lambda: s.sparsity_schedule(0.5, 10, fractions_of="flops")),
    ("kind", lambda: s.last_iterate_schedule("cosine")),
    ("mu", lambda: s.last_iterate_schedule("strong")),
    ("smoothness", lambda: s.last_iterate_schedule("sqrt", smoothness=-1.0)),
    ("weighting", lambda: s.refined_schedule([1.0, 2.0], "lion")),
    ("grad_norms", lambda: s.refined_schedule([1.0])),
    ("grad_norms", lambda: s.refined_schedule([1.0, -2.0])),
    ("grad_norms", lambda: s.refined_schedule([np.nan, np.nan])),
    ("values", lambda: s.as_schedule([])),
    ("ord", lambda: s.record_grad_norms(10, ord=3)),
    ("period", lambda: s.cyclic(PROFILE, 0)),
    ("percentages", lambda: s.milestones("30-sixty", 10)),
    ("percentages", lambda: s.milestones("30-101", 10)),
    ("n_params", lambda: s.step_law(0, 1e9)),
    ("rule", lambda: s.scale_learning_rate(0.1, 2, 1, rule="cube")),
    ("batch_size", lambda: s.scale_learning_rate(0.1, 0, 1)),
    ("seq_len", lambda: s.batch_in_sequences(10, 0)),
    ("lr_coefficient", lambda: s.step_law(10, 10, float("nan"))),
    ("batch_tokens_exponent", lambda: s.step_law(10, 10, batch_tokens_exponent=np.str_("a"))),
    ("rule", lambda: s.scale_learning_rate(0.1, 2, 1, rule=float("-inf"))),
    ("warmup_steps", lambda: s.ademamix_b3_schedule(0.99, 0.9, -1)),
    ("three_phase", lambda: s.one_cycle(10, 1.0, three_phase=jax.numpy.ones(2))),
    ("boundaries", lambda: s.step_decay(1.0, b"12")),
    ("init_value", lambda: s.rex(1e39, 10)),
]
BAD_TYPES = [
    ("total_steps", lambda: s.linear_decay(1.0, 10.5)),
    ("total_steps", lambda: s.cosine_power_annealing(1.0)),
    ("warmup_steps", lambda: s.linear_decay(1.0, 10, True)),
    ("warmup_steps", lambda: s.linear_decay(1.0, 10, "3")),
    ("warmup_steps", lambda: s.ademamix_alpha_schedule()),
    ("decay_steps", lambda: s.cooldown(1.0, 10, 0.5)),
]


@pytest.mark.parametrize(("name", "make"), BAD_VALUES)
def test_values_out_of_range(name, make):
    with pytest.raises(ValueError, match=rf"^\w+: {name}\b"):
        make()


@pytest.mark.parametrize(("name", "make"), BAD_TYPES)
def test_wrong_types(name, make):
    with pytest.raises(TypeError, match=name):
        make()


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_what_is_of_no_kind_is_refused_by_the_names_of_schedule_and_argument(name):
    """Every argument in turn; those in front of it are of kinds that fit."""
    factory = SCHEDULES[name].factory
    parameters = inspect.signature(factory).parameters
    required = {n: FITTING.get(n, 10) for n, p in parameters.items() if p.default is p.empty}
    for argument in parameters:
        with pytest.raises(ValueError, match=rf"^{factory.__name__}: {argument}\b.*<object object"):
            factory(**{**required, argument: object()})


def test_the_message_says_what_is_allowed():
    with pytest.raises(ValueError, match=r"beta must be in \[0\.0, 1\.0\), got 1\.0"):
        s.rex(1.0, 10, beta=1.0)
    with pytest.raises(ValueError, match=r"warmup_steps must be an int in \[0, 10\], got 11"):
        s.wsd(1.0, 10, 11)


def test_traced_values_are_not_checked():
    assert float(jax.jit(lambda v: s.linear_decay(v, 10)(5))(-1.0)) == -0.5
