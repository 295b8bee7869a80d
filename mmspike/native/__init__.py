"""Kernels in C++ for the CPU, compiled when the package is installed, and the calls to them.

``kernels.h`` and what it includes are the kernels, ``native.cpp`` picks those of the processor,
``library.py`` loads them, ``conv.py`` takes tensors to them, as does ``neurons/kernels/native.py``.
Nothing here is needed to import or run the package: without a compiler at installation, plain torch
does the same, slower.
"""
