"""Fuzz the loading of bundles: with any files, a bundle either answers or is refused with a HyperFormerError.

    pip install atheris
    python tests/integration/fuzzing/fuzz_bundle.py BUNDLE FINDINGS -max_total_time=600

BUNDLE is the folder of an exported task. An input with any other outcome ends the run and is saved in FINDINGS.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256
from hyperformer.core.manifest import GRAPH, MANIFEST, TOKENIZER
from hyperformer.runtime import load

ALTERED = (MANIFEST, TOKENIZER, GRAPH)


class Bundle:
    """Copy of a bundle whose files are altered, one at a time."""

    def __init__(self, bundle: Path, parent: Path) -> None:
        self.original, self.copy = bundle, parent / bundle.name
        shutil.copytree(bundle, self.copy)

    def load_altered(self, data: bytes) -> str:
        """Replace bytes of a file, load the bundle and run it; return the error message, or "answered".

        The first byte of `data` selects the file, the next four the position, and the rest replaces the bytes there.
        The checksum in the manifest is updated, so that the altered file is opened.
        """
        name = ALTERED[data[0] % len(ALTERED)] if data else MANIFEST
        content = (self.original / name).read_bytes()
        start = int.from_bytes(data[1:5], "little") % (len(content) + 1)
        (self.copy / name).write_bytes(content[:start] + data[5:] + content[start + len(data[5:]) :])
        if name != MANIFEST:
            manifest = json.loads((self.original / MANIFEST).read_text(encoding="utf-8"))
            manifest["files"][name] = sha256(self.copy / name)
            (self.copy / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        try:
            load(self.copy)({"sentence": "the film is wonderful"})  # type: ignore[operator]
        except HyperFormerError as error:
            return str(error)
        finally:
            for changed in {name, MANIFEST}:
                shutil.copy(self.original / changed, self.copy / changed)
        return "answered"


def main() -> None:
    """Fuzz a bundle with atheris."""
    import atheris

    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle(Path(sys.argv[1]), Path(folder))
        findings = Path(sys.argv[2])
        findings.mkdir(exist_ok=True)
        options = [sys.argv[0], f"-artifact_prefix={findings}/", "-max_len=64", "-len_control=0", *sys.argv[3:]]
        atheris.instrument_all()
        atheris.Setup(options, lambda data: bundle.load_altered(data) and None)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
