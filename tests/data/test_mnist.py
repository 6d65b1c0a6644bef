"""SequentialMNIST on IDX files made here, and on the real ones where they are."""

import gzip
import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mnist_files import idx, images, labels

from sparse_rnn.data import DataError, SequentialMNIST, mnist
from sparse_rnn.errors import UsageError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = mnist.SHA256

needs_mnist = pytest.mark.skipif("SPARSE_RNN_DATA" not in os.environ, reason="SPARSE_RNN_DATA is not set")


@pytest.fixture
def folder(mnist_files) -> Path:
    return mnist_files


@pytest.fixture(scope="module")
def real() -> SequentialMNIST:
    return SequentialMNIST()


def error_of(data: SequentialMNIST) -> str:
    with pytest.raises(DataError) as caught:
        data.setup("fit")
    message = str(caught.value)
    assert "\n" not in message
    assert re.search(r": place the original .* in .*, or try gru_digits.yaml, which needs no download\.$", message)
    return message


@pytest.mark.parametrize(("order", "steps", "inputs"), [("rows", 28, 28), ("pixels", 784, 1), ("permuted", 784, 1)])
def test_each_order_gives_sequences_of_its_shape(order, steps, inputs, folder):
    data = SequentialMNIST(order=order, root=folder, batch_size=5)
    data.prepare_data()
    data.setup("fit")
    x, y = next(iter(data.train_dataloader()))
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((5, steps, inputs), torch.float32, (5,), torch.int64)
    assert (data.input_size, data.num_classes) == (inputs, 10)


def test_pixels_keep_their_places_and_are_divided_by_255(folder):
    x, y = SequentialMNIST(root=folder).splits.test.tensors
    assert torch.equal(x, torch.tensor(images("t10k"), dtype=torch.float32) / 255)
    assert y.tolist() == labels("t10k").tolist()
    assert (x.min(), x.max()) == (0, 1)


def test_pixels_follow_one_another_row_by_row(folder):
    rows, pixels = (SequentialMNIST(order=order, root=folder).splits.test.tensors[0] for order in ("rows", "pixels"))
    assert torch.equal(pixels[:, :, 0], rows.flatten(1))


def test_scale_is_the_largest_pixel(folder):
    x, _ = SequentialMNIST(root=folder, scale=0.1).splits.test.tensors
    torch.testing.assert_close(x, torch.tensor(images("t10k"), dtype=torch.float32) / 2550)


def test_one_permutation_of_the_pixels_serves_every_split_and_seed(folder):
    def permutation(split: str, seed: int) -> list[int]:
        plain, permuted = (
            getattr(SequentialMNIST(order=order, seed=seed, root=folder).splits, split).tensors[0][..., 0]
            for order in ("pixels", "permuted")
        )
        # Each step's column of values over the images identifies its pixel, given enough images.
        keys = {tuple(column.tolist()): pixel for pixel, column in enumerate(plain[:16].T)}
        return [keys[tuple(column.tolist())] for column in permuted[:16].T]

    first = permutation("train", 0)
    assert sorted(first) == list(range(784))
    assert first != list(range(784))
    assert first == permutation("test", 0) == permutation("train", 1)
    assert first[:6] == [60, 361, 167, 578, 107, 772], "it must not change: results depend on it"


def test_standard_split_divides_the_training_images(folder):
    train, val, _ = SequentialMNIST(root=folder).splits
    parts = [image.tolist() for split in (train, val) for image in split.tensors[0]]
    whole = (torch.tensor(images("train"), dtype=torch.float32) / 255).tolist()
    assert (len(train), len(val)) == (22, 2)
    assert sorted(parts) == sorted(whole)
    assert parts != whole


def test_paper_split_trains_on_the_first_3000_test_images_too(folder):
    train, val, test = SequentialMNIST(root=folder, split="paper").splits
    expected = np.concatenate([images("train"), images("t10k")[:3000]])
    assert torch.equal(train.tensors[0], torch.tensor(expected, dtype=torch.float32) / 255)
    assert train.tensors[1].tolist() == [*labels("train"), *labels("t10k")[:3000]]
    for split in (val, test):
        assert torch.equal(split.tensors[0], torch.tensor(images("t10k")[3000:], dtype=torch.float32) / 255)
        assert split.tensors[1].tolist() == labels("t10k")[3000:].tolist()


def test_what_is_held_out_of_the_paper_split_is_trained_on_in_its_results(folder):
    whole = SequentialMNIST(root=folder, split="paper").splits
    train, val, test = SequentialMNIST(root=folder, split="paper", hold_out=0.1).splits
    assert len(val) == round(0.1 * len(whole.train))
    for at in range(2):
        assert torch.equal(torch.cat([train.tensors[at], val.tensors[at]]), whole.train.tensors[at])
        assert torch.equal(test.tensors[at], whole.test.tensors[at])


def test_predict_goes_over_the_test_set_in_order(folder):
    data = SequentialMNIST(root=folder)
    expected = data.splits.test.tensors[1]
    assert torch.equal(torch.cat([y for _, y in data.predict_dataloader()]), expected)
    assert torch.equal(torch.cat([y for _, y in data.test_dataloader()]), expected)
    assert torch.equal(torch.cat([y for _, y in data.val_dataloader()]), data.splits.val.tensors[1])


def test_folder_is_the_root_then_the_variable_then_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSE_RNN_DATA", str(tmp_path))
    assert SequentialMNIST(root=tmp_path / "own").folder == tmp_path / "own"
    assert SequentialMNIST().folder == tmp_path / "mnist"
    monkeypatch.delenv("SPARSE_RNN_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert SequentialMNIST().folder.parts[-2:] == ("sparse_rnn", "mnist")


@pytest.mark.parametrize("bad", [{"order": "columns"}, {"split": "half"}])
def test_unknown_choices_are_refused(bad):
    ((name, value),) = bad.items()
    with pytest.raises(UsageError, match=f"{name}='{value}': choose one of"):
        SequentialMNIST(**bad)


def test_missing_file(folder):
    (folder / TEST_LABELS).unlink()
    assert f"{folder / TEST_LABELS} is missing: " in error_of(SequentialMNIST(root=folder))


def test_a_file_that_is_no_gzip(folder, place):
    place(TRAIN_IMAGES, b"<html>not found</html>", trusted=False)
    assert f"{folder / TRAIN_IMAGES} is no intact gzip file (" in error_of(SequentialMNIST(root=folder))


def test_only_what_is_missing_is_downloaded(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(mnist, "download", lambda *arguments: asked.append(arguments))
    (tmp_path / TRAIN_LABELS).write_bytes(b"as the user placed it")
    SequentialMNIST(root=tmp_path).prepare_data()
    missing = [file for file in mnist.SHA256 if file != TRAIN_LABELS]
    assert [arguments[:4] for arguments in asked] == [
        (file, mnist.SHA256[file], tmp_path, mnist.MIRRORS) for file in missing
    ]


def test_files_that_cannot_be_had_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:1/",))
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte.gz is missing and .* or try gru_digits.yaml"
    ) as caught:
        SequentialMNIST(root=tmp_path).prepare_data()
    assert f"in {tmp_path}," in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [".download.lock"]


def test_published_mirrors_are_several():
    assert len({mirror.split("/")[2] for mirror in mnist.MIRRORS}) >= 2
    assert mnist.MIRRORS[-1] == "http://yann.lecun.com/exdb/mnist/"


def test_wrong_checksum(folder, place):
    contents = gzip.compress(idx(labels("train")[::-1]))
    place(TRAIN_LABELS, contents, trusted=False)
    message = error_of(SequentialMNIST(root=folder))
    assert f"{folder / TRAIN_LABELS} has the SHA-256 checksum {hashlib.sha256(contents).hexdigest()}" in message
    assert f"where {mnist.SHA256[TRAIN_LABELS]} was expected" in message


@pytest.mark.parametrize(
    ("pixels", "found"),
    [(np.zeros((23, 28, 28)), "23 x 28 x 28 pixels beside 24 labels"), (np.zeros((24, 14, 56)), "24 x 14 x 56 pixels")],
)
def test_images_that_do_not_fit_the_labels(pixels, found, folder, place):
    place(TRAIN_IMAGES, gzip.compress(idx(pixels)))
    assert f"{folder / TRAIN_IMAGES} has {found}" in error_of(SequentialMNIST(root=folder))


@needs_mnist
def test_real_mnist_has_the_published_statistics(real):
    train, val, test = real.splits
    assert [len(split) for split in real.splits] == [55_000, 5_000, 10_000]
    x, y = (torch.cat(pair) for pair in zip(train.tensors, val.tensors, strict=True))
    assert y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.tensors[1].bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert x.double().mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert x.double().std().item() == pytest.approx(0.3081, abs=5e-5)


@needs_mnist
def test_real_paper_split(real):
    train, val, test = SequentialMNIST(split="paper").splits
    assert [len(train), len(val), len(test)] == [63_000, 7_000, 7_000]
    x, y = real.splits.test.tensors
    assert torch.equal(train.tensors[0][60_000:], x[:3000])
    assert torch.equal(val.tensors[0], x[3000:])
    assert torch.equal(test.tensors[1], y[3000:])
