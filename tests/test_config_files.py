import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
import yaml

from sparse_rnn.cli import main
from sparse_rnn.config_files import find_config, is_overlay, parse_config, read_config, section
from sparse_rnn.errors import MissingFileError, UsageError
from sparse_rnn.scores import JacobianSpectrum

SHIPPED = Path(__file__).parent.parent / "configs"
_OF_0_1_0 = json.loads((Path(__file__).parent / "configs_of_0_1_0.json").read_text())
OLD = {name: _OF_0_1_0["all"] | values for name, values in _OF_0_1_0.items() if name != "all"}


def names(found):
    return [Path(path).relative_to(SHIPPED).as_posix() for path in found]


def test_a_config_is_looked_up_here_before_among_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("gru_mnist.yaml") == [str(SHIPPED / "gru_mnist.yaml")]
    (tmp_path / "gru_mnist.yaml").touch()
    assert find_config("gru_mnist.yaml") == ["gru_mnist.yaml"]
    assert find_config(str(tmp_path / "gru_mnist.yaml")) == [str(tmp_path / "gru_mnist.yaml")]


def test_a_name_can_stand_for_a_model_and_its_overlays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names(find_config("pruning/rigl.yaml")) == ["pruning/rigl.yaml"]
    assert names(find_config("gru_mnist_gradual.yaml")) == ["gru_mnist.yaml", "pruning/gradual.yaml"]
    assert find_config("keep_last.yaml") == []
    Path("gru_mnist_gradual.yaml").touch()
    assert find_config("gru_mnist_gradual.yaml") == ["gru_mnist_gradual.yaml"]


def test_the_closest_names_are_told():
    for wrong, close in [
        ("pruning/rgl.yaml", "pruning/rigl.yaml"),
        ("gru_mnist_gradul.yaml", "gru_mnist_gradual.yaml"),
    ]:
        with pytest.raises(MissingFileError, match=close):
            find_config(wrong)


def test_overlays_are_known_by_their_folder():
    assert [path for path in SHIPPED.rglob("*.yaml") if is_overlay(str(path))] == [*(SHIPPED / "pruning").glob("*")]


@pytest.mark.parametrize("path", sorted((SHIPPED / "pruning").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_overlay_holds_a_pruning_section_and_models_refer_to_one(path):
    # The recipe is a whole one: its learning rates go with its pruning.
    assert list(read_config(str(path))) == (["model", "pruning", "trainer"] if path.stem == "recipe" else ["pruning"])
    assert not any("class_path: OneShot" in model.read_text() for model in SHIPPED.glob("*.yaml"))


def test_a_copy_of_a_shipped_model_keeps_its_pruning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SHIPPED / "gru_mnist.yaml", "mine.yaml")
    assert read_config("mine.yaml")["pruning"]["init_args"]["sparsity"] == 0.95
    Path("pruning").mkdir()
    Path("pruning/jacobian.yaml").write_text("pruning: {class_path: OneShotPruning, init_args: {sparsity: 0.5}}")
    assert read_config("mine.yaml")["pruning"]["init_args"]["sparsity"] == 0.5


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("pruning: [1", UsageError, "mine.yaml is no YAML: .*line 1"),
        ("[1]", UsageError, "mine.yaml is no config: it has no keys"),
        ("pruning: nowhere.yaml", MissingFileError, "no config 'nowhere.yaml'"),
        ("pruning: other.yaml", UsageError, "names other.yaml, which has none"),
    ],
)
def test_a_config_that_cannot_be_read_takes_one_sentence(tmp_path, monkeypatch, text, error, said):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    Path("other.yaml").write_text("model: null")
    with pytest.raises(error, match=said) as caught:
        read_config("mine.yaml")
    assert "\n" not in str(caught.value)


SAVED = """\
# lightning.pytorch==2.6.6
model:
  class_path: sparse_rnn.modules.SequenceClassifier
  init_args:
    optimizer:
      class_path: torch.optim.Adam
pruning:
  class_path: sparse_rnn.GradualPruning
  init_args:
    sparsity: 0.9
    schedule:
      class_path: sparse_rnn.schedules.Cubic
      init_args:
        begin: 0.05
trainer:
  callbacks:
  - class_path: sparse_rnn.SparsityMonitor
"""


def test_classes_that_have_moved_since_0_1_0_are_found(tmp_path, capsys):
    found = parse_config(SAVED)
    assert found["pruning"]["init_args"]["schedule"]["class_path"] == "sparse_rnn.pruning.schedules.Cubic"
    others = yaml.safe_load(SAVED.replace("sparse_rnn.schedules", "sparse_rnn.pruning.schedules"))
    assert found == others
    (tmp_path / "config.yaml").write_text(SAVED)
    parsed = printed("--config", str(tmp_path / "config.yaml"), "--model.input_size", "8", "--model.num_classes", "10")
    assert parsed["pruning"]["init_args"]["schedule"]["init_args"]["begin"] == 0.05


def printed(*args):
    """The effective configuration of a command line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as exit_:
        main(["fit", *args, "--print_config"])
    assert exit_.value.code == 0
    return yaml.safe_load(out.getvalue())


def flat(value, key=""):
    """Keys joined by dots to values; classes by their names alone."""
    if isinstance(value, dict):
        return {name: leaf for part, item in value.items() for name, leaf in flat(item, f"{key}.{part}").items()}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return {name: leaf for i, item in enumerate(value) for name, leaf in flat(item, f"{key}.{i}").items()}
    return {key: value.rpartition(".")[2] if key.endswith("class_path") else value}


def of_its_variant(found):
    """What the Jacobian's options are that are left to the variant."""
    prefix = ".pruning.init_args.criterion.init_args."
    own = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
    if "variant" not in own:
        return found
    criterion = JacobianSpectrum(**own)
    return found | {f"{prefix}{name}": getattr(criterion, name) for name in own}


# What is different since, on purpose: as the authors of what a config follows have it.
CHANGED = {
    "lstm_1b.yaml": {".model.init_args.init": "normal"},
    "lstm_wikitext103.yaml": {".model.init_args.init": "normal", ".model.init_args.carry_state": False},
    "lstm_wikitext2.yaml": {".model.init_args.init": "normal", ".model.init_args.carry_state": False},
    "lstm_wikitext2_tied.yaml": {".model.init_args.optimizer.init_args.weight_decay": 1e-6},
    "lstm_wikitext2_gradual.yaml": {
        ".model.init_args.optimizer.init_args.weight_decay": 1e-6,
        ".pruning.init_args.schedule.init_args.begin": 0.05001,
        ".pruning.init_args.schedule.init_args.end": 0.57501,
    },
    "lstm_pydoc.yaml": {".data.init_args.level": None},  # words, unless subwords are asked for
}


@pytest.mark.parametrize("name", OLD)
def test_the_names_of_0_1_0_train_as_before(name):
    as_then = ["--pruning.criterion.variant", "paper"] if "JacobianSpectrum" in OLD[name].values() else []
    found = of_its_variant(flat(printed("--config", name, *as_then)))
    assert {key: found.get(key) for key in OLD[name]} == OLD[name] | CHANGED.get(name, {})
    lists = [key for key in OLD[name] if key.endswith("class_path") and "callbacks" in key]
    assert [key for key in found if key.endswith("class_path") and "callbacks" in key] == lists


def test_anchors_that_stand_for_billions_or_for_themselves_are_refused(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(UsageError, match="stands for more than 1,000,000 values"):
        read_config(str(tmp_path / "bomb.yaml"))
    with pytest.raises(UsageError, match="refers to itself"):
        parse_config("a: &a {b: *a}")
    assert parse_config("{a: &a [1, 2], b: *a}") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("files", [{"a.yaml": "a.yaml"}, {"a.yaml": "./b.yaml", "b.yaml": "a.yaml"}])
def test_a_pruning_section_that_comes_back_to_itself_is_refused(tmp_path, monkeypatch, refused, files):
    monkeypatch.chdir(tmp_path)
    for name, pruning in files.items():
        Path(name).write_text(f"pruning: {pruning}\n")
    with pytest.raises(UsageError, match=rf"of {files['a.yaml']} names a\.yaml, so that it would be its own"):
        read_config("a.yaml")
    assert "it would be its own" in refused("fit", "--config", "gru_digits.yaml", "--config", "a.yaml")


def test_what_is_no_text_is_refused(tmp_path, refused):
    (tmp_path / "mine.yaml").write_bytes(b"\xc2\x20")
    with pytest.raises(UsageError, match=r"mine\.yaml is no YAML: it is no text in UTF-8"):
        read_config(str(tmp_path / "mine.yaml"))
    assert "is no text in UTF-8" in refused("fit", "--config", str(tmp_path / "mine.yaml"))


def test_a_config_beside_overlays_that_says_nothing_of_pruning_takes_none_away(tmp_path):
    folder = tmp_path / "pruning"
    folder.mkdir()
    for name, text, overlay in (
        ("base.yaml", "pruning: OneShotPruning", True),
        ("small.yaml", "model: {init_args: {hidden_size: 8}}", False),
        ("dense.yaml", "pruning: null", False),
    ):
        (folder / name).write_text(text)
        assert is_overlay(str(folder / name)) is overlay


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pruning: GradualPruning", ("GradualPruning", {})),
        ("pruning: {class_path: GradualPruning, init_args: }", ("GradualPruning", {})),
        ("pruning: {init_args: {sparsity: 0.5}}", (None, {"sparsity": 0.5})),
        ("pruning: [1, 2]", (None, {})),
        ("pruning: {class_path: 3, init_args: 4}", (None, {})),
        ("model: lstm", (None, {})),
    ],
)
def test_a_section_has_a_class_and_arguments_in_every_form(text, found):
    assert section(parse_config(text), "pruning") == found


def test_a_name_that_is_too_long_for_a_file_is_one_that_is_not_there():
    with pytest.raises(MissingFileError, match="There is no config 'xxx"):
        find_config("x" * 300)
