import pytest
import torch


@pytest.mark.parametrize(
    ("option", "close"),
    [
        ("--trainer.max_epchs", "--trainer.max_epochs"),
        ("--model.hiden_size", "--model.hidden_size"),
        ("--modl.hidden_size", "--model.hidden_size"),
        ("--hidden_size", "--model.hidden_size"),
        ("--lr", "--model.optimizer.init_args.lr"),
        ("--model.optimizer.init_args.lrr", "--model.optimizer.init_args.lr"),
        ("--data.batch_sizes", "--data.batch_size"),
        ("--pruning.sparsty", "--pruning.sparsity"),
        ("--pruning.criterion.horizn", "--pruning.criterion.horizon"),
        ("--ckpt-path", "--ckpt_path"),
    ],
)
def test_an_unknown_option_gets_the_closest_with_its_full_key(refused, digits, option, close):
    line = refused("fit", *digits, option, "0.5")
    assert line.startswith(f"error: There is no option {option}; close: {close}")


def test_an_option_that_nothing_is_close_to_leads_to_the_help(refused, digits):
    assert refused("fit", *digits, "--zzz=1") == "error: There is no option --zzz: --help lists them all."


def test_a_config_s_unknown_option_is_told_of_its_class(refused, digits, tmp_path):
    (tmp_path / "mine.yaml").write_text("model: {class_path: SequenceClassifier, init_args: {hiden: 3}}")
    line = refused("fit", *digits, "--config", str(tmp_path / "mine.yaml"))
    assert line.endswith("SequenceClassifier has no option 'hiden', which a config gives it.")


def test_an_unknown_class_gets_the_closest(refused, digits):
    assert "no class OneShotPrunin; close: OneShotPruning" in refused("fit", *digits, "--pruning", "OneShotPrunin")


@pytest.mark.parametrize("args", [["fit"], ["test", "--trainer.max_epochs", "1"]])
def test_without_a_config_there_is_a_hint_at_one(refused, args):
    assert f"{args[0]} needs a model and data: give a config, as in --config gru_digits.yaml" in refused(*args)


def test_an_option_before_its_class_is_known_says_so(refused):
    assert "--model.hidden_size: it is not known yet whose option that is" in refused("fit", "--model.hidden_size", "3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed(refused, digits):
    assert "PyTorch sees no GPU here" in refused("fit", *digits, "--trainer.accelerator", "gpu")
