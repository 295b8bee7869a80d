"""Folding and re-parameterising a trained model for inference."""

from mmspike.deploy.switch import DeployReport, switch_to_deploy

__all__ = ["DeployReport", "switch_to_deploy"]
