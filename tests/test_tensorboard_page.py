"""TensorBoard on the folder of two runs: what it serves, and what its page shows in a browser.

The browser is Debian's chromium; ``.ci/browser`` installs it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from urllib.request import Request, urlopen

import pytest

from sparse_rnn.cli import main

CHROMIUM = shutil.which("chromium")
QUICK = [
    *("--model.hidden_size", "6", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"),
    *("--trainer.limit_train_batches", "2", "--trainer.log_every_n_steps", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
]
SCALARS = [
    "sparsity/rnn.weight_hh_l0/n",
    "connections/rnn.l0/input_to_recurrent",
    "spectrum/rnn.l0/chi",
    "val/error",
]
MAP = "connections/rnn.l0/map"


@pytest.fixture(scope="module")
def address():
    """Trains a pruned and a dense network from the command line, and starts TensorBoard on their folder."""
    with tempfile.TemporaryDirectory() as folder:
        # The monitor is the last of the config's callbacks, and so the one that an argument means.
        quick = [*QUICK, "--trainer.callbacks.connection_map", "true", "--trainer.default_root_dir", folder]
        for pruning in ([], ["--pruning", "null"]):
            main(["fit", "--config", "gru_digits.yaml", *quick, *pruning])
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", "0", "--load_fast", "false"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            yield next(found[0] for line in server.stderr if (found := re.search(r"http://\S+/", line)))
            server.terminate()


def served(address, path, body=None):
    request = Request(address + path, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)


def runs():
    return [f"lightning_logs/version_{version}" for version in (0, 1)]


@pytest.mark.slow
def test_tensorboard_serves_scalars_table_groups_and_map(address):
    scalars = served(address, "data/plugin/scalars/tags")
    images = served(address, "data/plugin/images/tags")
    for run in runs():
        assert set(SCALARS) <= scalars[run].keys()
        assert MAP in images[run]
    layout = served(address, "data/plugin/custom_scalars/layout")
    assert "spectrum of the temporal Jacobian" in [category["title"] for category in layout["category"]]
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    wanted = {"experimentName": "", "allowedStatuses": statuses, "startIndex": 0, "sliceSize": 9}
    groups = served(address, "data/plugin/hparams/session_groups", wanted)["sessionGroups"]
    assert {group["name"]: group["hparams"]["criterion"] for group in groups} == dict(
        zip(runs(), ["JacobianSpectrum", "dense"], strict=True)
    )
    for group in groups:
        [metric] = group["metricValues"]
        assert metric["name"]["tag"] == "val/error"
        assert 0 <= metric["value"] <= 100
    columns = served(address, "data/plugin/hparams/experiment", {"experimentName": ""})["hparamInfos"]
    assert [column["name"] for column in columns[:5]] == ["cell", "criterion", "hidden", "seed", "sparsity"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: .ci/browser installs it")
def test_the_page_shows_them(address, tmp_path):
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # chromium refuses root a sandbox
    command = [CHROMIUM, "--headless=new", "--disable-gpu", *sandbox, f"--user-data-dir={tmp_path}"]
    # The page loads its data by and by; time that is virtual passes as fast as it does.
    command += ["--virtual-time-budget=30000", "--window-size=1600,4000", "--dump-dom", f"{address}#timeseries"]
    page = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    for text in ("HParams", "Custom Scalars", MAP, "connections/rnn.l0/input_to_recurrent", *runs()):
        assert text.lower() in page.lower()
