"""Variance-reduced methods."""

__all__ = []
