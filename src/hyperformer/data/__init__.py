"""Rows: read them from their sources, split, profile and store them, and store their token ids."""
