"""A config that inherits what is not there ends in one line, from whichever tool reads it."""

from __future__ import annotations

import pytest

from tests.tools.helpers import run

OWN = "mmspike::mask_rcnn/mask-rcnn_metaspikeformer-4m_t1_1xb4-800it_own-masks.py"
CASES = [
    (OWN.replace("masks.py", "mask.py"), f'is not there; near it lies "{OWN}"'),
    (OWN.replace(".py", ""), f'is not there; near it lies "{OWN}"'),
    ("mmspik::mask_rcnn/a.py", "is not there: mmengine knows no 'mmspik', but 'mmspike'"),
    (
        "mmspike::mask_rcnn_metaspike_coco.py",
        "mmspike's configs by FOLDER/NAME.py; near it lies "
        '"mmspike::_base_/../mask_rcnn_metaspike_coco.py"',
    ),
    ("mmdet::a/b.py", "is not there"),
    ("./midle.py", 'is not there; near it lies "./middle.py"'),
]


@pytest.mark.parametrize(("base", "advice"), CASES, ids=[base for base, _ in CASES])
def test_training_names_config_base_and_what_lies_near(base, advice, tmp_path):
    config = tmp_path / "mine.py"
    (tmp_path / "middle.py").write_text("a = 1\n")
    config.write_text(f'_base_ = "{base}"\n')
    (line,) = run("train.py", config, ok=False).splitlines()
    assert line.startswith(f'{config}: _base_ = "{base}" is not there')
    assert line.endswith(advice)


def test_energy_names_the_config_in_between(tmp_path):
    (tmp_path / "middle.py").write_text('_base_ = "mmdet::_base_/default_runtim.py"\n')
    (tmp_path / "mine.py").write_text('_base_ = "middle.py"\n')
    out = run("analysis_tools/get_energy.py", tmp_path / "mine.py", ok=False)
    place = f'{tmp_path}/middle.py: _base_ = "mmdet::_base_/default_runtim.py"'
    assert out.endswith(f'get_energy: {place} is not there; near it lies "mmdet::_base_/'
                        'default_runtime.py"\n')  # fmt: skip


def test_pure_python_configs_end_in_a_line_too(tmp_path):
    config = tmp_path / "pure.py"
    config.write_text(
        "from mmengine.config import read_base\n"
        "with read_base():\n    from mmspike.configs.mask_rcnn.nothing import *\n"
    )
    out = run("train.py", config, ok=False)
    assert out.startswith(f"{config}: ")
    assert "nothing.py not found" in out
    assert "Traceback" not in out
