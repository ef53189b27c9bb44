"""a"""
from .adaptive import *
