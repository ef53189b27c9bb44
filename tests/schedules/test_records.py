"""Every schedule against recorded runs of published code (`source` in each record's `meta`)."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from gradchain import schedules

RECORDS = sorted((Path(__file__).parent.parent / "references" / "schedules").glob("*.npz"))
APIS = {"ademamix_schedules": "ademamix_alpha_schedule"}


def load(path):
    with np.load(path) as record:
        arrays = {key: record[key] for key in record}
    return json.loads(str(arrays.pop("meta"))), arrays


def test_there_is_a_record_of_each_card():
    assert len(RECORDS) == 15


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_agrees_with_the_record(path):
    meta, arrays = load(path)
    factory = getattr(schedules, meta["api"])
    problem = {k.split("/")[1]: v for k, v in arrays.items() if k.startswith("problem/")}
    with jax.enable_x64(True):
        if meta["kind"] == "law":
            law = factory(**problem, **meta["kwargs"])
            for key, expected in arrays.items():
                if key.startswith("values/"):
                    actual = getattr(law, key.split("/")[1], law)
                    np.testing.assert_allclose(actual, expected, rtol=1e-12)
            return
        made = factory(**problem, **meta["kwargs"])
        schedule = made if callable(made) else schedules.as_schedule(made)
        one_by_one = [schedule(int(step)) for step in arrays["steps"]]
        together = jax.jit(schedule)(arrays["steps"])
    np.testing.assert_allclose(one_by_one, arrays["values"], rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(together, arrays["values"], rtol=1e-12, atol=1e-16)
    assert np.ptp(arrays["values"]) > 0


def test_average_density_agrees_with_the_record():
    path = next(path for path in RECORDS if path.stem == "pruning_schedule__defaults")
    meta, arrays = load(path)
    schedule = schedules.pruning_schedule(**meta["kwargs"])
    with jax.enable_x64(True):
        mean = schedules.average_parameter_count(1, schedule, meta["kwargs"]["total_steps"])
    np.testing.assert_allclose(mean, arrays["average_density"], rtol=1e-12)
