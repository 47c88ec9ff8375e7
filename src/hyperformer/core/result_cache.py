"""A cache of results in JSON files, each of which is valid only for the inputs that it was computed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperformer.core.files import is_damage, write_text


def read_cached(file: Path, origin: Mapping[str, Any]) -> Any:
    """Return the result that `write_cached` wrote for the same origin; None if there is none or it is damaged."""
    try:
        cached = json.loads(file.read_text(encoding="utf-8"))
        return cached["result"] if cached["sha256"] == _compute_checksum(origin, cached["result"]) else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not is_damage(error):
            raise
        return None


def write_cached(file: Path, origin: Mapping[str, Any], result: Any) -> None:
    """Write a result to a file, which is replaced atomically.

    Args:
        file: the file.
        origin: everything that the result depends on, as JSON values.
        result: the result, as JSON values.
    """
    cached = {"sha256": _compute_checksum(origin, result), "result": result}
    write_text(file, json.dumps(cached, indent=2, ensure_ascii=False) + "\n")


def _compute_checksum(origin: Mapping[str, Any], result: Any) -> str:
    return hashlib.sha256(json.dumps([origin, result], sort_keys=True).encode()).hexdigest()
