"""Curves as they come, by DVCLive, which looks at the repository that it is started in."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from processes import run_fork

ROOT = Path(__file__).parents[3]
SHOWN = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
os.chdir(sys.argv[2])
from pathlib import Path
from pipelines.curves import started
show = started(Path("curves"))
for step, values in json.loads(sys.argv[3]):
    show(step, values)
"""


def shown(place, points):
    return run_fork(SHOWN, ROOT, place, json.dumps(points))


def test_the_summary_has_the_same_bytes_in_whatever_order_values_come(tmp_path):
    points = [(1, {"loss/b": 1.0, "loss/a": 2.0}), (1, {"validation/mean": 3.0}), (2, {"loss/b": 0.5, "loss/a": 1.0})]
    found = []
    for name, order in (("straight", points), ("resumed", [points[0], points[2], points[1], points[2]])):
        (tmp_path / name).mkdir()
        done = shown(tmp_path / name, order)
        assert done.returncode == 0, done.stderr
        found.append((tmp_path / name / "curves" / "metrics.json").read_bytes())
    assert found[0] == found[1]
    assert json.loads(found[0])["loss"] == {"a": 1.0, "b": 0.5}


def test_a_repository_without_a_commit_is_said(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=tmp_path, check=True)
    done = shown(tmp_path, [])
    said = done.stderr.splitlines()[-1]
    assert "HyperFormerError: the curves cannot be written" in said
    assert said.endswith("commit once in this git repository, or remove its .git")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a tree to another owner")
def test_a_tree_of_another_owner_has_its_curves(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=tmp_path, check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *author, "commit", "-qm", "one"], cwd=tmp_path, check=True)
    subprocess.run(["chown", "-R", "65534:65534", str(tmp_path)], check=True)
    alone = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    assert subprocess.run(["git", "status"], cwd=tmp_path, env=alone, capture_output=True, check=False).returncode
    done = shown(tmp_path, [(1, {"loss/a": 2.0})])
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "curves" / "metrics.json").read_bytes())["loss"] == {"a": 2.0}
