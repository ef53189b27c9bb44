"""The flow notation: transformations written as functions of signals."""
