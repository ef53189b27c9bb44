"""The table of what a transformation is made of and stores."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flows import PARAMS
from gradchain import chain, describe, flow, named, observe
from gradchain.optimizers import adamw, lookahead
from gradchain.transforms import (
    delay,
    ema,
    every,
    hutchinson,
    scale_by_learning_rate,
    tap,
    transformation,
)

N = 7


def nbytes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def paths(report):
    return [row.path for row in report.rows]


def test_totals_are_those_of_the_state():
    for opt in (adamw(0.1), lookahead(adamw(0.1)), optax.adam(0.1), optax.sgd(0.1)):
        report = describe(opt, PARAMS)
        assert report.state_bytes == nbytes(opt.init(PARAMS)) == report.rows[0].state_bytes
        assert report.parameters == N
        assert report.bytes_per_parameter == report.state_bytes / N


def test_abstract_params_do_and_nothing_is_allocated():
    huge = jax.ShapeDtypeStruct((10**9, 10**6), jnp.bfloat16)
    report = describe(chain(ema(0.9), ema(0.5, dtype=jnp.bfloat16)), huge)
    assert report.state_bytes == 6 * 10**15 + 4  # and the step count, which rounding draws by
    assert report["ema"].bytes_per_parameter == 4.0
    assert report["ema_2"].bytes_per_parameter == 2.0
    assert "6000.0 TB" in str(report)


def test_rows_follow_the_names_of_the_states():
    def scale_by_mine():
        def step(g):
            past = delay(g, name="past")
            return past + (past << g) + (g >> named("mu", ema(0.9)))

        return flow(step)

    report = describe(chain(scale_by_mine(), scale_by_learning_rate(lambda t: 0.1)), PARAMS)
    assert paths(report) == [
        "",
        "count",
        "scale_by_mine",
        "scale_by_mine.past",
        "scale_by_mine.mu",
        "scale_by_learning_rate",
    ]
    row = report["scale_by_mine.mu"]
    assert (row.label, row.arguments["decay"], row.state_bytes) == ("ema", 0.9, 4 * N)
    assert report["scale_by_mine"].state_bytes == 8 * N
    assert report["scale_by_mine.past"].label == "delay"
    assert report["count"].state_bytes == 4


def test_every_path_of_a_state_can_be_observed():
    opt = chain(adamw(0.1), named("held", every(3, chain(ema(0.5), ema(0.9)))))
    for row in describe(opt, PARAMS).rows:
        if row.label in ("ema", "delay"):
            observe(opt, row.path)


def test_what_is_inside_a_held_transformation():
    inner = chain(hutchinson(), ema(0.99))
    report = describe(flow(lambda g: g >> named("hessian", every(10, inner))), PARAMS)
    assert report["hessian"].label == "every"
    assert report["hessian"].state_bytes == 4 * N + 8 + 4
    assert report["hessian.ema"].state_bytes == 4 * N
    assert report["hessian.hutchinson"].arguments["num_samples"] == 1


def test_foreign_transformations_are_leaves_with_their_numbers():
    report = describe(chain(optax.clip(0.5), optax.scale_by_adam(b1=0.7)), PARAMS)
    assert paths(report) == ["", "clip", "scale_by_adam"]
    assert report["clip"].arguments["max_delta"] == 0.5
    assert report["scale_by_adam"].arguments["b1"] == 0.7
    assert report["scale_by_adam"].state_bytes == 8 * N + 4
    assert report["clip"].state_bytes == 0


@pytest.mark.parametrize(
    "opt", [optax.scale_by_adam(), optax.masked(optax.scale_by_adam(), True), optax.MultiSteps]
)
def test_a_plain_optax_transformation_is_one_row(opt):
    if opt is optax.MultiSteps:
        opt = optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()
    report = describe(opt, PARAMS)
    assert len(report.rows) == 1
    assert report.state_bytes == nbytes(opt.init(PARAMS))


def test_an_optax_chain_shows_its_parts_ours_included():
    report = describe(optax.chain(optax.clip(1.0), chain(ema(0.9)), optax.adam(0.1)), PARAMS)
    assert {"clip", "chain.ema", "chain_2.scale_by_adam"} <= set(paths(report))
    assert report["chain.ema"].state_bytes == 4 * N


def test_what_is_observed_is_counted():
    opt = observe(chain(flow(lambda g: tap("twice", 2 * g))), "twice")
    assert describe(opt, PARAMS)["observed"].state_bytes == 4 * N


def test_the_table_is_aligned():
    lines = str(describe(adamw(0.1), PARAMS)).splitlines()
    widths = [len(part) for part in lines[1].split("  ")]
    starts = [sum(widths[:i]) + 2 * i for i in range(len(widths))]
    assert [lines[0][at:].split("  ")[0].strip() for at in starts[:3]] == [
        "node",
        "transformation",
        "hyper-parameters",
    ]
    body = lines[2:-2]
    assert all(line[at - 1] == " " for line in body for at in starts[1:3] if len(line) > at)
    assert lines[-1].startswith("7 parameters, 60 B of state, 8.57 bytes per parameter")


def test_a_console_shows_the_table_itself():
    table = describe(optax.sgd(0.1), {"w": jnp.ones(3)})
    assert repr(table) == str(table)


def test_html_for_notebooks_escapes():
    @transformation()
    def mine(mode):
        return flow(lambda g: g >> every(2, ema(0.5)))

    table = describe(mine("a<b"), PARAMS)._repr_html_()
    assert table.startswith("<table>")
    assert "mode=&#x27;a&lt;b&#x27;" in table


def test_empty_params():
    report = describe(adamw(0.1), {})
    assert report.parameters == 0
    assert report.bytes_per_parameter == 4.0
