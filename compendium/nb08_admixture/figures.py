"""Figures of notebook 08_admixture."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, AS_PUBLISHED, CORRECTED, MARKERS, PUBLISHED, REAL, subplots
from compendium.claims import published
from compendium.common import vs22

# ---------------------------------------------------------------- 08: admixture


def _share_styles(shares: Sequence[float]) -> list[tuple[Any, str]]:
    """Colours from clean to adversarial, and line styles that say the same once more."""
    colours = LinearSegmentedColormap.from_list("share", [REAL, "#882255", ADVERSARIAL])(np.asarray(shares, float))
    return list(zip(colours, itertools.cycle(["-", (0, (1, 1)), "--", "-.", "-"]), strict=False))


def admixture_curves(results: Sequence[Any], mode: Any) -> Figure:
    """Draw VS22 Fig. 4 again in one mode: density and coverage over ε for several adversarial shares.

    Parameters
    ----------
    results : sequence of admixture.Admixture
    mode : vs22.Mode
    """
    figure, axes = subplots(2, len(results), figsize=(3.4 * len(results), 5.9), sharex=True, squeeze=False)
    for line, statistic in zip(axes, ("density", "coverage"), strict=True):
        for axis, result in zip(line, results, strict=True):
            found = result.fgsm[mode.name]
            for s, (share, (colour, style)) in enumerate(zip(found.shares, _share_styles(found.shares), strict=True)):
                values = getattr(found, statistic)[:, s]
                axis.plot(found.x, values, ls=style, color=colour, label=f"{share:.0%} adversarial")
                if statistic == "density" and 0 < share < 1:
                    axis.plot(found.x, found.line[:, s], "k.", ms=2.5, label="straight line between 0 % and 100 %")
            edge = vs22.IMPERCEPTIBLE / mode.pixel_size(result.image_set, 1.0)
            axis.axvline(
                edge, color="black", ls=(0, (1, 1)), lw=1, label="8/255 of the pixel range: visible to the right"
            )
            axis.set_title(
                f"{result.image_set.title}, {mode.name}\n{found.n_queries} against {found.n_reference} images",
                fontsize=9.5,
            )
            axis.set_ylim(bottom=-0.03 * axis.get_ylim()[1])
        line[0].set_ylabel(statistic)
    unit = "σ of the pixels" if mode.normalised_twice else "pixel range"
    for axis in axes[-1]:
        axis.set_xlabel(f"FGSM size ε (L∞, {unit})", fontsize=9)
    handles: dict[str, Any] = {}
    for handle, label in zip(*axes[0, 0].get_legend_handles_labels(), strict=True):
        handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8.5)
    return figure


def admixture_tables(results: Sequence[Any]) -> Figure:
    """Draw VS22's Tables 4 and 5: density and coverage over the share of the boundary attack's images.

    Parameters
    ----------
    results : sequence of admixture.Admixture
    """
    figure, axes = subplots(2, len(results), figsize=(3.4 * len(results), 5.9), sharex=True, squeeze=False)
    for line, (statistic, item) in zip(axes, (("density", "Table 4"), ("coverage", "Table 5")), strict=True):
        for axis, result in zip(line, results, strict=True):
            for mode, colour in zip(vs22.MODES, (AS_PUBLISHED, CORRECTED), strict=True):
                found = result.boundary[mode.name]
                references = result.boundary_references if statistic == "density" else found.n_reference
                axis.plot(
                    found.shares, getattr(found, statistic)[0], MARKERS[mode.name], color=colour,
                    label=f"{mode.name}, {found.n_queries} against {references} images",
                )  # fmt: skip
                if statistic == "density":
                    axis.plot(found.shares, found.line[0], color=colour, lw=1)
            printed = [e for e in published.load("vs22", item) if e.row == result.image_set.title]
            if printed:
                at = [float(entry.column.removeprefix("share=")) for entry in printed]
                axis.plot(
                    at, [e.value for e in printed], MARKERS["published"], color=PUBLISHED, mfc="none", label="published"
                )
            axis.set_title(f"{result.image_set.title}: {statistic} ({item})", fontsize=9.5)
            axis.set_ylim(0, 1.4 * axis.dataLim.y1)  # room for the legend
            axis.legend(fontsize=7.5, loc="upper center")
        line[0].set_ylabel(statistic)
    for axis, result in zip(axes[-1], results, strict=True):
        axis.set_xlabel(f"adversarial share\n(boundary attack, {result.boundary_steps:,} steps)", fontsize=9)
    return figure


def power_maps(results: Sequence[Any], mode: Any, statistic: str) -> Figure:
    """Draw the power of one batch over adversarial share and batch size, an attack a column, an image set a row.

    Parameters
    ----------
    results : sequence of admixture.Admixture
    mode : vs22.Mode
    statistic : str
        "density" or "coverage".
    """
    columns = max(len(result.maps[mode.name]) for result in results)
    figure, axes = subplots(
        len(results), columns, figsize=(2.5 * columns, 2.3 * len(results)), sharex=True, sharey=True, squeeze=False
    )
    for line, result in zip(axes, results, strict=True):
        for axis in line[len(result.maps[mode.name]) :]:
            axis.set_axis_off()
        for axis, found in zip(line, result.maps[mode.name], strict=False):
            power = found.power[statistic]
            shown = axis.imshow(power, cmap="cividis", vmin=0, vmax=1, aspect="auto", origin="lower")
            for (s, b), value in np.ndenumerate(power):
                if np.isnan(value):
                    axis.text(b, s, "–", ha="center", va="center")
                else:
                    axis.text(b, s, f"{value:.2f}", ha="center", va="center", fontsize=7,
                              color="black" if value > 0.55 else "white")  # fmt: skip
            axis.set_xticks(range(len(found.sizes)), [str(size) for size in found.sizes])
            axis.set_yticks(range(len(found.shares)), [f"{share:.0%}" for share in found.shares])
            axis.set_title(f"{result.image_set.title}\n{found.title}", fontsize=9)
            axis.grid(False)
        line[0].set_ylabel("adversarial share")
    for axis in axes[-1]:
        axis.set_xlabel("images in the batch, m")
    figure.colorbar(shown, ax=axes, label=f"power by {statistic} at 5 % false alarms", shrink=0.8)
    return figure
