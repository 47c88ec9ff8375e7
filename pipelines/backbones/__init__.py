"""Pretrained backbones that a stage downloads."""
