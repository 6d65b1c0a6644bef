from typing import Literal

import pytest

from sparse_rnn.errors import MissingFileError, UsageError, check_choice, one_line


def test_a_usage_error_is_a_value_error_and_a_missing_file_both():
    assert issubclass(UsageError, ValueError)
    with pytest.raises(UsageError):
        raise MissingFileError("no file")
    with pytest.raises(FileNotFoundError, match="no file"):
        raise MissingFileError("no file")


def test_a_choice_is_one_of_a_literal_type():
    known = Literal["gradient", "random"]
    check_choice("growth", "random", known)
    with pytest.raises(UsageError, match="growth='linear': choose one of gradient, random"):
        check_choice("growth", "linear", known)


def test_one_line_keeps_what_helps():
    message = """Parser key "pruning":
      Does not validate against any of the Union subtypes
      Subtypes: [<class 'PruningCallback'>]
      Errors:
        - Expected a dot import path string: OneShotPruner
        - Expected a <class 'NoneType'>
      Given value type: <class 'str'>"""
    assert one_line(message) == (
        'Parser key "pruning": there is no class OneShotPruner; give a name that --help lists, or an import path'
    )
