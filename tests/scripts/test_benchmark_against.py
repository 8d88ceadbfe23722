"""scripts/benchmark.py --against: two checkouts in turns, here this one twice, and some that only look like one."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts.bench import checkout, memory
from scripts.bench.checkout import Checkout
from scripts.bench.errors import BenchmarkError
from scripts.benchmark import main

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = """
__version__ = "7"


class GPTSoVITSError(Exception):
    pass


class DependencyError(GPTSoVITSError):
    pass


GPTSoVITSEngine = None
"""
ERRORS = """
class BenchmarkError(Exception):
    pass


class Absent(BenchmarkError):
    pass
"""
WORKBENCH = """
import random
from pathlib import Path


class Workbench:
    label = "float32"

    def __init__(self, voice, log):
        self.folder, self.path, self.log, self.random = self, voice, log, random.Random(1)

    @classmethod
    def of_voice(cls, name, model_dir, precision, work):
        return cls(Path(model_dir, "voices", name), Path(model_dir, "log"))
"""
STAGES = """
import os
from pathlib import Path

import gpt_sovits_mlx

from .errors import Absent, BenchmarkError


class Case:
    tokens, length, audio = 5, 0, None

    def __init__(self, bench, name, *seconds):
        self.bench, self.name, self.seconds, self.given = bench, name, iter(seconds), bench.random.random()

    def ours(self):
        with open(self.bench.log, "a") as file:
            print(Path(__file__).parents[2].name, os.getpid(), self.bench.path, self.given, file=file)
        return next(self.seconds)


class Dying(Case):
    def ours(self):
        super().ours()
        os._exit(5)


class Failing(Case):
    def ours(self):
        raise gpt_sovits_mlx.GPTSoVITSError("there is no room")


def text(bench, reference):
    yield {text}


def decode(bench, reference):
    raise Absent("nothing to decode")
    yield


STAGES = {{"text": text, "decode": decode}}
"""


def write_checkout(folder: Path, text: str) -> Path:
    """A checkout whose stage "text" yields what `text` says."""
    files = {
        "python/gpt_sovits_mlx/__init__.py": PACKAGE,
        "scripts/bench/__init__.py": "",
        "scripts/bench/errors.py": ERRORS,
        "scripts/bench/workbench.py": WORKBENCH,
        "scripts/bench/stages.py": STAGES.format(text=text),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


Compare = Callable[..., int]


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Run the benchmark on two checkouts, "new" in this one's place against "old"; what the exit status is."""
    voice = tmp_path / "voices" / "demo" / "voice.json"
    voice.parent.mkdir(parents=True)
    voice.write_text("{}", encoding="utf-8")

    def run(new: str, old: str, *options: str) -> int:
        monkeypatch.setattr(checkout, "ROOT", write_checkout(tmp_path / "new", new))
        other = write_checkout(tmp_path / "old", old)
        given = ["--against", str(other), "--model-dir", str(tmp_path), "--json", str(tmp_path / "found.json")]
        return main([*given, "--stages", "text", *options])

    return run


def written(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))


def logged(tmp_path: Path) -> list[list[str]]:
    """Of each run: the checkout's name, the process, the voice, the input."""
    return [line.split() for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]


def assert_ended(pids: set[int]) -> None:
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_this_checkout_against_itself(home, tmp_path, capsys):
    file = tmp_path / "found.json"
    given = ["--voice", "small", "--model-dir", str(home), "--dtype", "float32", "--quick", "--json", str(file)]
    assert main([*given, "--stages", "prefill", "enrolment", "--against", str(ROOT)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [one["stage"] for one in found["measurements"]] == ["prefill"] * 3 + ["enrolment"]
    for one in found["measurements"]:
        assert len(one["seconds"]) == len(one["their_seconds"]) == 2
        assert min(one["seconds"]) > 0 and min(one["their_seconds"]) > 0
        pairs = zip(one["seconds"], one["their_seconds"], strict=True)
        assert one["pair_ratios"] == [ours / theirs for ours, theirs in pairs]
        assert one["ratio"] == statistics.median(one["pair_ratios"])
        # the same code takes about the same memory: a small voice's peak depends on what was under way at once
        for figure in ("peak_memory", "resident"):
            assert one[f"{figure}_ratio"] == pytest.approx(one[figure] / one[f"their_{figure}"])
            assert one[f"{figure}_ratio"] == pytest.approx(1, abs=0.5)
    assert found["skipped"] == [] and found["other"] == ROOT.name
    assert f"ours / {ROOT.name}" in capsys.readouterr().out


def test_the_checkouts_take_turns_on_the_same_input(compare, tmp_path):
    warming = "1, 1, 1, "
    assert (
        compare(f"Case(bench, 'c', {warming} 1, 4, 9)", f"Case(bench, 'c', {warming} 2, 5, 6)", "--repeats", "3") == 0
    )
    (one,) = written(tmp_path)["measurements"]
    assert one["seconds"] == [1, 4, 9] and one["their_seconds"] == [2, 5, 6]
    # not 4 / 5, the ratio of medians; the limit of time is over after three turns
    assert one["pair_ratios"] == [0.5, 0.8, 1.5] and one["ratio"] == 0.8
    assert one["tokens_per_second"] == 5 / 4
    runs = logged(tmp_path)
    assert [name for name, *_ in runs] == ["new", "old", "old", "new", "new", "old"] * 2
    assert len({given for *_, given in runs}) == 1
    # what a side writes beside the voice is its own
    voices = {Path(voice) for _, _, voice, _ in runs}
    assert {voice.parts[-3:] for voice in voices} == {("ours", "voices", "demo"), ("theirs", "voices", "demo")}
    assert not any(voice.exists() for voice in voices)
    pids = {int(pid) for _, pid, *_ in runs}
    assert len(pids) == 2 and os.getpid() not in pids  # two for each stage
    assert_ended(pids)
    assert not list((tmp_path / "old").rglob("__pycache__"))


@pytest.mark.parametrize(("limit", "status"), [("1.4", 3), ("2", 0)])
def test_what_is_above_the_limit_is_named(compare, limit, status, capsys, monkeypatch):
    monkeypatch.setattr(checkout.Checkout, "read", lambda _: memory.Memory(100, 100))
    new, old = "Case(bench, 'c', 1, 1, 1, 3, 3)", "Case(bench, 'c', 1, 1, 1, 2, 2)"
    assert compare(new, old, "--quick", "--limit", limit) == status
    printed = capsys.readouterr().out
    assert ("text, c, float32: time 1.500\n" in printed) == (status == 3)
    assert ("nothing takes more than 2 times old's time or memory\n" in printed) == (status == 0)


def test_what_only_one_side_has_is_said(compare, tmp_path):
    shared = "Case(bench, 'c', *range(1, 9))"
    stages = ("--stages", "text", "decode", "sovits")
    assert compare(f"{shared}; yield Case(bench, 'new case')", f"{shared}; yield Case(bench, 'old case')", *stages) == 0
    found = written(tmp_path)
    assert [one["case"] for one in found["measurements"]] == ["c"]
    new, old = tmp_path / "new", tmp_path / "old"
    assert found["skipped"] == [
        {"stage": "text, new case", "reason": f"{old} has no such case"},
        {"stage": "text, old case", "reason": f"{new} has no such case"},
        {"stage": "decode", "reason": f"{new}: nothing to decode"},
        {"stage": "sovits", "reason": f"{new}: it has no such stage"},
    ]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Dying(bench, 'c', 1)", "old: the checkout's process ended (status 5): what it printed may say why"),
        ("Failing(bench, 'c')", "old: there is no room"),
    ],
)
def test_a_side_that_dies_or_fails_is_one_line_and_leaves_no_process(compare, text, wrong, tmp_path, capfd):
    assert compare("Case(bench, 'c', *range(1, 9))", text) == 1
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and wrong in error
    assert_ended({int(pid) for _, pid, *_ in logged(tmp_path)})


def test_a_voice_is_copied_with_those_that_it_needs(tmp_path):
    needs = {"a": '{"companions": {"zh": "b"}}', "b": '{"weights": "c"}', "c": '{"companions": {"en": "a"}}', "d": "{}"}
    for name, described in needs.items():
        (tmp_path / "voices" / name).mkdir(parents=True)
        (tmp_path / "voices" / name / "voice.json").write_text(described, encoding="utf-8")
    (tmp_path / "voices" / "en").mkdir()
    copy = checkout.copied_voice(tmp_path / "voices" / "a", tmp_path / "copies")
    assert copy == tmp_path / "copies" / "a"
    assert {file.parent.name for file in (tmp_path / "copies").glob("*/voice.json")} == {"a", "b", "c"}
    (tmp_path / "voices" / "d" / "voice.json").unlink()
    with pytest.raises(BenchmarkError, match=r"cannot copy the voice .*d: No such file"):
        checkout.copied_voice(tmp_path / "voices" / "d", tmp_path / "copies")


def test_a_process_that_is_killed_is_an_error(tmp_path):
    other = Checkout(write_checkout(tmp_path / "old", "Case(bench, 'c', 1)"), tmp_path / "home")
    other.use("any", tmp_path, "float32")
    case = other.cases("text")["c"]
    os.kill(other.pid, 9)
    for _ in range(2):
        with pytest.raises(BenchmarkError, match=r"old: the checkout's process ended \(status -9\)"):
            case.run()
    other.close()
    assert_ended({other.pid})


def test_the_side_that_waits_sleeps(tmp_path):
    if not Path("/proc/self/stat").is_file():
        pytest.skip("no /proc here")
    other = Checkout(ROOT, tmp_path / "home")
    try:
        other.use("demo", tmp_path, "float32")
        next(iter(other.cases("prefill").values())).run()
        before = processor_time(other.pid)
        time.sleep(0.5)
        assert processor_time(other.pid) - before <= 0.02
    finally:
        other.close()


def processor_time(pid: int) -> float:
    """Seconds that all threads of a process have computed."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_code_that_cannot_be_loaded_is_one_line(tmp_path, capsys):
    folder = write_checkout(tmp_path / "old", "Case(bench, 'c')")
    (folder / "scripts/bench/stages.py").write_text("import not_installed_anywhere", encoding="utf-8")
    assert main(["--against", str(folder), "--stages", "text"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {folder}: its code cannot be loaded (No module named 'not_installed_anywhere')")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--against", "nowhere"], "nowhere is no checkout of gpt-sovits-mlx: it has no scripts/bench/stages.py"),
        (["--against", str(ROOT), "--profile"], "leave one of them away"),
        (["--limit", "1.03"], "give --against"),
    ],
)
def test_errors_are_one_line(options, wrong, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*options, "--stages", "text"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and wrong in error


@pytest.mark.parametrize("options", [["--against", "a", "--reference", "b"], ["--limit", "0"], ["--limit", "much"]])
def test_wrong_usage(options, capsys):
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2 and "error: argument" in capsys.readouterr().err
