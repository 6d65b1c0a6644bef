"""What a reconstruction of units leaves over, for choices of units to be held against."""

from sparse_rnn.pruning.structured.reconstruction import reconstruction


def lost(moment, kept, tau=0.0, weight=None) -> float:
    """Tr[W (Σ − A Σ[J, :]) Wᵀ] for the A of the kept units J under a regularisation τ; W is the identity by default."""
    residual = moment - reconstruction(moment, kept, tau) @ moment[kept]
    if weight is not None:
        residual = weight @ residual @ weight.T
    return residual.trace().item()
