"""The one door to fast paths: chains of spiking layers, run fast where an engine can.

Modules ask :func:`run` or :func:`attend` once per call, and run plainly where the answer is
``None``. Inside, one engine a device (``cpu/``) takes tensors and gives tensors; ``memory.py``
keeps spikes as bytes where there is no other. Nothing outside looks past this door.
"""

from mmspike.fused.checkpoint import checkpointed
from mmspike.fused.cpu.laid_out import can_lay_out, lay_out
from mmspike.fused.cuda_graphs import GraphedFeatures
from mmspike.fused.door import attend, run
from mmspike.fused.explain import Explanation, explain, explained
from mmspike.fused.memory import in_fastest_format, join_pixels, lay_out_weight
from mmspike.fused.protocols import AreConstant, Link, Normalise, SplitLayer, call, unknown
from mmspike.fused.switch import disabled, is_enabled

__all__ = [
    "AreConstant",
    "Explanation",
    "GraphedFeatures",
    "Link",
    "Normalise",
    "SplitLayer",
    "attend",
    "call",
    "can_lay_out",
    "checkpointed",
    "disabled",
    "explain",
    "explained",
    "in_fastest_format",
    "is_enabled",
    "join_pixels",
    "lay_out",
    "lay_out_weight",
    "run",
    "unknown",
]
