import pytest

from sparse_rnn.cli import main


def test_a_study_that_does_not_exist_is_named(refused):
    assert "'prunning'" in refused("study", "prunning")
    assert "study" in refused("study")


@pytest.mark.parametrize(
    ("args", "said"), [([], "Prune trained networks"), (["pruning"], "--scopes"), (["graphs"], "--count")]
)
def test_help_says_what_is_done(capsys, args, said):
    with pytest.raises(SystemExit) as exit_:
        main(["study", *args, "--help"])
    assert exit_.value.code == 0
    assert said in " ".join(capsys.readouterr().out.split())
