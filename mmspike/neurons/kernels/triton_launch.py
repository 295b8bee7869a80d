"""Launches of Triton kernels that take microseconds of the processor."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


class Launch:
    """A kernel with all that is constant; called with what changes from call to call.

    Triton looks at every argument of every call to find the compiled kernel, which takes longer
    than a small kernel runs. Here that is done in the first call; later ones hand pointers to the
    compiled kernel. All calls give tensors of the same types, on the same device.

    Args:
        kernel: The kernel. Its pointers, and floats that change, come first.
        grid: Programs along up to three axes.
        sizes: What follows the pointers: whole numbers.
        constants: What the kernel is compiled with, in the order of its parameters or not.
        num_warps: Warps of a program.
    """

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        sizes: Sequence[int],
        constants: dict[str, Any],
        num_warps: int = 4,
    ) -> None:
        self.kernel, self.sizes, self.num_warps = kernel, tuple(sizes), num_warps
        self.grid = (*grid, 1, 1)[:3]
        names = list(kernel.arg_names)
        tail = names[len(names) - len(constants) :]
        if set(tail) != set(constants):
            raise TypeError(f"{kernel}: takes {tail}, got {sorted(constants)}")
        self.constants = tuple(constants[name] for name in tail)
        self._compiled: Any = None
        self._device = -1

    def __call__(self, *changing: Tensor | float) -> None:
        """Launch on the current stream of the tensors' device; the first is a tensor."""
        if self._compiled is None:
            self._first(changing)
            return
        arguments = []
        aligned = 0
        for value in changing:
            if isinstance(value, Tensor):
                value = value.data_ptr()
                aligned |= value
            arguments.append(value)
        if aligned & 15 or torch._C._cuda_getDevice() != self._device:
            self._plainly(changing)  # what is compiled takes pointers at multiples of 16 bytes
            return
        compiled = self._compiled
        compiled.run(
            *self.grid,
            torch._C._cuda_getCurrentRawStream(self._device),
            compiled.function,
            compiled.packed_metadata,
            None,
            None,
            None,
            *arguments,
            *self.sizes,
            *self.constants,
        )

    def _first(self, changing: Sequence[Any]) -> None:
        compiled = self._plainly(changing)
        pointers = [x.data_ptr() for x in changing if isinstance(x, Tensor)]
        quick = getattr(compiled, "packed_metadata", None) is not None
        if quick and not any(pointer & 15 for pointer in pointers):
            self._compiled, self._device = compiled, changing[0].device.index

    def _plainly(self, changing: Sequence[Any]) -> Any:
        with _device_of(changing[0]):
            return self.kernel[self.grid](
                *changing, *self.sizes, *self.constants, num_warps=self.num_warps
            )


def _device_of(x: Tensor) -> AbstractContextManager:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()  # else interpreted
