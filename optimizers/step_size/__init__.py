"""Step-size rules: the learning rate comes from the loss or the path."""

__all__ = []
