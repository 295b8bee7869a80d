"""What happened to a checkpoint's tensors, and why they do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from mmspike.checkpoints.sources import Source, arch_of, shorten
from mmspike.checkpoints.upstream import family_of


def is_in(name: str, part: str) -> bool:
    """Whether a tensor is a part of a model, or in one, by their names."""
    return f"{name}.".startswith(f"{part}.")


@dataclass(frozen=True)
class LoadReport:
    """What happened to the tensors of a checkpoint.

    Attributes:
        file: The file.
        source: What kind of checkpoint it is, in words.
        loaded: Names, as the model has them, of the tensors that were loaded.
        missing: Names of the model's tensors that the file does not have, and should.
        new: Names of those that it need not have, and does not.
        mismatched: Names of tensors whose shape differs, with shape in the file and in the model.
        unexpected: Names of backbone tensors that the model does not have.
        ignored: Names of the file's tensors outside the backbone.
        reshaped: Names of tensors stored in another shape of equal numbers.
        dtypes: How many tensors the file stores in which type.
        sha256: Hash of the file, hexadecimal.
    """

    file: str
    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    dtypes: dict[str, int] = field(default_factory=dict)
    sha256: str = ""
    new: list[str] = field(default_factory=list)

    def with_new(self, parts: Sequence[str]) -> LoadReport:
        """The same, where tensors of some parts of the model need not be in the file.

        Args:
            parts: Names of tensors, or of the parts of the model that they are in.
        """
        new = [name for name in self.missing if any(is_in(name, part) for part in parts)]
        missing = [name for name in self.missing if name not in new]
        return replace(self, missing=missing, new=new)

    @property
    def fits(self) -> bool:
        """Whether file and model have the same tensors."""
        return not (self.missing or self.mismatched or self.unexpected)

    def __str__(self) -> str:
        """One line for the log."""
        wanted = [*self.loaded, *self.missing, *self.new, *self.mismatched]
        what = "backbone" if not any(n.startswith("head") for n in wanted) else "classifier"
        source = with_article(self.source)
        line = f"loaded {len(self.loaded)} of {len(wanted)} {what} tensors from {source}"
        if self.new:
            line += f"; new {shorten(self.new)}"
        if self.missing:
            line += f"; missing {shorten(self.missing)}"
        if self.mismatched:
            line += f"; of another shape {shorten(self.mismatched)}"
        if self.unexpected:
            line += f"; not in the model {shorten(self.unexpected)}"
        if self.ignored:
            line += f"; ignored {_group(self.ignored)}"
        return f"{line} ({self.file})"


def explain_misfit(
    report: LoadReport, source: Source, targets: Mapping[str, Tensor], part: str
) -> str:
    """Say what does not fit, and guess why.

    Args:
        report: What happened to the tensors.
        source: What the file holds.
        targets: The model's tensors.
        part: What the names of the backbone's tensors start with in ``targets``.
    """
    lines = [f"checkpoint {report.file}, {with_article(report.source)}, does not fit the model:"]
    if report.missing:
        lines.append(f"  missing: {shorten(report.missing)}")
    if report.mismatched:
        shapes = [f"{k} {list(a)}, not {list(b)}" for k, (a, b) in report.mismatched.items()]
        lines.append(f"  of another shape: {shorten(shapes)}")
    if report.unexpected:
        lines.append(f"  not in the model: {shorten(report.unexpected)}")
    cause = _guess(source, {k.removeprefix(part): v for k, v in targets.items()}, report)
    if cause:
        lines.append(f"  {cause}")
    return "\n".join(lines)


def _guess(source: Source, targets: Mapping[str, Tensor], report: LoadReport) -> str:
    family = family_of(targets)
    if source.family is not family:
        given, wanted = (with_article(f.name) for f in (source.family, family))
        return f"this is a file of {given}; the model is {wanted}"
    theirs, ours = arch_of(source.backbone), arch_of(targets)
    if theirs is not None and theirs != ours:
        for name, arch in family.archs.items():
            if list(arch.embed_dims) == theirs:
                return f"these widths are the {name} model's: set arch='{name}'"
        return f"the file's widths are {theirs}: set arch=dict(embed_dims={theirs}, num_heads=...)"
    stem = "stages.0.downsample.layer.weight"
    if stem in source.backbone and source.backbone[stem].shape != targets[stem].shape:
        channels = source.backbone[stem].size(1)
        return f"the file is for images of {channels} channels: set in_channels={channels}"
    heads = [name for name in report.mismatched if name.startswith("head")]
    if heads:
        classes = report.mismatched[heads[0]][0][0]
        return f"the file's heads have {classes} classes: set num_classes={classes}"
    in_config = "head.head.weight" in targets  # of a SpikeClsHead
    distilled = "model.head.distillation" if in_config else "distilled"
    if any("head_kd." in name for name in report.unexpected):
        return f"the file has a second head, of a distilled model: set {distilled}=True"
    if report.missing and all(name.startswith("head") for name in report.missing):
        if source.heads:
            second = report.missing[0].rpartition(".")[0]
            key = "model.init_cfg." if in_config else ""
            return (
                f"the file has no second head: set {distilled}=False; or, to train one, "
                f"{key}allow_missing=[{second!r}]"
            )
        return "the file has no classification head: load it into model.backbone"
    if report.missing and not report.mismatched:
        return "the file holds a part of the backbone only; strict=False loads what there is"
    return ""


def _group(names: list[str]) -> str:
    """Names, or the parts of a model that they belong to where there are many."""
    if len(names) <= 4:
        return ", ".join(names)
    parts = Counter(name.split(".")[0] for name in names)
    return shorten([f"{part}.* ({count})" for part, count in parts.items()], 6)


def with_article(noun: str) -> str:
    """``a`` or ``an``, and a noun."""
    return f"{'an' if noun[0].lower() in 'aeiou' or noun.startswith('mm') else 'a'} {noun}"
