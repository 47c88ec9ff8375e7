"""Checks before a run: what can be refused before any work starts."""
