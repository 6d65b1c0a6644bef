"""The steps of dynamic evaluation against a plain loop of PyTorch."""

import copy

import pytest
import torch
import torch.nn.functional as F

from sparse_rnn.modules import LanguageModel
from sparse_rnn.modules.dynamic_evaluation import mean_loss, step_

WORDS, LR, DECAY = 20, 0.7, 0.1
OPTIONS = {
    "full": {},
    "sampled": {"decoder": "sampled", "num_samples": 5},
    "adaptive": {"decoder": "adaptive", "cutoffs": [5, 10], "hidden_size": 32},
    "tied": {"embedding": "tied"},
    "frozen": {"embedding": "frozen"},
}


@pytest.fixture(params=OPTIONS, ids=str)
def model(request):
    torch.manual_seed(0)
    options = {"embedding_size": 6, "hidden_size": 5, "dropout": 0.5, "init_scale": 1.0} | OPTIONS[request.param]
    model = LanguageModel(WORDS, **options).double()
    with torch.no_grad():
        model.rnn[0].weight_hh_l0[:, ::2] = 0
    return model


def plain_loss(model, x, y, state):
    h, state = model(x, state)
    if hasattr(model.decoder, "softmax"):
        counts = y.flatten() != -100
        return -model.decoder.softmax(h.flatten(0, 1)[counts], y.flatten()[counts]).output.mean(), state
    logits = h.flatten(0, 1) @ model.decoder.weight.T + model.decoder.bias
    return F.cross_entropy(logits, y.flatten()), state


def batches(count=4):
    text = torch.randint(WORDS, (2, 5 * count + 1), generator=torch.Generator().manual_seed(1))
    text[1, -2:] = 3
    y = text[:, 1:].clone()
    y[1, -2:] = -100
    return list(zip(text[:, :-1].split(5, 1), y.split(5, 1), strict=True))


def test_steps_are_those_of_sgd_towards_the_trained_weights(model):
    plain = copy.deepcopy(model).eval()
    trained = {p: p.detach().clone() for p in model.parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in plain.named_parameters()}
    ours = theirs = None
    for batch in batches():
        loss, ours = mean_loss(model, batch, ours)
        expected, theirs = plain_loss(plain, *batch, theirs)
        theirs = [tuple(part.detach() for part in layer) for layer in theirs]
        torch.testing.assert_close(loss, expected)
        step_(trained, loss, LR, DECAY)
        plain.zero_grad()
        expected.backward()
        with torch.no_grad():
            for name, p in plain.named_parameters():
                if p.requires_grad:
                    gradient = p.grad.to_dense() if p.grad.is_sparse else p.grad
                    p.copy_(p - LR * gradient + DECAY * (before[name] - p))
            plain.rnn[0].weight_hh_l0[:, ::2] = 0
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=name)
    assert not model.rnn[0].weight_hh_l0[:, ::2].any()
    assert not torch.equal(model.rnn[0].weight_hh_l0, before["rnn.0.weight_hh_l0"])
    assert all(module.training for module in model.modules())


def test_a_batch_of_padding_has_no_loss_but_a_state(model):
    loss, state = mean_loss(model, (torch.zeros(2, 3, dtype=torch.int64), torch.full((2, 3), -100)), None)
    assert loss is None
    assert state[0][0].shape[1] == 2
