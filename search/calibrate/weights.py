"""How much an error counts: by its layer's effect on the output and its band's on the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ajour.search.calibrate.prompt import probed_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ajour.search.bands import Bands
    from ajour.search.calibrate.prompt import Calibration


def weighted_errors(calibrations: Sequence[Calibration], bands: Bands) -> NDArray[np.float64]:
    """Mean errors over the prompts, in a unit that adds up: (bands, layers, heads, C)."""
    errors = np.mean([calibration.errors for calibration in calibrations], axis=0)
    return np.asarray(errors * weights(calibrations, bands)[:, :, None, None])


def weights(calibrations: Sequence[Calibration], bands: Bands) -> NDArray[np.float64]:
    """Squared error of the result per unit of a head's error: (bands, layers).

    A layer counts by its influence on the transformer's output at the nearest probed step, a band
    by what the result loses from going sparse one band earlier; both are means over the prompts.

    Args:
        calibrations: of one prompt each.
        bands: of the run.
    """
    onset = np.mean([calibration.onset for calibration in calibrations], axis=0)
    probed = np.array(probed_steps(len(bands.noise_levels)))
    nearest = np.abs(np.array(bands.middles)[:, None] - probed).argmin(axis=1)
    influences = np.maximum([calibration.influence for calibration in calibrations], 1e-9)
    influence = np.exp(np.log(influences).mean(axis=0))[nearest]
    trials = np.mean([calibration.trial for calibration in calibrations], axis=0)
    trial = (trials * influence).sum(axis=1)
    monotone = np.maximum.accumulate(onset[::-1])[::-1]
    added = monotone - np.append(monotone[1:], 0.0)
    floor = 1e-3 * monotone / len(onset)  # no band is free
    share = np.maximum(added, floor) / np.maximum(trial, 1e-12)
    return np.asarray(share[:, None] * influence)
