"""Momentum methods."""
