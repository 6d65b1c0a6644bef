"""The command line: ``python -m sparse_rnn {fit,validate,test,predict,compare,analyze}``."""
