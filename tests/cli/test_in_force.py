import pytest
from jsonargparse import Namespace

from sparse_rnn.cli.in_force import kept_settings


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_an_option_that_the_checkpoint_overrides_is_refused(fitted, refused, run, digits):
    _, checkpoint = fitted()
    words = ["test", *digits, "--ckpt_path", str(checkpoint)]
    assert "--model.hidden_size 7: the network of the checkpoint has 6" in refused(*words, "--model.hidden_size", "7")
    assert "--model.cell lstm: the network of the checkpoint has gru" in refused(*words, "--model.cell=lstm")
    run(*words, "--model.cell", "gru")


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--pruning", "GradualPruning"], "sparsity 0.95, criterion JacobianSpectrum"),
        (["--pruning", "GradualPruning", "--pruning.criterion", "magnitude"], "sparsity 0.95"),
        (["--pruning=GradualPruning", "--pruning.criterion=magnitude", "--pruning.sparsity=0.5"], None),
        (["--pruning", "OneShotPruning"], None),
        (["--pruning", "null"], None),
        (["--config", "pruning/gradual.yaml"], None),
    ],
)
def test_what_another_callback_keeps_of_the_config_s_is_said(words, kept):
    sparsity, criterion = 0.95, Namespace(class_path="sparse_rnn.JacobianSpectrum")
    name = "OneShotPruning" if "OneShotPruning" in words else "GradualPruning"
    pruning = Namespace(class_path=f"sparse_rnn.{name}", init_args=Namespace(sparsity=sparsity, criterion=criterion))
    said = kept_settings(["fit", "--config", "gru_digits.yaml", *words], None if "null" in words else pruning)
    assert said == (kept and f"GradualPruning keeps from the OneShotPruning of the config: {kept}.")


@pytest.mark.filterwarnings("ignore:GradualPruning. frequency")
def test_it_is_said_before_the_fit(run, digits, caplog):
    run("fit", *digits, "--pruning", "GradualPruning", "--pruning.criterion", "magnitude")
    assert "GradualPruning keeps from the OneShotPruning of the config: sparsity 0.95." in caplog.text


def test_a_test_without_a_checkpoint_warns(run, digits):
    with pytest.warns(UserWarning, match="test without --ckpt_path: the network is as it was initialised"):
        run("test", *digits)


@pytest.mark.parametrize("text", ["pruning: OneShotPruning", "pruning: {class_path: OneShotPruning, init_args: }"])
def test_a_config_may_name_its_callback_alone(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    pruning = Namespace(class_path="sparse_rnn.GradualPruning", init_args=Namespace(sparsity=0.9))
    assert (
        kept_settings(["fit", "--config", str(tmp_path / "mine.yaml"), "--pruning", "GradualPruning"], pruning) is None
    )


def test_a_checkpoint_of_another_class_is_refused_before_anything_is_made(fitted, refused, digits, tmp_path):
    _, checkpoint = fitted()
    before = set(tmp_path.rglob("*"))
    for command in ("fit", "validate"):
        said = refused(command, "--config", "lstm_pydoc.yaml", "--ckpt_path", str(checkpoint))
        assert (
            "it holds a sparse_rnn.modules.SequenceClassifier, and the config a sparse_rnn.modules.LanguageModel"
            in said
        )
    assert set(tmp_path.rglob("*")) == before
