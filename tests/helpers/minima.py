"""The least value of a function by L-BFGS, for closed forms to be held against."""

import torch


def minimise(loss, parameters, **options) -> float:
    """Move parameters to where a loss, a function of nothing, is least; give its value there."""
    optimizer = torch.optim.LBFGS(parameters, **{"max_iter": 500, "tolerance_grad": 1e-12} | options)

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return loss().item()
