"""What the options mean that several ways of pruning share; :data:`described` puts it into their docstrings."""

from __future__ import annotations

from sparse_rnn.described import described_by

SHARED = """
Args:
    sparsity: Share of the weights that are removed in the end, at least 0 and below 1: exactly round((1 -
        sparsity)·n) of the n weights stay.
    criterion: What scores the weights: a criterion or its name (``jacobian``, ``snip``, ``grasp``, ``synflow``,
        ``magnitude``, ``random``, ``graph``); those with the largest scores stay. In mid-training one that needs data
        sees the batch that the step was made on.
    kernels: Shell-style patterns of the names of the weights to prune, such as ``*weight_hh*``; null for the input
        and recurrent kernels of every recurrent layer.
    allocation: How the weights that stay are shared out: ``global`` ranks all kernels together (the paper),
        ``per_kernel`` and ``per_gate`` keep the same share of every kernel or gate, ``erk`` (Erdős-Rényi-Kernel)
        more of small kernels than of large ones. Or a mapping of shell-style patterns of kernel names to the final
        density of each kernel that matches, or to one density for each gate, such as ``{"*weight_hh*": {"n": 0.1},
        "*weight_ih*": 0.2}``; what it does not name is ranked together and keeps what is left of the total.
    keep_diagonal: Whether the diagonal of every gate of the recurrent kernels (``weight_hh``, ``weight_ch``) always
        stays, counted within the total.
    min_kept: Number of its best-scored weights that every kernel, gate and neuron (a unit's incoming weights in one
        kernel, over all gates) keeps, within the total; 0 warns where nothing is left of one.
    block_size: Units and inputs of the tiles that are kept or removed as one, such as (4, 8), cut from the upper
        left corner of every gate; where they do not divide it, those at its right and lower edges are smaller. As
        many stay as come nearest to the number of weights. Diagonals that are kept belong to no tile.
    block_score: What ranks a tile: ``max``, its largest score, or ``mean_square``, the root of the mean of their
        squares.
    rescale: Once, after pruning: ``true`` multiplies what stays of every gate of every kernel so that its second
        moment is what it was, ``chi`` what stays of the recurrent kernels of a layer, by one factor, so that its χ
        is (the mean of (J·1)² over the samples, units and last four steps); ``false`` leaves the weights alone.
    rounds: How often to score, remove some weights and score the survivors again, on the way to the sparsity; null
        for what the criterion does by itself (100 for SynFlow, 1 for all others).
    shuffle: True keeps random weights in the place of those that were chosen, in each gate of each kernel as many: the
        control that tells what the choice of single weights is worth (Frankle et al., arXiv 2009.08576).
    num_samples: Number of training samples to score on (the paper: 64), sequences as the recurrent layers get them; all
        where there are fewer. A batch is cut only where it is sure what its samples are, so there can be more.
    engine: What computes the pruned recurrent layers: ``sparse``, kernels over the weights that are kept, on a CPU in
        float32 or float64; ``dense``, PyTorch as ever; ``auto``, whichever is faster for the density, the sizes and the
        batch, which is said once. The weights stay what they are, and a run may change the engine between.
    seed: Seed of all random numbers that the pruning draws, and of the samples that it scores on; training is not
        affected by it.
"""

described = described_by(SHARED)
