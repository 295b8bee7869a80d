"""Child registries of mmengine's, in the scope ``mmspike``, and the places they load from.

A config names a module as ``mmspike.MetaSpikeFormer`` and needs no ``custom_imports``. Modules that
need mmdet, mmseg or mmpretrain live one scope deeper (``mmspike.det.SpikeRPNHead``,
``mmspike.seg.SpikeFPNHead``, ``mmspike.cls.SpikeClsHead``), so that a host is imported only when
such a name is looked up.
"""

from mmengine import registry as _mmengine
from mmengine.config import utils as _config_utils
from mmengine.registry import HOOKS as _MMENGINE_HOOKS
from mmengine.registry import METRICS as _MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as _MMENGINE_WRAPPERS
from mmengine.registry import MODELS as _MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as _MMENGINE_CONSTRUCTORS
from mmengine.registry import TASK_UTILS as _MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as _MMENGINE_TRANSFORMS
from mmengine.registry import VISUALIZERS as _MMENGINE_VISUALIZERS
from mmengine.registry import Registry

# Lets configs elsewhere write ``_base_ = "mmspike::mask_rcnn/..."``, once this module is imported.
_config_utils.MODULE2PACKAGE.setdefault("mmspike", "mmspike")
# mmengine looks for "mmseg::" in a distribution named mmsegmentation, whoever publishes it, and so
# on; the modules are found under their own names.
_config_utils.MODULE2PACKAGE.update(mmseg="mmseg", mmpretrain="mmpretrain")


class RegistryWithRooms(Registry):
    """A registry below which others are, one for each host: ``mmspike.det``, ``mmspike.seg``.

    mmengine takes a scope for a package, and imports its ``registry``. There is no package ``det``
    of ours, but the folder in which a user's program runs may have a ``det.py``, which would run.
    """

    def get(self, key: str) -> type | None:
        """Get what is registered by a name; see mmengine.

        Args:
            key: A name, with or without a scope: ``SpikeFPN``, ``det.SpikeRPNHead``.

        Raises:
            RuntimeError: If nothing is.
        """
        scope, name = self.split_scope_key(key)
        return self.children[scope].get(name) if scope in self.children else super().get(key)


_HERE = [__name__]  # of registries with nothing to load: without locations, mmengine warns

MODELS = RegistryWithRooms(
    "model",
    parent=_MMENGINE_MODELS,
    scope="mmspike",
    locations=["mmspike.neurons", "mmspike.backbones", "mmspike.necks"],
)
DET_MODELS = Registry("det model", parent=MODELS, scope="det", locations=["mmspike.det"])
SEG_MODELS = Registry("seg model", parent=MODELS, scope="seg", locations=["mmspike.seg"])
CLS_MODELS = Registry("cls model", parent=MODELS, scope="cls", locations=["mmspike.cls"])
TASK_UTILS = RegistryWithRooms(
    "task util", parent=_MMENGINE_TASK_UTILS, scope="mmspike", locations=_HERE
)
DET_TASK_UTILS = Registry(
    "det task util", parent=TASK_UTILS, scope="det", locations=["mmspike.det"]
)
METRICS = RegistryWithRooms("metric", parent=_MMENGINE_METRICS, scope="mmspike", locations=_HERE)
SEG_METRICS = Registry("seg metric", parent=METRICS, scope="seg", locations=["mmspike.seg"])
TRANSFORMS = RegistryWithRooms(
    "transform", parent=_MMENGINE_TRANSFORMS, scope="mmspike", locations=_HERE
)
SEG_TRANSFORMS = Registry(
    "seg transform", parent=TRANSFORMS, scope="seg", locations=["mmspike.seg"]
)
VISUALIZERS = RegistryWithRooms(
    "visualizer", parent=_MMENGINE_VISUALIZERS, scope="mmspike", locations=_HERE
)
DET_VISUALIZERS = Registry(
    "det visualizer", parent=VISUALIZERS, scope="det", locations=["mmspike.det"]
)
HOOKS = Registry(
    "hook",
    parent=_MMENGINE_HOOKS,
    scope="mmspike",
    locations=[
        "mmspike.engine.compile_hook",
        "mmspike.engine.cuda_graph_hook",
        "mmspike.engine.fused_hook",
        "mmspike.engine.finite_hook",
        "mmspike.engine.spike_stats_hook",
        "mmspike.engine.fit_hook",
        "mmspike.engine.exact_resume_hook",
        "mmspike.engine.atomic_checkpoint_hook",
    ],
)
MODEL_WRAPPERS = Registry(
    "model wrapper",
    parent=_MMENGINE_WRAPPERS,
    scope="mmspike",
    locations=["mmspike.engine.distributed"],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=_MMENGINE_CONSTRUCTORS,
    scope="mmspike",
    locations=["mmspike.engine.optim"],
)
PARAM_SCHEDULERS = Registry(
    "parameter scheduler",
    parent=_mmengine.PARAM_SCHEDULERS,
    scope="mmspike",
    locations=["mmspike.engine.schedulers"],
)

# ``mmspike::`` puts all of a config that names no other scope into ours. We have nothing of our own
# in these registries: they pass names on to mmengine's, which otherwise warns of every look-up.
for _name in (
    "DATASETS",
    "DATA_SAMPLERS",
    "EVALUATOR",
    "LOG_PROCESSORS",
    "LOOPS",
    "OPTIMIZERS",
    "OPTIM_WRAPPERS",
    "RUNNERS",
    "VISBACKENDS",
    "WEIGHT_INITIALIZERS",
):
    _parent = getattr(_mmengine, _name)
    Registry(_parent.name, parent=_parent, scope="mmspike", locations=_HERE)
