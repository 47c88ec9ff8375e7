"""Ctrl-C during `kedro run`."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys

from processes import Fork, kedro, run_kedro

OPTIONS = ["--pipelines", "train", "--params", "training.steps=200,training.evaluate_every=10,threads=1"]


def run_interruptible(tree, arguments):
    """Run Kedro where Ctrl-C is not ignored, even if the tests run in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run_kedro(tree, arguments))


def test_ctrl_c_ends_with_what_is_kept_and_the_command_that_continues(copy):
    with Fork(run_interruptible, str(copy), ["run", "--env", "test", *OPTIONS], cwd=copy) as run:
        run.wait_for(r"step 30 +validation")
        os.kill(run.process.pid, signal.SIGINT)
        ended = run.complete()
    assert ended.returncode == 128 + signal.SIGINT, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert "Traceback" not in ended.stdout + ended.stderr
    message = ended.stderr.splitlines()[-1]
    kept = r"the saved .*, tokens; the resume state of step \d0 in \S+/train/\S+"
    assert re.match(rf"Interrupted in the node train_model\. Kept: {kept}\. Continue with: kedro run ", message)
    command = shlex.split(message.partition("Continue with: ")[2])
    assert command == ["kedro", "run", "--env", "test", *OPTIONS, "--from-nodes", "train_model"]

    continued = kedro(copy, *command[4:])
    assert continued.returncode == 0, continued.stdout[-3000:] + continued.stderr[-3000:]
    assert "resuming from step" in continued.stdout
    assert "encode_rows" not in continued.stdout


def test_ctrl_c_in_a_stage_of_dvc_is_continued_by_dvc(copy):
    with Fork(
        run_interruptible, str(copy), ["run", "--env", "test", *OPTIONS], cwd=copy, DVC_STAGE="conf/test/dvc.yaml:train"
    ) as run:
        run.wait_for(r"step 20 +validation")
        os.kill(run.process.pid, signal.SIGINT)
        ended = run.complete()
    assert ended.returncode == 128 + signal.SIGINT
    assert ended.stderr.splitlines()[-1].endswith(" Continue with: dvc repro conf/test/dvc.yaml")
