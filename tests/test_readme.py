import re
import shlex
from pathlib import Path

import pytest

from sparse_rnn.cli import main
from sparse_rnn.cli.compare import parse
from sparse_rnn.cli.dry_run import check_fits
from sparse_rnn.config_files import find_config

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    shlex.split(line, comments=True)
    for language, code in BLOCKS
    if language == "bash"
    for line in code.replace("\\\n", "").splitlines()
]
FITS = [command for command in COMMANDS if command[:4] == ["python", "-m", "sparse_rnn", "fit"]]
COMPARES = [command for command in COMMANDS if command[:4] == ["python", "-m", "sparse_rnn", "compare"]]


@pytest.mark.parametrize("code", PYTHON, ids=["lightning", "plain", "structured"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*smaller than the logging interval")
def test_the_python_blocks_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    # One epoch shows as much as ten.
    exec(compile(code.replace("max_epochs=10", "max_epochs=1"), "README.md", "exec"), names)
    if "small" in names:
        assert names["small"].rnn.hidden_size == 20
        return
    masks = names["masks"] if "masks" in names else names["pruning"].masks
    assert masks.kept == round(0.05 * masks.total)


def test_the_two_commands_come_first():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [command[:2] for command in COMMANDS[:2]] == [["make", "fit"], ["make", "test"]]
    assert {"fit", "test"} <= set(targets)


def status_of_parsing(arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--print_config"])
    return exit_.value.code


@pytest.mark.parametrize("command", FITS, ids=lambda command: " ".join(command[6:]) or "plain")
def test_the_fit_commands_parse(command):
    assert status_of_parsing(command[3:]) == 0


@pytest.mark.parametrize("command", COMPARES, ids=lambda command: " ".join(command[4:]))
def test_the_fits_of_the_compare_commands_parse(command):
    check_fits(parse(command[4:]))  # raises where a fit would refuse an argument


def test_every_config_it_names_is_shipped_and_the_other_way_round():
    shipped = {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    named = set(re.findall(r"(?:pruning/)?\w+\.yaml", (ROOT / "README.md").read_text()))
    assert shipped <= named
    assert all(Path(path).is_file() for name in named for path in find_config(name))
