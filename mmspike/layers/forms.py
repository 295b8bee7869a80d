"""Two forms of one layer, as trained and deployed, that are never taken for one another.

Folding norms into weights changes the weights and keeps their names. A deployed layer therefore has
one tensor more in its state dict, the mark; a layer as it is trained has none, and its state dict
is what it always was. Each refuses what the other saved, and does so however it is loaded:
``load_state_dict(strict=False)`` and mmengine's loading go on where names are missing or left over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

MARK = "deployed_form"
"""Name of the mark, below that of the layer."""

FORMS = (
    "as trained",
    "deployed",
    "deployed with rep_conv='cheapest'",
    "deployed with rep_conv='conv3x3'",
    *(f"unrolled to {d} frames of {unit}" for unit in ("n / D", "n") for d in range(1, 256)),
)
"""Forms by the number that a mark has; as it is trained, a layer has no mark."""


class FormError(RuntimeError):
    """Weights are of another form than the model; the message says which, and what to do."""


class Deployable(nn.Module):
    """A layer that has a deployed form."""

    form = 0

    def mark(self, form: str) -> None:
        """Mark that the layer's weights are of another form from now on.

        Args:
            form: One of ``FORMS`` but the first.
        """
        self.form = FORMS.index(form)
        device = next((p.device for p in self.parameters()), None)
        self.register_buffer(MARK, torch.tensor(self.form, dtype=torch.int16, device=device))

    def check_form(self, state_dict: Mapping[str, Tensor], prefix: str) -> None:
        """Refuse weights of another form.

        Args:
            state_dict: Tensors to load, of this layer or of a model around it.
            prefix: What the names of this layer's tensors begin with.

        Raises:
            FormError: If there are tensors of this layer, and they are of another form.
        """
        mark = state_dict.get(prefix + MARK)
        if mark is None and not any(name.startswith(prefix) for name in state_dict):
            return
        given = 0 if mark is None else int(mark)
        if given != self.form:
            raise FormError(_explain(prefix.removesuffix("."), given, self.form))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any
    ) -> None:
        self.check_form(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def check_forms(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Refuse weights of another form than the model's before any of them is loaded.

    Args:
        model: Any model.
        state_dict: What is to be loaded into it.

    Raises:
        FormError: See :meth:`Deployable.check_form`.
    """
    for name, module in model.named_modules():
        if isinstance(module, Deployable):
            module.check_form(state_dict, f"{name}." if name else "")


def _explain(name: str, given: int, here: int) -> str:
    form = FORMS[given] if given < len(FORMS) else f"of a form that is not known here ({given})"
    text = (
        f"{name or 'model'}: the weights are {form}, the model is {FORMS[here]}: under the same "
        "names, these are other numbers. "
    )
    if form.startswith("unrolled") or FORMS[here].startswith("unrolled"):
        return (
            f"{text}Load the weights as they were trained, before mmspike.deploy.unroll is called, "
            "or what a model of the same form has saved"
        )
    if here == 0:
        call = form.partition(" with ")[2]
        call = f"switch_to_deploy(model, {call})" if call else "switch_to_deploy(model)"
        return f"{text}Call mmspike.deploy.{call} first, or load the checkpoint that was trained"
    if given == 0:
        return (
            f"{text}Load them before mmspike.deploy.switch_to_deploy is called (mmengine's runner "
            "loads load_from when its run begins), or load what a deployed model has saved"
        )
    return f"{text}Switch the model with the rep_conv of the weights"
