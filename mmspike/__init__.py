"""Dense prediction with spiking neural networks, as an OpenMMLab plugin.

Importing this package loads nothing heavy: modules are found through
:mod:`mmspike.registry` when a config names them.
"""

__version__ = "0.1.0"
