"""Averaging methods: evaluation weights are averages of the iterates."""

__all__ = []
