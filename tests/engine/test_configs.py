"""Words about configs that several tools share."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from mmspike.engine.configs import use_scope


def test_models_of_several_hosts_follow_one_another_without_a_warning(capfd):
    MMLogger.get_instance("use_scope")
    for scope in ("mmdet", "mmseg", "mmdet", "mmdet", "mmseg"):
        use_scope(Config({"default_scope": scope}))
        assert DefaultScope.get_current_instance().scope_name == scope
    use_scope(Config({"default_scope": None}))  # of classes: as it was
    assert DefaultScope.get_current_instance().scope_name == "mmseg"
    assert capfd.readouterr() == ("", "")
