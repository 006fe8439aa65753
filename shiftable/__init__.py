"""Swap clouds by configuration only."""

__version__ = "0.1.0"
