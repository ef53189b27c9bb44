"""Random graphs of primitives give, as a flow, what a plain interpreter in numpy gives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gradchain import flow
from gradchain.transforms import (
    debias,
    delay,
    ema,
    every,
    global_norm,
    global_sum,
    leaf_mean,
    leaf_norm,
    leaf_where,
    lift,
    maximum,
    merge,
    named,
    reset_every,
    scheduled,
    sign,
    split,
    square,
    step_count,
    trace,
    where,
)
from gradchain.transforms.notation import matrices
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SHAPES = {"m": (3, 2), "v": (4,), "z": ()}
STEPS = 5
NUMBERS = st.sampled_from([-1.5, -0.5, 0.25, 0.75, 2.0])
RATES = st.sampled_from([0.0, 0.5, 0.9])
COUNTS = st.integers(1, 3)

UNARY = ("negate", "abs", "square", "sign", "tanh")
BINARY = ("+", "-", "*", "/", "maximum", "where")
REDUCTIONS = ("global_norm", "global_sum", "leaf_norm", "leaf_mean")
STATEFUL = ("ema", "debiased", "trace", "delay", "feedback", "every", "reset", "nested")
OTHERS = ("split", "clock", "schedule")


@st.composite
def programs(draw: Any) -> list[tuple[Any, ...]]:
    """Instructions; each may read the gradient, the params, and what came before it."""
    program: list[tuple[Any, ...]] = []
    for index in range(draw(st.integers(1, 8))):
        source = st.integers(0, index + 1)
        kind = draw(st.sampled_from(["unary", "binary", "number", "reduce", "state", "other"]))
        if kind == "unary":
            program.append((draw(st.sampled_from(UNARY)), draw(source)))
        elif kind == "binary":
            program.append((draw(st.sampled_from(BINARY)), draw(source), draw(source)))
        elif kind == "number":
            op = draw(st.sampled_from(("scale", "shift", "from", "over")))
            program.append((op, draw(source), draw(NUMBERS)))
        elif kind == "reduce":
            program.append((draw(st.sampled_from(REDUCTIONS)), draw(source)))
        elif kind == "state":
            op = draw(st.sampled_from(STATEFUL))
            program.append((op, draw(source), draw(RATES), draw(COUNTS), draw(COUNTS)))
        else:
            program.append((draw(st.sampled_from(OTHERS)), draw(source), draw(source)))
    return program


def as_flow(program: list[tuple[Any, ...]]) -> Any:
    """The program in the flow notation."""

    def step(g: Any, params: Any) -> Any:
        values = [g, params]
        for op, *args in program:
            values.append(_signal(op, values, args))
        total = values[0]
        for value in values[1:]:
            total = 0.5 * total + value
        return total

    return flow(step, name="program")


def _signal(op: str, values: list[Any], args: list[Any]) -> Any:
    x = values[args[0]]
    if op in UNARY or op in REDUCTIONS:
        fn = {
            "negate": lambda x: -x,
            "abs": abs,
            "square": square,
            "sign": sign,
            "tanh": lift(jnp.tanh),
            "global_norm": global_norm,
            "global_sum": global_sum,
            "leaf_norm": leaf_norm,
            "leaf_mean": leaf_mean,
        }[op]
        return x * 0 + fn(x)
    if op in ("scale", "shift", "from", "over"):
        c = args[1]
        return {"scale": c * x, "shift": x + c, "from": c - x, "over": c / (square(x) + 1)}[op]
    if op in BINARY:
        y = values[args[1]]
        return {
            "+": lambda: x + y,
            "-": lambda: x - y,
            "*": lambda: x * y,
            "/": lambda: x / (square(y) + 1),
            "maximum": lambda: maximum(x, y),
            "where": lambda: where(x > y, x, 2 * y),
        }[op]()
    if op == "clock":
        return x * step_count()
    if op == "schedule":
        return x * scheduled(lambda t: 1.0 / (1 + t))
    if op == "split":
        y = values[args[1]]
        wide, others = split(x, matrices)
        chosen, _ = split(y, leaf_where(lambda leaf: leaf.ndim == 2))
        return merge((wide >> ema(0.5)) + chosen, 2 * others - global_sum(others))
    return _stateful(op, x, *args[1:])


def _stateful(op: str, x: Any, rate: float, k: int, phase: int) -> Any:
    if op == "ema":
        return x >> ema(rate)
    if op == "debiased":
        return x >> ema(rate) >> debias(rate)
    if op == "trace":
        return x >> trace(rate)
    if op == "delay":
        past = delay(x, 0.0)
        past << x
        return past
    if op == "feedback":
        past = delay(x, 0.5)
        return past << rate * past - x * (past - 1)
    if op == "every":
        return x >> every(k, trace(rate), phase=phase)
    if op == "reset":
        return x >> reset_every(k + 1, ema(rate))
    inner = flow(lambda g: g + (g >> named("mu", ema(rate))), name="inner")
    return x >> every(k, flow(lambda g: (g >> inner) * step_count(), name="counted"), phase=phase)


class Interpreter:
    """The program step by step on dictionaries of numpy arrays."""

    def __init__(self, program: list[tuple[Any, ...]]) -> None:
        self.program = program
        self.memory: dict[Any, Any] = {}
        self.t = 0

    def step(self, g: Any, params: Any) -> Any:
        """One step."""
        self.t += 1
        values = [g, params]
        for index, (op, *args) in enumerate(self.program):
            values.append(self._value(index, op, values, args))
        total = values[0]
        for value in values[1:]:
            total = {k: 0.5 * total[k] + value[k] for k in SHAPES}
        return total

    def _value(self, index: int, op: str, values: list[Any], args: list[Any]) -> Any:
        x = values[args[0]]
        y = values[args[1]] if op in (*BINARY, "split") else x
        c = args[1] if op in ("scale", "shift", "from", "over") else 0.0
        flat = np.concatenate([np.ravel(leaf) for leaf in x.values()])
        leafwise = {
            "negate": lambda a, b: -a,
            "abs": lambda a, b: np.abs(a),
            "square": lambda a, b: a * a,
            "sign": lambda a, b: np.sign(a),
            "tanh": lambda a, b: np.tanh(a),
            "global_norm": lambda a, b: a * 0 + np.sqrt(np.sum(flat**2)),
            "global_sum": lambda a, b: a * 0 + np.sum(flat),
            "leaf_norm": lambda a, b: a * 0 + np.sqrt(np.sum(a**2)),
            "leaf_mean": lambda a, b: a * 0 + np.mean(a),
            "scale": lambda a, b: c * a,
            "shift": lambda a, b: a + c,
            "from": lambda a, b: c - a,
            "over": lambda a, b: c / (a * a + 1),
            "+": lambda a, b: a + b,
            "-": lambda a, b: a - b,
            "*": lambda a, b: a * b,
            "/": lambda a, b: a / (b * b + 1),
            "maximum": lambda a, b: np.maximum(a, b),
            "where": lambda a, b: np.where(a > b, a, 2 * b),
            "clock": lambda a, b: a * self.t,
            "schedule": lambda a, b: a * (1.0 / (1 + (self.t - 1))),
        }
        if op in leafwise:
            return {k: leafwise[op](x[k], y[k]) for k in SHAPES}
        if op == "split":
            others = sum(np.sum(x[k]) for k in ("v", "z"))
            mean = self._ema((index, "m"), x["m"], 0.5)
            return {"m": mean + y["m"], **{k: 2 * x[k] - others for k in ("v", "z")}}
        return {k: self._stateful((index, k), op, x[k], *args[1:]) for k in SHAPES}

    def _ema(self, key: Any, x: Any, rate: float) -> Any:
        self.memory[key] = rate * self.memory.get(key, 0.0) + (1 - rate) * x
        return self.memory[key]

    def _stateful(self, key: Any, op: str, x: Any, rate: float, k: int, phase: int) -> Any:
        if op == "ema":
            return self._ema(key, x, rate)
        if op == "debiased":
            return self._ema(key, x, rate) / (1 - rate**self.t)
        if op == "trace":
            self.memory[key] = rate * self.memory.get(key, 0.0) + x
            return self.memory[key]
        if op == "delay":
            past, self.memory[key] = self.memory.get(key, 0.0 * x), x
            return past
        if op == "feedback":
            past = self.memory.get(key, 0.5)
            self.memory[key] = rate * past - x * (past - 1)
            return self.memory[key]
        if op == "reset":
            if (self.t - 1) % (k + 1) == 0:
                self.memory[key] = 0.0
            return self._ema(key, x, rate)
        if self.t % k == phase % k:
            if op == "every":
                self.memory[key] = rate * self.memory.get(key, 0.0) + x
            else:
                runs = self.memory[key, "runs"] = self.memory.get((key, "runs"), 0) + 1
                self.memory[key] = (x + self._ema((key, "mu"), x, rate)) * runs
        return self.memory.get(key, 0.0 * x)


def numbers(*seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {k: random.normal(size=shape) for k, shape in SHAPES.items()}


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(programs())
def test_a_flow_computes_what_its_program_says(program):
    with jax.enable_x64(True):
        opt, expected = as_flow(program), Interpreter(program)
        params = numbers(0)
        state = opt.init(jax.tree.map(jnp.asarray, params))
        structure = jax.tree.structure(state)
        update = jax.jit(opt.update)
        for t in range(1, STEPS + 1):
            g = numbers(t)
            out, state = update(jax.tree.map(jnp.asarray, g), state, params)
            wanted = expected.step(g, params)
            for name in SHAPES:
                scale = max(1.0, float(np.max(np.abs(wanted[name]))))
                np.testing.assert_allclose(out[name], wanted[name], rtol=1e-12, atol=1e-12 * scale)
        assert jax.tree.structure(state) == structure
