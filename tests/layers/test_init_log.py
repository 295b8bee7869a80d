"""What ``init_weights`` logs."""

from __future__ import annotations

import pytest
from mmengine.logging import MMLogger
from mmengine.model import BaseModule

from mmspike import MetaSpikeFormer, SpikeFPN
from mmspike.layers.init_log import use_init_log

ARCH = dict(embed_dims=[8, 8, 8, 8], num_heads=2)


class Host(BaseModule):
    """A host's model with a spiking backbone."""

    def __init__(self):
        super().__init__()
        self.backbone = MetaSpikeFormer(arch=ARCH)


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
@pytest.mark.parametrize("name", ["MetaSpikeFormer", "Host"])
def test_one_line_unless_all_is_asked_for(name, level, capsys):
    MMLogger.get_instance("init_log", log_level=level)
    model = MetaSpikeFormer(arch=ARCH) if name == "MetaSpikeFormer" else Host()
    use_init_log(model)
    model.init_weights()
    lines = [line for line in capsys.readouterr().out.splitlines() if "mmengine" in line]
    count = len(list(model.parameters()))
    total = sum(p.numel() for p in model.parameters())
    expected = f"initialised {name}: {count} parameters, {total:,} numbers"
    assert lines[0].endswith(expected) if level == "INFO" else any(expected in x for x in lines)
    assert len(lines) == 1 if level == "INFO" else len(lines) > count


def test_a_neck_logs_one_line(capsys):
    MMLogger.get_instance("init_log_neck")
    SpikeFPN([8, 8, 8, 8], out_channels=8, num_outs=5).init_weights()
    assert capsys.readouterr().out.count("\n") == 1
