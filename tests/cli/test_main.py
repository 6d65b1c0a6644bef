import errno
import gc
import os
import runpy
import signal
import subprocess
import sys
import threading
from importlib import import_module

import pytest

from sparse_rnn import errors
from sparse_rnn.cli import main
from sparse_rnn.cli.help import OURS
from sparse_rnn.sparsity import masks
from sparse_rnn.writing import written_whole


def test_an_error_in_a_model_of_the_user_s_own_keeps_its_traceback(run, digits, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from sparse_rnn.modules import SequenceClassifier\n"
        "class Mine(SequenceClassifier):\n"
        "    def forward(self, x):\n"
        "        raise ValueError('my own mistake')\n"
    )
    with pytest.raises(ValueError, match="my own mistake"):
        run("fit", *digits, "--model", "mine.Mine", "--pruning", "null")


def test_a_mistake_of_ours_keeps_its_traceback(run, digits, monkeypatch):
    def broken(self):
        for _ in zip([1], [1, 2], strict=True):
            pass

    monkeypatch.setattr(masks.Masks, "apply_", broken)
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is longer"):
        run("fit", *digits)


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, RuntimeError, KeyError])
@pytest.mark.parametrize("command", ["fit", "compare", "analyze", "export"])
def test_only_a_usage_error_takes_one_line(monkeypatch, capsys, command, kind):
    def fails(error):
        def run(args):
            raise error

        return lambda name: run

    monkeypatch.setattr(sys.modules["sparse_rnn.cli.main"], "_command", fails(kind("ours")))
    with pytest.raises(kind, match="ours"):
        main([command])
    monkeypatch.setattr(sys.modules["sparse_rnn.cli.main"], "_command", fails(errors.UsageError("theirs,\n  on two")))
    with pytest.raises(SystemExit) as exit_:
        main([command])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: theirs, on two\n"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_while_a_command_is_imported_and_is_as_it_was_when_it_runs(monkeypatch, enabled):
    seen = []

    def command(name):
        seen.append(gc.isenabled())
        return lambda args: seen.append(gc.isenabled())

    monkeypatch.setattr(sys.modules["sparse_rnn.cli.main"], "_command", command)
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        main(["fit"])
    finally:
        (gc.enable if before else gc.disable)()
    assert seen == [False, enabled]


def test_help_lists_what_there_is_and_imports_nothing_slow():
    script = "\n".join(
        [
            "import sys",
            "from sparse_rnn.cli import main",
            "try: main(['fit', '--help'])",
            "except SystemExit: print('LOADED', *sys.modules)",
        ]
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"}
    ).stdout
    text, loaded = out.split("LOADED")
    for name in ("SequenceClassifier", "SequentialMNIST", "SequentialDigits", "OneShotPruning", "--print_config"):
        assert name in text
    assert not {"sklearn", "tensorboard", "pooch", "sparse_rnn.analysis.figures"} & set(loaded.split())


@pytest.mark.parametrize("words", [["configs"], ["compare", "--help"], ["--version"]])
def test_a_reader_that_has_seen_enough_ends_it_in_silence(words, monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as exit_:
            main(words)
    assert exit_.value.code in (0, 141)  # argparse says nothing of help that nobody reads
    assert capsys.readouterr().err == ""


def test_a_pipe_of_ours_that_breaks_keeps_its_traceback(monkeypatch):
    def fails(args):
        raise BrokenPipeError(errno.EPIPE, "ours")

    monkeypatch.setattr(sys.modules["sparse_rnn.cli.main"], "_command", lambda name: fails)
    with pytest.raises(BrokenPipeError, match="ours"):
        main(["configs"])


def test_python_m_runs_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sparse_rnn", "compare", "--sparsity", "0.9"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("sparse_rnn", run_name="__main__", alter_sys=True)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: the following arguments are required: -c/--config\n"


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", OURS)
def test_a_command_that_is_stopped_cleans_up_and_says_so(command, sent, status, monkeypatch, tmp_path, capsys):
    target = tmp_path / "model.bin"
    target.write_text("before")

    def stopped(args):
        with written_whole(target) as unfinished:
            unfinished.write_text("half")
            signal.raise_signal(sent)

    monkeypatch.setattr(import_module(f"sparse_rnn.cli.{command}"), command, stopped)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a script
    try:
        with pytest.raises(SystemExit) as exit_:
            main([command])
    finally:
        signal.signal(signal.SIGINT, before)
    assert exit_.value.code == status
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]
    assert target.read_text() == "before"
    does = "goes on" if command in ("compare", "study") else "starts anew"
    assert capsys.readouterr().err.endswith(f"the same command {does}.\n")


@pytest.mark.parametrize("command", ["fit", "compare", "analyze", "export"])
@pytest.mark.parametrize(
    ("code", "name"), [(errno.ENOSPC, None), (errno.EACCES, "x"), (errno.ENAMETOOLONG, "n" * 300), (errno.EROFS, "x")]
)
def test_what_the_system_says_of_a_file_takes_one_sentence(monkeypatch, refused, command, code, name):
    def fails(args):
        raise OSError(code, os.strerror(code), name)

    monkeypatch.setattr(import_module("sparse_rnn.cli.main"), "_command", lambda name: fails)
    line = refused(command)
    assert f"({os.strerror(code)})" in line
    assert len(line) < 400


def test_what_else_the_system_refuses_keeps_its_traceback(monkeypatch, run):
    def fails(args):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(import_module("sparse_rnn.cli.main"), "_command", lambda name: fails)
    with pytest.raises(OSError, match="Bad file"):
        run("fit")


def test_a_file_in_the_place_of_a_folder_and_long_names_are_told(refused, digits, tmp_path):
    (tmp_path / "file").touch()
    assert "Not a directory" in refused("fit", *digits, "--trainer.default_root_dir", "file")
    for words in (["--trainer.default_root_dir", "n" * 300], ["--ckpt_path", "n" * 300]):
        assert "File name too long" in refused("fit", *digits, *words)
    assert f"There is no config '{'n' * 300}'" in refused("fit", *digits, "--config", "n" * 300)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


PLACES = {  # the options that take a path, each in a command that is complete otherwise
    "fit, root": ["fit", "--config", "gru_digits.yaml", "--trainer.default_root_dir"],
    "fit, data": ["fit", "--config", "gru_mnist.yaml", "--data.root"],
    "test": ["test", "--config", "gru_digits.yaml", "--ckpt_path"],
    "analyze": ["analyze", "--checkpoint", "last.ckpt", "--output"],
    "export": ["export", "--checkpoint", "last.ckpt", "--output"],
    "shrink": ["shrink", "--checkpoint", "last.ckpt", "--units", "3", "--output"],
    "compare": ["compare", "--config", "gru_digits.yaml", "--sparsity", "0.9", "--output"],
    "study": ["study", "graphs", "--config", "reber_graph.yaml", "--output"],
}


@pytest.mark.parametrize("name", ["a\0b", "folder/a\0b/c", "\udcff.x"])
@pytest.mark.parametrize("words", PLACES.values(), ids=list(PLACES))
def test_what_cannot_be_a_name_takes_one_sentence(refused, tmp_path, words, name):
    line = refused(*words, name)
    assert line == f"error: The argument {name!r} has a NUL, or is no UTF-8: give another name."
    assert list(tmp_path.iterdir()) == []


def test_nor_can_it_in_a_config(refused, digits, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text('trainer: {default_root_dir: "a\\0b"}')
    line = refused("fit", *digits, "--config", "mine.yaml")
    assert line == r"error: trainer.default_root_dir 'a\x00b' has a NUL, or is no UTF-8: give another name."
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize("words", [words for words in PLACES.values() if words[-1] == "--output"], ids=lambda w: w[0])
def test_what_is_written_is_written_here(refused, tmp_path, words):
    """The path of an address would be a folder with its scheme as its name."""
    said = "s3://bucket/x is an address: give a path on this machine."
    assert refused(*words, "s3://bucket/x") == f"error: argument --output: {said}"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_below_is_told(refused, digits, tmp_path):
    """As below a link to nowhere: there is no parent to write to, nor a way to make one."""
    (tmp_path / "link").symlink_to("nowhere")
    profiler = ["lightning.pytorch.profilers.SimpleProfiler", "--trainer.profiler.filename", "times"]
    words = ["--pruning", "null", "--trainer.profiler", *profiler, "--trainer.profiler.dirpath", "link/x"]
    assert "No such file or directory" in refused("fit", *digits, *words)


def test_an_empty_path_of_a_checkpoint_is_told(refused, digits):
    assert "ckpt_path='': give the path of a checkpoint" in refused("fit", *digits, "--ckpt_path", "")


S3 = "s3://bucket/x"
ADDRESSES = {  # options that take one, each in a command that is complete otherwise, and how it is named
    "the trainer's": (["--trainer.default_root_dir", S3], "trainer.default_root_dir"),
    "a logger's": (["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", S3], "trainer.logger.save_dir"),
    "a checkpoint's": (
        ["--trainer.callbacks", "SparseCheckpoint", "--trainer.callbacks.dirpath", S3],
        "trainer.callbacks.dirpath",
    ),
    "predictions'": (["--trainer.callbacks", "PredictionFile", "--trainer.callbacks.path", S3], "path"),
}


@pytest.mark.parametrize(("words", "name"), ADDRESSES.values(), ids=list(ADDRESSES))
def test_a_package_that_an_address_needs_is_told(refused, digits, tmp_path, monkeypatch, words, name):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    line = refused("fit", *digits, *words)
    wanted = f"{name}=s3://bucket/x cannot be reached (Install s3fs to access S3): install what is missing, or give"
    assert wanted in line, line
    assert len(line) < 300
    assert list(tmp_path.iterdir()) == []


def test_data_are_read_from_this_machine(refused, tmp_path):
    line = refused("fit", "--config", "gru_mnist.yaml", "--data.root", S3)
    assert line == "error: s3://bucket/x is an address: give a path on this machine."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "told"), [(errno.ENOSPC, False), (errno.EBADF, True)])
def test_what_a_thread_meets_on_a_full_disk_is_told_by_who_waits_for_it(monkeypatch, capsys, code, told):
    """As TensorBoard's writer of events, whose error Lightning meets again."""
    error = OSError(code, os.strerror(code))

    def writes(args):
        def fails():
            raise error

        thread = threading.Thread(target=fails)
        thread.start()
        thread.join()

    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    monkeypatch.setattr(import_module("sparse_rnn.cli.main"), "_command", lambda name: writes)
    main(["fit"])
    assert len(seen) == told
    assert threading.excepthook == seen.append
