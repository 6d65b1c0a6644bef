"""``python -m sparse_rnn``."""

from sparse_rnn.cli import main

if __name__ == "__main__":
    main()
