"""Methods of the family against their rules in NumPy, at settings off the defaults."""

import pytest
from gradchain import optimizers


def test_innaprop_refuses_a_rate_that_is_not_below_beta():
    with pytest.raises(ValueError, match="learning_rate"):
        optimizers.innaprop(1.0, beta=0.9)


def test_fadam_without_decay_needs_no_params():
    assert "params" not in optimizers.fadam(0.1, weight_decay=0.0).needs
    assert "params" in optimizers.fadam(0.1).needs
