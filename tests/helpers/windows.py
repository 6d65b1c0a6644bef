"""A small text in windows, and the language models that are tried on it."""

import lightning.pytorch as pl
import torch

from sparse_rnn.modules import LanguageModel

WORDS, SIZE, HIDDEN, COLUMNS, STEPS = 20, 6, 5, 4, 3
SAMPLED = {"decoder": "sampled", "num_samples": 5}


class Windows:
    """Contiguous columns of a random text, cut into windows; the last target is padding."""

    def __init__(self, count, seed):
        text = torch.randint(WORDS, (COLUMNS, count * STEPS + 1), generator=torch.Generator().manual_seed(seed))
        self.x, self.y = text[:, :-1], text[:, 1:].clone()
        self.y[-1, -1] = -100
        self.batches = list(zip(self.x.split(STEPS, 1), self.y.split(STEPS, 1), strict=True))

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class Text(pl.LightningDataModule):
    vocab_size = WORDS

    def train_dataloader(self):
        return Windows(7, seed=1)

    def val_dataloader(self):
        return Windows(4, seed=2)

    test_dataloader = predict_dataloader = val_dataloader


def language_model(vocab_size=WORDS, seed=0, **options):
    torch.manual_seed(seed)
    return LanguageModel(vocab_size, **{"embedding_size": SIZE, "hidden_size": HIDDEN} | options)


def trainer(folder, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    quiet |= {"enable_checkpointing": False, "log_every_n_steps": 2, "max_epochs": 1}
    return pl.Trainer(accelerator="cpu", default_root_dir=folder, **quiet | options)
