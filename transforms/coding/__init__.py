"""Gradient coding: the whole gradient from the workers that answer."""

from .codes import assigned_parts, cyclic_code, repetition_code
from .decoding import decode, decode_weights, encode

__all__ = [
    "assigned_parts",
    "cyclic_code",
    "decode",
    "decode_weights",
    "encode",
    "repetition_code",
]
