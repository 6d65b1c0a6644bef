import copy
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch import Trainer
from packaging.version import Version

from sparse_rnn import checkpoint_files
from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.cli.restoring import SafeCheckpointIO, restore_safely
from sparse_rnn.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")  # runs go on in folders of their own
COMMANDS = ("fit", "validate", "test", "predict")
since_2_6 = pytest.mark.skipif(
    Version(lightning.__version__) < Version("2.6"), reason="Lightning has no --weights_only, nor reads hyperparameters"
)


class Evil:
    """What runs code where it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    """Serves a folder by HTTP, and gives the folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def saved(jacobian):
    """What a checkpoint of a small fit holds."""
    return load_checkpoint(jacobian, mapped=False)


@pytest.mark.each_value
@pytest.mark.parametrize("packed", [torch.save, lambda evil, path: path.write_bytes(pickle.dumps(evil))])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_checkpoint_holds_is_never_run(refused, digits, served, saved, tmp_path, command, packed):
    folder, address = served
    trace = tmp_path / "trace"
    packed({**saved, "evil": Evil(trace)}, folder / "evil.ckpt")
    for path in (f"{address}/evil.ckpt", str(folder / "evil.ckpt"), f"file://{folder}/evil.ckpt"):
        assert "evil.ckpt" in refused(command, *digits, "--ckpt_path", path)
    assert not trace.exists()
    assert not (tmp_path / "lightning_logs").exists()
    pickle.loads(pickle.dumps(Evil(trace)))
    assert trace.exists()  # as it would have been


PLUGINS = [[], ["--trainer.plugins", "lightning.pytorch.plugins.io.AsyncCheckpointIO"]]


@pytest.mark.each_value
@pytest.mark.parametrize("plugins", PLUGINS)
@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_a_checkpoint_is_read_once_as_another_machine_may_answer_each_time_otherwise(
    run, digits, served, saved, tmp_path, plugins, place, monkeypatch
):
    folder, address = served
    torch.save(saved, folder / "last.ckpt")
    read = []
    reads = checkpoint_files._check_archive
    monkeypatch.setattr(checkpoint_files, "_check_archive", lambda *args: (read.append(args), reads(*args)))
    run("test", *digits, *plugins, "--ckpt_path", f"{folder if place == 'here' else address}/last.ckpt")
    assert len(read) == 1


def test_what_was_read_is_given_out_once_and_not_to_other_processes(jacobian, saved):
    io = SafeCheckpointIO(str(jacobian), saved)
    assert pickle.loads(pickle.dumps(io)).load_checkpoint(jacobian) is not saved
    assert len(pickle.dumps(io)) < 500
    assert io.load_checkpoint(jacobian) is saved
    again = io.load_checkpoint(jacobian)
    assert again is not saved
    assert again.keys() == saved.keys()


@pytest.mark.parametrize("plugins", PLUGINS)
def test_what_lightning_finds_itself_is_read_as_safely(refused, digits, saved, tmp_path, plugins):
    torch.save({**saved, "evil": Evil(tmp_path / "trace")}, tmp_path / "hpc_ckpt_1.ckpt")
    assert "holds Python's getattr" in refused("fit", *digits, *plugins, "--ckpt_path", "hpc")
    assert [found.name for found in tmp_path.iterdir()] == ["hpc_ckpt_1.ckpt"]


@since_2_6
def test_nothing_turns_that_off(refused, digits, jacobian):
    words = ["--ckpt_path", str(jacobian), "--weights_only", "false"]
    assert "what a checkpoint holds is never run" in refused("test", *digits, *words)


def test_a_checkpoint_on_another_machine_is_tested_as_here(run, digits, served, saved, capsys):
    folder, address = served
    torch.save(saved, folder / "last.ckpt")
    told = []
    for path in (str(folder / "last.ckpt"), f"{address}/last.ckpt"):
        run("test", *digits, "--ckpt_path", path)
        told.append([line for line in capsys.readouterr().out.splitlines() if "test/" in line])
    assert told[0] == told[1] != []


def test_a_file_that_is_not_there_is_missed_elsewhere_too(refused, digits, served):
    _, address = served
    assert f"no checkpoint {address}/last.ckpt" in refused("test", *digits, "--ckpt_path", f"{address}/last.ckpt")


WEIGHT = "rnn.weight_hh_l0"


def callback(checkpoint):
    [key] = [key for key in checkpoint["callbacks"] if "OneShotPruning" in key]
    return checkpoint["callbacks"], key


def masks(checkpoint):
    states, key = callback(checkpoint)
    return states[key]["masks"]


def with_mask(**changes):
    return lambda checkpoint: masks(checkpoint)[WEIGHT].update(changes)


def with_weights(weights):
    return lambda checkpoint: checkpoint["state_dict"].update(weights)


DAMAGES = {  # what changes a checkpoint, and what is said of it
    "no weights": (lambda c: c["state_dict"].clear(), "Missing key"),
    "a weight too many": (with_weights({"more": torch.ones(2)}), "Unexpected key"),
    "a weight too few": (lambda c: c["state_dict"].pop(WEIGHT), WEIGHT),
    "another shape": (with_weights({WEIGHT: torch.ones(3, 3)}), "size mismatch"),
    "a weight that is none": (with_weights({WEIGHT: "x"}), WEIGHT),
    "a sparse weight": (lambda c: c["state_dict"].update({WEIGHT: c["state_dict"][WEIGHT].to_sparse()}), "sparse_coo"),
    "a complex weight": (lambda c: c["state_dict"].update({WEIGHT: c["state_dict"][WEIGHT] * 1j}), "torch.complex64"),
    "a weight of whole numbers": (lambda c: c["state_dict"].update({WEIGHT: c["state_dict"][WEIGHT].long()}), "int64"),
    "a weight without values": (
        lambda c: c["state_dict"].update({WEIGHT: c["state_dict"][WEIGHT].to("meta")}),
        "on meta",
    ),
    "itself": (lambda c: c["loops"].update(more=c["loops"]), "contains itself"),
    "a name that is none": (with_weights({3: torch.ones(2)}), "has the key 3"),
    "an epoch of text": (lambda c: c.update(epoch="three"), "epoch should be a whole number"),
    "a negative step": (lambda c: c.update(global_step=-3), "global_step should be at least 0"),
    "callbacks in a list": (lambda c: c.update(callbacks=[1]), "callbacks should be a mapping"),
    "optimizers of numbers": (lambda c: c.update(optimizer_states=[1]), "optimizer_states should be"),
    "a state of text": (lambda c: callback(c)[0].update({callback(c)[1]: "x"}), "no state that OneShotPruning"),
    "no masks": (lambda c: callback(c)[0][callback(c)[1]].pop("masks"), "no state that OneShotPruning"),
    "masks of nothing": (lambda c: masks(c).clear(), "It has no masks"),
    "too few bits": (with_mask(bits=torch.zeros(1, dtype=torch.uint8)), "is damaged"),
    "bits of floats": (with_mask(bits=torch.zeros(9)), "is damaged"),
    "a shape of text": (with_mask(shape="big"), "is damaged"),
    "another mask's name": (lambda c: masks(c).update(other=masks(c).pop(WEIGHT)), "other"),
    "another mask's shape": (with_mask(shape=[1, 8], bits=torch.ones(1, dtype=torch.uint8)), WEIGHT),
}


@since_2_6
def test_hyperparameters_of_another_model_are_refused(refused, digits, saved, tmp_path):
    other = copy.deepcopy(saved)
    other["hyper_parameters"]["depth"] = 3
    torch.save(other, tmp_path / "other.ckpt")
    assert_refused(refused, digits, tmp_path / "other.ckpt", "SequenceClassifier takes no depth")


def assert_refused(refused, digits, path, said, commands=("fit", "test")):
    for command in commands:
        line = refused(command, *digits, "--ckpt_path", str(path))
        assert said in line, line
        assert len(line) < 700
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_a_sentence_before_anything_is_made(
    refused, digits, saved, tmp_path, damage
):
    change, said = DAMAGES[damage]
    other = copy.deepcopy(saved)
    change(other)
    torch.save(other, tmp_path / "damaged.ckpt")
    turn = list(DAMAGES).index(damage) % 2  # both commands read by one function: each damage tries one of them
    assert_refused(refused, digits, tmp_path / "damaged.ckpt", said, [("fit", "test")[turn]])


def test_another_object_is_refused(refused, digits, saved, tmp_path):
    for content, said in [(saved["state_dict"], "it is a bare state_dict"), ([1, 2], "it has no state_dict")]:
        torch.save(content, tmp_path / "damaged.ckpt")
        assert_refused(refused, digits, tmp_path / "damaged.ckpt", said)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_checkpoint_that_was_cut_or_has_changed_is_refused(refused, digits, jacobian, tmp_path, share):
    whole = jacobian.read_bytes()
    path = tmp_path / "damaged.ckpt"
    path.write_bytes(whole[: int(share * len(whole))])
    assert "torch.save did not write it, or not to its end" in refused("test", *digits, "--ckpt_path", str(path))
    assert [found.name for found in tmp_path.iterdir()] == ["damaged.ckpt"]


def test_a_checkpoint_with_another_byte_is_refused(refused, digits, jacobian, tmp_path):
    whole, weights = jacobian.read_bytes(), load_checkpoint(jacobian)["state_dict"]
    at = whole.index(weights[WEIGHT].numpy().tobytes()) + 5
    path = tmp_path / "damaged.ckpt"
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    assert "is damaged: the checksum of" in refused("test", *digits, "--ckpt_path", str(path))


def test_an_io_of_the_user_s_own_stays(tmp_path):
    class Mine(SafeCheckpointIO):
        pass

    trainer = Trainer(logger=False, accelerator="cpu", plugins=[Mine()], default_root_dir=tmp_path)
    restore_safely(trainer)
    assert type(trainer.strategy.checkpoint_io) is Mine


def test_what_is_raised_in_restoring_is_laid_to_the_checkpoint(tmp_path, saved, digits, refused):
    saved = copy.deepcopy(saved)
    saved["optimizer_states"][0].pop("param_groups")
    torch.save(saved, tmp_path / "odd.ckpt")
    as_saved = ["--pruning.sparsity", "0.75", "--pruning.num_samples", "8"]
    line = refused("fit", *digits, *as_saved, "--ckpt_path", str(tmp_path / "odd.ckpt"))
    assert "odd.ckpt does not fit this run, which cannot be restored from it: KeyError" in line
    assert not (tmp_path / "lightning_logs").exists()


def test_it_reads_what_lightning_s_own_reads(jacobian):
    ours, theirs = SafeCheckpointIO().load_checkpoint(jacobian), torch.load(jacobian, weights_only=True)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weight)
    with pytest.raises(UsageError, match=r"There is no checkpoint nowhere\.ckpt"):
        SafeCheckpointIO().load_checkpoint("nowhere.ckpt")
