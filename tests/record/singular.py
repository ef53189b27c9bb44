"""Singular vectors in float64, of one sign."""

import numpy as np


def leading(matrix, rank):
    """The leading left ones as columns and right ones as rows, their largest entries positive."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    left, right = left[:, :rank], right[:rank]
    return left * _signs(left.T), right * _signs(right)[:, None]


def _signs(rows):
    return np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])
