"""a"""
from .adam import adam, scale_by_adam
