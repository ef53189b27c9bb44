"""Keeping the state of any transformation in less memory."""

from .blockwise import dequantize_blockwise, dynamic_codebook, quantize_blockwise
from .quantized import quantize_state
from .rounded import stochastically_rounded, store_state

__all__ = [
    "dequantize_blockwise",
    "dynamic_codebook",
    "quantize_blockwise",
    "quantize_state",
    "stochastically_rounded",
    "store_state",
]
