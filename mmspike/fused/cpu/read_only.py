"""Weights that cannot be written to, so that what was computed from them stays true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, SupportsIndex

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only


class ReadOnlyWeight(Tensor):
    """A parameter that is read as any other, and refuses to be written to.

    Beside the numbers it keeps other layouts of them. A layout that was made once is right for
    ever, since nothing reaches the numbers: not in-place operators, optimizers or ``out=``, not
    ``.data``, views, NumPy or pointers. Results of operators are ordinary tensors; views are read
    only, too. A file of it holds ordinary numbers.

    Args:
        plain: The numbers; nobody else may write to them.

    Attributes:
        plain: The numbers, an ordinary tensor, for kernels.
        layouts: Whatever was made of them, by name.
    """

    plain: Tensor
    layouts: dict[Any, Tensor]
    __torch_function__ = torch._C._disabled_torch_function_impl  # as nn.Parameter

    @staticmethod
    def __new__(cls: type, plain: Tensor) -> ReadOnlyWeight:  # noqa: D102
        with torch.inference_mode(False):  # or torch could not make views of it
            weight = Tensor._make_wrapper_subclass(
                cls, plain.shape, strides=plain.stride(), dtype=plain.dtype, device=plain.device
            )
        weight.plain = plain.detach()
        weight.layouts = {}
        weight._is_param = True  # by which torch knows parameters of other classes
        return weight

    def layout(self, name: Any, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Another layout of the numbers, made at the first call.

        Args:
            name: What it is kept by.
            make: Makes it from the plain numbers.
        """
        if name not in self.layouts:
            self.layouts[name] = make(self.plain)
        return self.layouts[name]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operator on the plain numbers, unless it writes to them."""
        kwargs = kwargs or {}
        schema = func._schema
        given = dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs
        written = [given.get(a.name) for a in schema.arguments if a.is_write]
        if any(isinstance(x, cls) for x in tree_leaves(written)):
            _refuse(func.name())
        plain = [tree_map_only(cls, lambda w: w.plain, x) for x in (args, kwargs)]
        out = func(*plain[0], **plain[1])
        if any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns):
            return tree_map_only(Tensor, cls, out)  # a view of the numbers
        return out

    @property
    def data(self) -> Tensor:
        """The weight itself, as read-only as it is."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> NoReturn:
        _refuse("data")

    def _no_memory(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("its memory")

    data_ptr = storage = untyped_storage = share_memory_ = __dlpack__ = _no_memory

    def tolist(self) -> Any:
        """The numbers as lists."""
        return self.plain.tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"ReadOnlyWeight({self.plain!r})"

    def __deepcopy__(self, memo: dict) -> ReadOnlyWeight:
        return self  # what never changes needs no copy

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return self.plain.__reduce_ex__(protocol)


def plain(weight: Tensor) -> Tensor:
    """The ordinary tensor of a weight."""
    return weight.plain if isinstance(weight, ReadOnlyWeight) else weight


def _refuse(what: str) -> NoReturn:
    raise RuntimeError(
        f"{what}: the weight of a deployed layer is read-only, since other layouts of it are in "
        "use. Copy it (.clone()), change weights before switch_to_deploy, load others with "
        "load_state_dict, or deploy with lay_out=False"
    )
