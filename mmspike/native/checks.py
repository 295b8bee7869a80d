"""What is checked before a kernel gets a pointer: it reads and writes memory without looking."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from mmspike.native.library import ConvStruct


def _is_channels_last(x: Tensor) -> bool:
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):  # the usual case
        return True
    return x.dim() > 2 and (x.numel() == 0 or _are_channels_last(x.shape, x.stride()))


@lru_cache(maxsize=4096)
def _are_channels_last(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    order = (len(shape) - 3, len(shape) - 1, len(shape) - 2, *reversed(range(len(shape) - 3)))
    for axis in order:
        if shape[axis] != 1 and strides[axis] != expected:
            return False
        expected *= shape[axis]
    return True


LAYOUTS: dict[str, Callable[[Tensor], bool]] = {
    "contiguous": Tensor.is_contiguous,
    "[..., C, H, W] with the channels last in memory": _is_channels_last,
    "each row dense in memory": lambda x: x.is_contiguous() or x.size(1) <= 1 or x.stride(1) == 1,
    "in any layout": lambda x: x.layout == torch.strided,
}
CONTIGUOUS, CHANNELS_LAST, ROWS, STRIDED = LAYOUTS


def pointer(
    name: str,
    x: Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    layout: str = CONTIGUOUS,
) -> int:
    """Where a tensor begins, if it is what a kernel expects.

    Args:
        name: Of the argument, for the error.
        x: The tensor.
        shape: Expected.
        dtype: Expected.
        layout: Expected, of :data:`LAYOUTS`.

    Raises:
        TypeError: If it is no tensor, or of another type.
        ValueError: If it is of another shape, in another layout, or not on the CPU.
    """
    if (
        isinstance(x, Tensor)
        and x.dtype == dtype
        and x.is_cpu
        and x.shape == shape
        and LAYOUTS[layout](x)
    ):
        return x.data_ptr()
    wanted = f"{name}: expected {dtype} of shape {tuple(shape)}, {layout}, on the CPU"
    if not isinstance(x, Tensor):
        raise TypeError(f"{wanted}; got {type(x).__name__}")
    strides = f"strides {x.stride()}" if x.layout == torch.strided else str(x.layout)
    given = f"{wanted}; got {x.dtype} of shape {tuple(x.shape)}, {strides}, on {x.device}"
    raise (TypeError if x.dtype != dtype else ValueError)(given)


def bits_pointer(bits: Tensor, images: int, size: int) -> tuple[int, int]:
    """Where spikes begin, and over how many steps they go.

    Args:
        bits: ``[T, bytes of a step]``.
        images: Of all steps together.
        size: Elements of an image.

    Raises:
        TypeError: If ``bits`` is no tensor, or not of bytes.
        ValueError: If it is not of the size that the images take.
    """
    steps = bits.size(0) if isinstance(bits, Tensor) and bits.dim() == 2 else 1
    if steps == 0 or images % steps:
        raise ValueError(
            f"bits: expected [T, bytes of a step], where T divides the {images} images of all "
            f"steps; got shape {tuple(bits.shape)}"
        )
    return pointer("bits", bits, (steps, (images // steps * size + 7) // 8), torch.uint8), steps


def check_conv(conv: ConvStruct, unit_stride: bool = False) -> None:
    """Refuse what :func:`mmspike.native.conv.geometry` did not give.

    Raises:
        TypeError: If it is something else.
        ValueError: If a stride of 1 is wanted, and it has another.
    """
    if type(conv) is not ConvStruct:
        raise TypeError(f"conv: expected what geometry() gives, got {type(conv).__name__}")
    if unit_stride and not conv.stride_height == conv.stride_width == 1:
        raise ValueError(
            f"conv: expected a stride of 1, got {conv.stride_height} x {conv.stride_width}"
        )
