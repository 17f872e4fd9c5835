"""Verdicts and tables of notebook 05_real_life_m."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas

from compendium.claims import published, verdicts
from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED, Finding
from compendium.common.size_sweeps import COMBINED, SizeResult, extent, select
from compendium.nb05_real_life_m.measure import (
    SMALL_LAMBDA,
    SingleImage,
    in_both_bands,
    out_of_reach_share,
    published_table3,
    table3_agrees,
    table3_band,
)

# ------------------------------------------------------------------------------------------------ §4.5, Table 3


def judge_table3(run: Any, results: Sequence[SizeResult], single: SingleImage) -> None:
    """Set every number of Table 3 beside our two in a run's record.

    Parameters
    ----------
    run : record.Run
    results : sequence of SizeResult
        Of MNIST, both modes; sizes that the table has not are left out.
    single : SingleImage
        What was tried for m = 1 in the as-published mode.
    """
    by_size = {m: {r.mode: r for r in select(results, row="MNIST", size=m)} for m, *_ in published_table3()}
    both = {m: found for m, found in by_size.items() if len(found) == 2}
    excess = [both[m][AS_PUBLISHED].r1.mean() / r1.value - 1 for m, r1, _ in published_table3() if m in both]
    hits = [what for what, result in single.alternatives.items() if in_both_bands(result)]
    one = (
        f"the defaults cannot run with one suspect, here it was given twice; of {len(single.alternatives)} "
        f"alternatives that were tried, both printed numbers come out of: {', '.join(hits) or 'none'}"
    )

    def cause(printed: published.Published, _: Any) -> str:
        side, m = re.fullmatch(r"(R\d) m=(\d+)", printed.column).groups()
        why = _cause(side.lower(), printed, both[int(m)], extent(excess, "+.0%"))
        return "; ".join(part for part in (why, one if m == "1" else "") if part)

    ours = {
        entry.key: {mode: round(r.summary(side).mean, 2) for mode, r in both[m].items()}
        for m, *entries in published_table3()
        if m in both
        for side, entry in zip(("r1", "r2"), entries, strict=True)
    }
    verdicts.judge_numbers(run, ours, table3_agrees, cause)


def _cause(side: str, printed: published.Published, ours: Mapping[str, SizeResult], excess: str) -> str:
    """Say why; `excess`: by how much R1 as published differs from the printed, over all m."""
    as_published, corrected = ours[AS_PUBLISHED], ours[CORRECTED]
    holds = {mode: table3_agrees(r.summary(side).mean, printed) for mode, r in ours.items()}
    if holds[CORRECTED]:
        median = float(np.median(getattr(corrected, side)))
        reasons = {
            f"a few draws carry the corrected mean: its median is {median:.2f}": not table3_agrees(median, printed),
            "as published it does not agree": not holds[AS_PUBLISHED],
            "corrected R2 is no smaller: the number agrees, and no difference between R1 and R2 does":
                side == "r1" and corrected.r1.mean() <= corrected.r2.mean(),
        }  # fmt: skip
        return "; ".join(reason for reason, applies in reasons.items() if applies)
    share = f"{out_of_reach_share(as_published):.0%} of the clean draws"
    if not holds[AS_PUBLISHED]:
        if side == "r1":
            return f"unknown network: over all m our as-published R1 differs by {excess} from the printed"
        return f"{share} carry the mean: few, hence no steady number"
    if side == "r1":
        return "unsquared kernel and unclipped FGSM, the software of May 2017"
    return (
        f"unsquared kernel; {share} choose a λ below {SMALL_LAMBDA:g}, as if their few images were out of every "
        "kernel's reach"
    )


def table3_frame(run: Any) -> pandas.DataFrame:
    """Show a run's comparisons with Table 3: published, as published, corrected, band, verdict; see `table3_causes`."""
    frame = verdicts.rows(run, "Table 3").set_index("column").rename(columns={"as_published": AS_PUBLISHED})
    printed = {entry.column: entry for _, *entries in published_table3() for entry in entries}
    frame["published"] = [f"{e.value:.2f} ({e.low:.2f}, {e.high:.2f})" for e in map(printed.get, frame.index)]
    frame["band"] = ["{:.2f} to {:.2f}".format(*table3_band(printed[column])) for column in frame.index]
    return frame[["published", AS_PUBLISHED, CORRECTED, "band", "verdict"]]


def table3_causes(run: Any) -> list[str]:
    """List the causes in a run's comparisons with Table 3, each once, after the columns that it explains.

    Causes that differ by a median alone are one, with the range of the medians.
    """
    rows = verdicts.rows(run, "Table 3")
    rows = rows[rows["cause"] != ""]
    number = r"(?<=its median is )[^;]+"
    medians = rows["cause"].str.extract(f"({number})", expand=False).astype(float)
    lines = []
    for cause, same in rows.groupby(rows["cause"].str.replace(number, "{}", regex=True), sort=False):
        values = medians[same.index].dropna()
        words = cause.format(extent(values)) if len(values) else cause
        lines.append(f"{', '.join(same['column'])}: {words}")
    return lines


# ------------------------------------------------------------------------------------------------ sentences of §4.5


def judge_claims(run: Any, mnist: Sequence[SizeResult], cifar: Sequence[SizeResult]) -> None:
    """Judge the two sentences of §4.5 by sweeps in both modes.

    Raises
    ------
    ValueError
        When mnist has no size of 1.
    """
    findings = {"one_suspect_flagged": one_suspect_flagged(mnist), "same_auroc_on_colour": same_auroc(mnist, cifar)}
    verdicts.judge_sentences(run, findings)


def one_suspect_flagged(mnist: Sequence[SizeResult]) -> Finding:
    """Whether at m = 1 (the image given twice) 95 % of attacked images are flagged at 5 % false alarms on MNIST."""
    single = {r.mode: r for r in select(mnist, row="MNIST", size=1)}
    if not single:
        raise ValueError(f"mnist must hold a size of 1 for this sentence, but holds {sorted({r.size for r in mnist})}")
    return Finding(
        {mode: r.attack.tpr_at_5_fpr >= 0.95 for mode, r in single.items()},
        {
            mode: f"R1 = {r.summary('r1').mean:.2f}, R2 = {r.summary('r2').mean:.2f}; {r.attack.tpr_at_5_fpr:.0%} of "
            f"single images flagged at 5 % false alarms, AUROC {r.attack.auroc:.2f}"
            for mode, r in single.items()
        },
        {
            "noise_as_published": single[AS_PUBLISHED].control.tpr_at_5_fpr,
            "noise_corrected": single[CORRECTED].control.tpr_at_5_fpr,
            "outside": single[AS_PUBLISHED].outside_share,
        },
    )


def same_auroc(mnist: Sequence[SizeResult], cifar: Sequence[SizeResult]) -> Finding:
    """Whether AUROC on CIFAR-10 combined is within 0.1 of MNIST's at every size that both sweeps have."""
    holds, words = {}, {}
    for mode in (AS_PUBLISHED, CORRECTED):
        ours = {r.size: r.attack.auroc for r in select(mnist, mode=mode, row="MNIST")}
        others = {r.size: r.attack.auroc for r in select(cifar, mode=mode, row=COMBINED) if r.size in ours}
        holds[mode] = all(abs(ours[size] - value) < 0.1 for size, value in others.items())
        pairs = [f"{ours[size]:.2f} and {value:.2f} at m = {size}" for size, value in others.items()]
        words[mode] = "AUROC on MNIST and CIFAR-10: " + ", ".join(pairs)
    return Finding(holds, words)
