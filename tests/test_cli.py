"""The command line as scripts meet it: exit codes, what goes where, and nothing heavy before it is needed."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lumigraph.cli import arguments, commands
from lumigraph.cli import main as cli
from tests.studio.conftest import ROOT, capture, make_capture, plugin, tiny  # noqa: F401

COMMANDS = ("scan", "sample", "pose", "train", "evaluate", "render", "export", "info")
HEAVY = ("torch", "numpy", "pydantic", "cv2", "av", "rich", "pycolmap")

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command line here; gives the exit code, stdout and stderr."""

    def run(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = cli.main([str(word) for word in argv])
        except SystemExit as end:  # argparse ends by itself
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def one_sentence(err: str) -> str:
    """The complaint in `err`: exactly one line, and no traceback."""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("lumigraph"), err
    return lines[0]


# ---- starting up


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["info", "--short"], ["--version"]])
def test_nothing_heavy_is_imported_to_say_a_few_words(argv: list[str]) -> None:
    program = f"""
import sys
from lumigraph.cli import main as cli
try:
    cli.main({argv!r})
except SystemExit as end:
    assert not end.code, end
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr == "[]\n"


def test_help_comes_at_once() -> None:
    def seconds() -> float:
        """Of the processor: it waits for nothing else, and a busy machine takes longer by the clock."""
        used = [resource.getrusage(resource.RUSAGE_CHILDREN)]
        subprocess.run([sys.executable, "-m", "lumigraph", "--help"], cwd=ROOT, capture_output=True, check=True)
        used.append(resource.getrusage(resource.RUSAGE_CHILDREN))
        before, after = (use.ru_utime + use.ru_stime for use in used)
        return after - before

    assert min(seconds() for _ in range(5)) < 0.3


def test_help_names_every_command_and_shows_examples(call: Call) -> None:
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert f"\n    {command} " in out
        code, told, err = call(command, "--help")
        assert (code, err) == (0, "")
        if command != "info":
            assert f"lumigraph {command} " in told.split("positional arguments")[0].partition("\n\n")[2]


def test_info_says_what_is_installed(call: Call) -> None:
    code, out, err = call("info")
    assert (code, err) == (0, "")
    for what in ("lumigraph", "python", "torch", "cpu", "kernels", "device", "extra heic"):
        assert f"\n{what} " in f"\n{out}", what


# ---- settings of a method


@pytest.mark.usefixtures("tiny")
def test_help_with_a_method_shows_its_settings(call: Call) -> None:
    code, out, _ = call("train", "--help", "-m", "tiny")
    words = " ".join(out.split())
    assert code == 0
    assert "settings of the method tiny" in words
    assert "--rate float size of a step (default: 0.1)" in words
    assert "--degree 1|2 of the polynomial (default: 2)" in words
    assert "--tint float,float,float added to every colour, for no reason (default: 0.0,0.0,0.0)" in words


@pytest.mark.usefixtures("tiny")
def test_settings_come_as_flags_and_as_pairs(call: Call, tmp_path: Path, capture: Path) -> None:  # noqa: F811
    run = tmp_path / "run"
    settings = ("--rate", "0.05", "--tint=0,0,1", "--set", "degree=1", "--set", "label=none")
    code, _, err = call("train", *settings, capture, "-o", run, "-m", "tiny", "--steps", 3, "-q")
    assert (code, err) == (0, "")
    config = json.loads((run / "config.json").read_text())
    assert config["settings"] == {
        "rate": 0.05,
        "degree": 1,
        "tint": [0.0, 0.0, 1.0],
        "pause": 0.0,
        "label": None,
        "loud": False,
    }


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--rate", "fast"), "setting 'rate' must be float, not 'fast'"),
        (("--set", "ratte=1"), "did you mean 'rate'?"),
        (("--set", "rate"), "--set expects NAME=VALUE"),
        (("--no-such-flag", "1"), "unrecognized arguments: --no-such-flag"),
        (("--seconds", "-1"), "-1 is not a positive number"),
        (("--seconds", "nan"), "nan is not a positive number"),
        (("--steps", "0"), "0 is too small; the minimum is 1"),
        (("--steps", "many"), "invalid whole number value: 'many'"),
        (("--downscale", "0.5"), "0.5 would enlarge"),
        (("--device", "abacus"), "invalid choice: 'abacus'"),
        (("--device", "cuda"), "this method runs on cpu only"),
        (("--resume", "--overwrite"), "not allowed with argument"),
    ],
)
def test_wrong_options_are_named(call: Call, tmp_path: Path, capture: Path, argv: tuple[str, ...], said: str) -> None:  # noqa: F811
    code, out, err = call("train", capture, "-o", tmp_path / "run", "-m", "tiny", *argv)
    assert code in (1, 2)
    assert out == ""
    assert said in one_sentence(err)
    assert not (tmp_path / "run").exists()


# ---- bad inputs of every verb


def test_flags_may_be_spelled_as_python_spells_them(call: Call, tmp_path: Path) -> None:
    code, _, err = call("pose", tmp_path, "-o", tmp_path / "out", "--allow_partial")
    assert (code, "no usable photo" in err) == (1, True)
    assert arguments.normalize_flag("--set=a_b=c_d") == "--set=a_b=c_d"
    assert arguments.normalize_flag("a_b") == "a_b"


def test_an_unknown_command_or_a_missing_argument(call: Call) -> None:
    assert call()[0] == 2
    code, _, err = call("tarin")
    assert code == 2
    assert "invalid choice: 'tarin'" in one_sentence(err)
    code, _, err = call("train")
    assert code == 2
    assert "CAPTURE, -o/--out" in one_sentence(err)


@pytest.mark.usefixtures("tiny")
def test_an_unknown_method_lists_those_that_exist(call: Call, tmp_path: Path, capture: Path) -> None:  # noqa: F811
    for argv in (("--steps", "1"), ("--unknown-flag", "1"), ("--help",)):
        code, _, err = call("train", capture, "-o", tmp_path / "run", "-m", "splatt", *argv)
        assert code == 1
        sentence = one_sentence(err)
        assert "there is no method 'splatt'" in sentence
        assert "splat," in sentence
        assert "tiny" in sentence


@pytest.mark.usefixtures("tiny")
def test_a_plug_in_that_does_not_import_is_named(call: Call, tmp_path: Path, capture: Path) -> None:  # noqa: F811
    code, _, err = call("train", capture, "-o", tmp_path / "run", "-m", "broken", "--steps", "1")
    assert code == 1
    assert "the plug-in 'broken' (tests.studio.no_such_module) could not be imported" in one_sentence(err)


@pytest.mark.parametrize("verb", ["train", "scan", "pose"])
def test_a_missing_input(call: Call, tmp_path: Path, verb: str) -> None:
    code, out, err = call(verb, tmp_path / "nothing", "-o", tmp_path / "out")
    assert (code, out) == (1, "")
    assert "nothing does not exist" in one_sentence(err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["train", "scan", "pose"])
def test_an_empty_folder(call: Call, tmp_path: Path, verb: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code, out, err = call(verb, empty, "-o", tmp_path / "out", "-q")
    assert (code, out) == (1, "")
    sentence = one_sentence(err)
    assert "is not a capture that can be read" in sentence if verb == "train" else "no usable photo" in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["scan", "pose"])
def test_one_photo(call: Call, tmp_path: Path, capture: Path, verb: str) -> None:  # noqa: F811
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "a.png").write_bytes((capture / "images" / "000.png").read_bytes())
    code, out, err = call(verb, alone, "-o", tmp_path / "out", "-q")
    assert (code, out) == (1, "")
    assert "only one usable photo" in one_sentence(err)


@pytest.mark.usefixtures("tiny")
def test_too_few_posed_photos(call: Call, tmp_path: Path) -> None:
    few = make_capture(tmp_path / "few", 3)
    code, _, err = call("train", few, "-o", tmp_path / "run", "-m", "tiny", "--steps", 1)
    assert code == 1
    assert "leaves 2 of 3 photos to train on" in one_sentence(err)
    assert call("train", few, "-o", tmp_path / "run", "-m", "tiny", "--steps", 1, "--holdout", 0, "-q")[0] == 0


@pytest.mark.usefixtures("tiny")
def test_an_output_that_cannot_be_written(call: Call, tmp_path: Path, capture: Path) -> None:  # noqa: F811
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        code, _, err = call("train", capture, "-o", out, "-m", "tiny", "--steps", 1)
        assert code == 1
        assert str(tmp_path / "file") in one_sentence(err)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.usefixtures("tiny")
def test_somebody_elses_folder(call: Call, tmp_path: Path, capture: Path) -> None:  # noqa: F811
    (tmp_path / "thesis.txt").write_text("years of work")
    for more in ((), ("--overwrite",)):
        code, _, err = call("train", capture, "-o", tmp_path, "-m", "tiny", "--steps", 1, *more)
        assert code == 1
        assert "is not empty and not a run (it holds 'thesis.txt')" in one_sentence(err)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("argv", [("evaluate",), ("render", "-o", "x.mp4"), ("export", "-o", "x.ply")])
def test_a_run_that_is_none(call: Call, tmp_path: Path, argv: tuple[str, ...]) -> None:
    code, out, err = call(argv[0], tmp_path, *argv[1:])
    assert (code, out) == (1, "")
    assert "is not a run (it has no config.json)" in one_sentence(err)


def test_hostile_names_reach_the_terminal_as_plain_text(call: Call, tmp_path: Path) -> None:
    code, _, err = call("evaluate", tmp_path / "\x1b[31mred\nlumigraph: all is well")
    assert code == 1
    assert "\x1b" not in one_sentence(err)


def test_a_fault_of_ours_is_one_sentence_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(args: cli.Args) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(commands, "info", fault)
    code, _, err = call("info")
    assert code == 1
    assert "internal error: ZeroDivisionError: division by zero" in one_sentence(err)
    code, _, err = call("info", "--debug")
    assert code == 1
    assert "Traceback" in err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m lumigraph info | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "lumigraph "
    assert done.stderr == ""


def test_a_setting_that_is_true_or_false_is_a_switch() -> None:
    for words, expected in (
        (["train", "--surface", "capture", "-o", "run"], "true"),
        (["train", "capture", "-o", "run", "--surface"], "true"),
        (["train", "capture", "--surface", "-o", "run"], "true"),
        (["train", "capture", "--surface", "no", "-o", "run"], "no"),
        (["train", "capture", "--surface=false", "-o", "run"], "false"),
    ):
        args = arguments.parse(words)
        assert vars(args)["setting:surface"] == expected
        assert str(args.capture) == "capture"
