"""Pytest plugin that prints the tests with the most CPU time, and fails a run if a test exceeds the limit.

It counts the call of a test, including child processes and forks, but not its fixtures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import processes
import pytest

LIMIT = 20.0
"""Most seconds of CPU time of a test."""
EXCEPTIONS = {
    "tests/integration/pipelines/test_chain.py::test_per_task_models_run_through_all_stages_with_one_changed_setting"
    "[fine_tuning_per_task]": "traces three structures that no other test has",
    "tests/integration/pipelines/test_chain.py::test_a_killed_training_resumes_and_ends_in_the_same_checkpoint": (
        "trains three times for 120 steps"
    ),
    "tests/integration/pipelines/test_faults.py::test_a_run_killed_at_any_moment_is_completed_by_the_next_run[0]": (
        "makes a complete run twice"
    ),
    "tests/integration/serving/server/test_server.py::test_schemathesis_finds_nothing": "sends random requests",
}
"""Tests that may exceed the limit, at most ten: node id → reason."""
SHOWN = 10
"""Number of tests to print."""
PROPERTY = "cpu_seconds"


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system + processes.fork_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Record the CPU time of a test's call as a property of the test."""
    start = cpu_seconds()
    try:
        return (yield)
    finally:
        item.user_properties.append((PROPERTY, round(cpu_seconds() - start, 2)))


class Costs:
    """CPU time of each test of a run, from all workers."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the CPU time of a test."""
        if report.when == "call" and "slow" not in report.keywords:
            self.seconds[report.nodeid.partition("@")[0]] = dict(report.user_properties).get(PROPERTY, 0.0)

    def over_limit(self) -> list[str]:
        """Return the tests that exceed the limit."""
        return [test for test, seconds in self.seconds.items() if seconds > LIMIT and test not in EXCEPTIONS]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run if a test exceeds the limit."""
        if self.over_limit() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the tests with the most CPU time, and those that exceed the limit."""
        slowest = sorted(self.seconds.items(), key=lambda pair: -pair[1])[:SHOWN]
        if len(self.seconds) > SHOWN:
            terminalreporter.section("most CPU time in a test's own call")
            for test, seconds in slowest:
                terminalreporter.write_line(f"{seconds:6.1f} s  {test}")
        for test in self.over_limit():
            terminalreporter.write_line(
                f"{test} used {self.seconds[test]:.1f} s of CPU time; expected at most {LIMIT:.0f} s. Reduce its work."
            )


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin in the main process, unless coverage distorts the times."""
    assert len(EXCEPTIONS) <= 10
    if not hasattr(config, "workerinput") and not config.pluginmanager.hasplugin("_cov"):
        config.pluginmanager.register(Costs(), "costs")
