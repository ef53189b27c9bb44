"""Variance-reduced methods."""
