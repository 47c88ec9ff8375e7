"""One strict reader of rows: CSV, TSV, JSONL and Parquet files, plain or compressed with gzip.

Only the standard library is needed, and for Parquet pyarrow. Rows are read one after another, so memory does not grow
with a file. Every value comes as its text (`core.values.to_text`); nothing guesses types, an index or dates.
"""

from hyperformer.readers.files import FORMATS, RowFile, is_row_file
from hyperformer.readers.jsonl import parse_row, read_jsonl
from hyperformer.readers.texts import Missing, TextRow

__all__ = ["FORMATS", "Missing", "RowFile", "TextRow", "is_row_file", "parse_row", "read_jsonl"]
