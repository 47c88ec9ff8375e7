"""Trained models: one model of several tasks, the models of a checkpoint, and the checkpoint's files."""
