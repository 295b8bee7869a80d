"""What ``init_weights`` logs."""

from __future__ import annotations

import pytest
from mmengine.logging import MMLogger

from mmspike import MetaSpikeFormer, SpikeFPN

ARCH = dict(embed_dims=[8, 8, 8, 8], num_heads=2)


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_one_line_unless_all_is_asked_for(level, capsys):
    MMLogger.get_instance("init_log", log_level=level)
    model = MetaSpikeFormer(arch=ARCH)
    model.init_weights()
    lines = [line for line in capsys.readouterr().out.splitlines() if "mmengine" in line]
    count = len(list(model.parameters()))
    total = sum(p.numel() for p in model.parameters())
    expected = f"initialised MetaSpikeFormer: {count} parameters, {total:,} numbers"
    assert lines[0].endswith(expected) if level == "INFO" else any(expected in x for x in lines)
    assert len(lines) == 1 if level == "INFO" else len(lines) > count


def test_a_neck_logs_one_line(capsys):
    MMLogger.get_instance("init_log_neck")
    SpikeFPN([8, 8, 8, 8], out_channels=8, num_outs=5).init_weights()
    assert capsys.readouterr().out.count("\n") == 1
