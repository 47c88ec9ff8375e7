"""Readers of rows, with the standard library only."""

from hyperformer.readers.files import READERS, Row, parse_row, read_file, read_jsonl, require_rows

__all__ = ["READERS", "Row", "parse_row", "read_file", "read_jsonl", "require_rows"]
