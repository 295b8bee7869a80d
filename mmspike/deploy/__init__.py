"""Folding and re-parameterising a trained model for inference."""

from mmspike.deploy.frames import UnrollReport, unroll
from mmspike.deploy.frames_check import UnrollCheck, check_unrolled
from mmspike.deploy.switch import DeployReport, switch_to_deploy

__all__ = [
    "DeployReport",
    "UnrollCheck",
    "UnrollReport",
    "check_unrolled",
    "switch_to_deploy",
    "unroll",
]
