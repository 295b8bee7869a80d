"""Kernels in C++ for the CPU, compiled when the package is installed, and the calls to them.

``csrc/`` is the C++; ``library.py`` loads what was compiled of it; the other files call it, one a
kind. Nothing here is needed to import or run the package: without a compiler at installation, plain
torch does the same, slower.
"""
