"""The command line: ``python -m sparse_rnn {fit,validate,test,predict,compare,analyze,export,bench,generate}``."""

from sparse_rnn.cli.main import main

__all__ = ["main"]
