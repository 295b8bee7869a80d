"""Building blocks shared by backbones, necks and heads; without mmcv, they say so when imported."""

from mmspike.installed import require_mmcv

require_mmcv()
