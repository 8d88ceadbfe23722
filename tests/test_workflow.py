"""The workflow: sound YAML that tests and verifies on Linux and on Apple Silicon."""

from __future__ import annotations

import os
from pathlib import Path

import yaml  # comes with coremltools

from gpt_sovits_mlx.cli import main

ROOT = Path(__file__).parent.parent
APPLE_SILICON = {"macos-15", "macos-26", "macos-latest"}


def test_the_workflow_tests_and_verifies_on_linux_and_on_a_mac(capsys):
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    # YAML 1.1 reads the key `on` as true
    assert {"push", "pull_request"} <= workflow[True].keys()
    (job,) = workflow["jobs"].values()
    systems = job["strategy"]["matrix"]["os"]
    assert job["runs-on"] == "${{ matrix.os }}" and not job["strategy"]["fail-fast"]
    assert {*systems} & APPLE_SILICON and any(system.startswith("ubuntu") for system in systems)
    assert [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step] == [
        "actions/checkout",
        "actions/setup-python",
    ]
    tests, verify = [step["run"] for step in job["steps"] if "run" in step]
    assert os.access(ROOT / tests, os.X_OK)
    program, command = verify.split()
    # where scripts/test puts what [project.scripts] names
    assert program == ".venv/bin/gpt-sovits-mlx" and ".venv/bin" in (ROOT / tests).read_text(encoding="utf-8")
    try:
        main([command, "--help"])
    except SystemExit as done:
        assert done.code == 0
    assert "check every stage on this machine" in capsys.readouterr().out
