"""Faster implementations of the dynamics in ``functional.py``, one file a backend."""
