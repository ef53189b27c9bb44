"""Runs by hand of wrapped optimizers."""

import gradchain

B1, B2, EPS = 0.7, 0.9, 1e-3


both = lambda state, params: (params, gradchain.eval_params(state, params))  # noqa: E731
