"""Fuzzes what opens a bundle: whatever its files hold, it answers or is refused in one sentence.

    pip install atheris
    python tests/integration/fuzzing/fuzz_bundle.py BUNDLE FINDINGS -max_total_time=600

BUNDLE is an exported task's folder; what is neither an answer nor a refusal ends the run and lies in FINDINGS.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from hyperformer.manifest import FILE, GRAPH, TOKENIZER, sha256
from hyperformer.runtime import load
from hyperformer.types import HyperFormerError

ALTERED = (FILE, TOKENIZER, GRAPH)


class Bundle:
    """A bundle whose files are altered, one at a time."""

    def __init__(self, bundle: Path, place: Path) -> None:
        self.whole, self.place = bundle, place / bundle.name
        shutil.copytree(bundle, self.place)

    def tried(self, data: bytes) -> str:
        """Opens and asks the bundle with bytes of one file replaced, as the data say: what came of it.

        The first byte names the file, the next four where, and the rest is put there; the manifest then says that
        this is the file that was exported, so that what reads it is reached.
        """
        name = ALTERED[data[0] % len(ALTERED)] if data else FILE
        own = (self.whole / name).read_bytes()
        start = int.from_bytes(data[1:5], "little") % (len(own) + 1)
        (self.place / name).write_bytes(own[:start] + data[5:] + own[start + len(data[5:]) :])
        if name != FILE:
            described = json.loads((self.whole / FILE).read_text(encoding="utf-8"))
            described["files"][name] = sha256(self.place / name)
            (self.place / FILE).write_text(json.dumps(described), encoding="utf-8")
        try:
            load(self.place)({"sentence": "the film is wonderful"})  # type: ignore[operator]
        except HyperFormerError as error:
            return str(error)
        finally:
            for changed in {name, FILE}:
                shutil.copy(self.whole / changed, self.place / changed)
        return "answered"


def main() -> None:
    import atheris

    with tempfile.TemporaryDirectory() as place:
        bundle = Bundle(Path(sys.argv[1]), Path(place))
        findings = Path(sys.argv[2])
        findings.mkdir(exist_ok=True)
        options = [sys.argv[0], f"-artifact_prefix={findings}/", "-max_len=64", "-len_control=0", *sys.argv[3:]]
        atheris.instrument_all()
        atheris.Setup(options, lambda data: bundle.tried(data) and None)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
