"""Notebook 04_transferability: its experiment, what it records, its figures."""

from dataclasses import replace
from typing import Any

from compendium.common import g17
from compendium.nb04_transferability import judge, measure

REPLICATED_IMAGES = 300
"""Images of each set that are attacked where the sentences are recorded again."""


def replicate(run: Any) -> None:
    """Record R2 of Table 2 and the sentences again with other networks and draws, under TGSM and PGD.

    JSMA is left out, because it takes longer than all the rest, and with it the two sentences that set one channel
    beside colour: within its ball no other attack fools most of MNIST. R1 of Table 2 was fitted and is not repeated.
    """
    given = run.parameters
    mode = replace(g17.CORRECTED, networks={**g17.CORRECTED.networks, "cifar10": given["colour_network"]})
    draw = {"draws": given["draws"], "batch_size": given["batch_size"]}
    whole = {s: measure.Pool.draw(s, given["images"], **draw, rng=run.rng(f"draws, {s}")) for s in measure.PARTS}
    clean = {m.name: {k: r for pool in whole.values() for k, r in pool.clean(m.kernel).items()} for m in g17.MODES}
    judge.record_real_real(run, clean)
    few = [measure.Pool.draw(s, REPLICATED_IMAGES, **draw, rng=run.rng(f"attacked, {s}")) for s in measure.PARTS]
    steps = judge.chosen_steps(run)
    table = measure.joined([measure.free_steps(few, steps, g17.AS_PUBLISHED), measure.within_ball(few, mode)])
    pgd = measure.pgd_within_ball(few, mode)
    judge.record_attacks(run, judge.by_mode(table, pgd), pgd)
    rng = run.rng("real-real by pool")
    judge.record_stationary(run, measure.real_real_by_pool(whole["mnist"].everything, g17.MODES, **draw, rng=rng))
    networks = [m.networks["mnist"] for m in g17.MODES]
    judge.record_networks(run, measure.by_network(few[0], steps, networks, g17.MODES))
