"""The harness runs tiny claim scripts in processes of their own: what it prints, writes and exits with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._claim import Claim, compare
from benchmarks.harness import ROOT, discover
from orchestration.errors import UserError

HEAD = '"""Sorting is as fast as sorting."""\nfrom benchmarks._claim import Claim, compare\n'
GOOD = (
    HEAD
    + """
import subprocess, sys
def run(size: int = 3):
    print("chatter on standard output")
    subprocess.run([sys.executable, "-c", "print('chatter of a child')"], check=True)
    ours, peer = [2.0, 1.0, 3.0], [4.0, 4.0, 4.0]
    a = Claim("sorts | fast", better="lower", target=0.6, gate=sorted([2, 1]) == [1, 2], unit="s", gate_says="both sorted", parts={"ours": {"read": 1.5}}, **compare(ours, peer))
    return [a, Claim("size", ours=size, peer=2.0, better="higher", gate=True, gate_says="both sorted")]
"""
)
BAD_GATE = (
    HEAD
    + 'def run():\n    return [Claim("unequal", ours=1.0, peer=1.0, better="lower", gate=False, gate_says="losses differ by 3")]\n'
)
BROKEN = HEAD + 'def run():\n    raise ValueError("no such thing")\n'


def harness(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.harness",
        *arguments,
        "--scripts",
        str(folder),
        "--page",
        str(folder / "PAGE.md"),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_standard_output_is_one_json_line_a_claim_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(GOOD)
    done = harness(tmp_path, "tiny", "--size", "8")
    assert done.returncode == 0, done.stderr
    first, second = [json.loads(line) for line in done.stdout.splitlines()]
    assert list(first)[:7] == ["claim", "ours", "peer", "ratio", "target", "better", "gate"]
    assert (first["ours"], first["peer"], first["ratio"], first["target"], first["better"], first["gate"]) == (
        2.0,
        4.0,
        0.5,
        0.6,
        "lower",
        "pass",
    )
    assert (first["met"], first["repeats"], first["spread"]) == (True, 3, [0.25, 0.75])
    assert (second["ours"], second["ratio"], second["target"], second["met"]) == (8.0, 4.0, None, None)
    assert "chatter on standard output" in done.stderr
    assert "chatter of a child" in done.stderr


def test_failed_gate_and_broken_script_end_with_exit_code_one_and_the_rest_still_runs(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "unequal.py").write_text(BAD_GATE)
    done = harness(tmp_path)
    assert done.returncode == 1
    assert [json.loads(line)["gate"] for line in done.stdout.splitlines()] == ["fail"]
    assert "ValueError: no such thing" in done.stderr
    assert "benchmark broken broke" in done.stderr
    assert "**fail**" in (tmp_path / "PAGE.md").read_text()
    assert harness(tmp_path, "broken").returncode == 1


def test_page_gets_the_sections_of_the_scripts_that_ran_and_keeps_the_others(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(GOOD)
    (tmp_path / "unequal.py").write_text(BAD_GATE)
    harness(tmp_path)
    page = tmp_path / "PAGE.md"
    before = page.read_text()
    other = before.partition("## unequal")[2]
    assert harness(tmp_path, "tiny", "--size", "9").returncode == 0
    after = page.read_text()
    assert after.partition("## unequal")[2] == other
    assert "| size |  | 9 | 2 | 4.500 |" in after
    assert "| size |  | 3 |" not in after
    assert after.count("## tiny") == 1
    assert "| sorts / fast | s | 2 | 4 | 0.500 | 0.250 to 0.750 | 0.6 | lower | pass |" in after
    assert "| read | 1.50 |" in after
    assert "- row 1, 2: gate: both sorted" in after
    assert "cores" in after
    assert "torch " in after


def test_unknown_benchmark_or_option_is_a_sentence_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(GOOD)
    done = harness(tmp_path, "tinny")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nearest: tiny" in done.stderr
    done = harness(tmp_path, "tiny", "--colour", "red")
    assert done.returncode == 1
    assert "--colour: not an option of tiny; its options: size" in done.stderr
    assert "Traceback" not in done.stderr


def test_list_names_every_script_of_the_project_without_running_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.harness", "--list"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    listed = [line.partition(": ") for line in done.stdout.splitlines()]
    assert [name for name, _, _ in listed] == list(discover(ROOT / "benchmarks"))
    assert all(len(text) > 20 for _, _, text in listed)


def test_claim_refuses_numbers_that_no_measurement_gives() -> None:
    with pytest.raises(UserError, match="positive and finite"):
        Claim("x", ours=float("nan"), peer=1.0, better="lower", gate=True)
    with pytest.raises(UserError, match="in turn"):
        compare([1.0], [1.0, 2.0])
