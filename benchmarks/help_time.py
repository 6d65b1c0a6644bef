"""How long help takes to print, beside ``import lightning.pytorch.cli`` alone.

    python benchmarks/help_time.py [--repeats 7]

The commands take turns in one run, each in a fresh process; medians and their ratio to the import are printed.
"""

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import lightning.pytorch.cli": ["-c", "import lightning.pytorch.cli"],
    "sparse_rnn --help": ["-m", "sparse_rnn", "--help"],
    "sparse_rnn fit --help": ["-m", "sparse_rnn", "fit", "--help"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="runs of each command")
    repeats = parser.parse_args().repeats
    for command in COMMANDS.values():
        seconds(command)  # fills the file cache
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(repeats)]
    medians = {name: statistics.median(times[name] for times in rounds) for name in COMMANDS}
    yardstick = medians["import lightning.pytorch.cli"]
    for name, median in medians.items():
        print(f"{name:<30} {median:6.2f} s   {median / yardstick:5.2f} x")


if __name__ == "__main__":
    main()
