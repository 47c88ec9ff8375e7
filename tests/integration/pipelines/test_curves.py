"""Training curves written by DVCLive, which inspects the git repository that it is started in."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from processes import run_fork

ROOT = Path(__file__).parents[3]
LOG_CURVES = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
os.chdir(sys.argv[2])
from pathlib import Path
from pipelines.curves import start_curves
log = start_curves(Path("curves"))
for step, values in json.loads(sys.argv[3]):
    log(step, values)
"""


def log_curves(folder, points):
    return run_fork(LOG_CURVES, ROOT, folder, json.dumps(points))


def test_the_summary_has_the_same_bytes_for_values_in_any_order(tmp_path):
    points = [(1, {"loss/b": 1.0, "loss/a": 2.0}), (1, {"validation/mean": 3.0}), (2, {"loss/b": 0.5, "loss/a": 1.0})]
    summaries = []
    for name, order in (("straight", points), ("resumed", [points[0], points[2], points[1], points[2]])):
        (tmp_path / name).mkdir()
        result = log_curves(tmp_path / name, order)
        assert result.returncode == 0, result.stderr
        summaries.append((tmp_path / name / "curves" / "metrics.json").read_bytes())
    assert summaries[0] == summaries[1]
    assert json.loads(summaries[0])["loss"] == {"a": 1.0, "b": 0.5}


def test_a_repository_without_a_commit_is_an_error(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=tmp_path, check=True)
    result = log_curves(tmp_path, [])
    message = result.stderr.splitlines()[-1]
    assert "HyperFormerError: cannot write the training curves (" in message
    assert message.endswith("Create a first commit in this git repository, or remove .git.")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a tree to another owner")
def test_a_repository_of_another_owner_has_curves(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=tmp_path, check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *author, "commit", "-qm", "one"], cwd=tmp_path, check=True)
    subprocess.run(["chown", "-R", "65534:65534", str(tmp_path)], check=True)
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    assert subprocess.run(["git", "status"], cwd=tmp_path, env=environment, capture_output=True, check=False).returncode
    result = log_curves(tmp_path, [(1, {"loss/a": 2.0})])
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "curves" / "metrics.json").read_bytes())["loss"] == {"a": 2.0}
