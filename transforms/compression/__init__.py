"""Compressors: what a worker sends in place of a whole gradient, and what becomes of the rest."""

from .compressor import Coded, Compressor, compress, exchange, of_vectors
from .dct import chunked_dct
from .feedback import compress_differences, compress_with_error_feedback
from .power_iteration import power_iteration
from .quantised import quantised
from .signs import scaled_sign
from .sparse import rand_k, top_fraction, top_k

__all__ = [
    "Coded",
    "Compressor",
    "chunked_dct",
    "compress",
    "compress_differences",
    "compress_with_error_feedback",
    "exchange",
    "of_vectors",
    "power_iteration",
    "quantised",
    "rand_k",
    "scaled_sign",
    "top_fraction",
    "top_k",
]
