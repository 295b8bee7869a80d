"""Checks before the first step: whether data, classes, heads and schedule of a config agree.

Seconds, where the same mistakes cost minutes to hours: most of them end in an error without a name,
or in none at all, as a detector with the wrong number of classes. The annotation file is read once,
no image is opened, and twenty label maps are.

What is not known for sure is not judged: data sets of unknown types are left out with a line.

``check.py`` runs all of it; ``report.py`` collects what is found; the rest is a file per topic.
"""

from mmspike.engine.preflight.check import preflight

__all__ = ["preflight"]
