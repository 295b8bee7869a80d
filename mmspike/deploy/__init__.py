"""Folding and re-parameterising a trained model for inference."""

from mmspike.deploy.folding import fold_rep_conv

__all__ = ["fold_rep_conv"]
