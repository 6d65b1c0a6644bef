"""``python -m sparse_rnn``."""

from sparse_rnn.cli.main import main

if __name__ == "__main__":
    main()
