r"""Temperature scaling: one number, found on validation, that makes a model's probabilities mean what they say.

What lives here, top to bottom: `temperature`, which finds it; `tempered`, logits that have it in them; `calibrated`,
what it does to a model's calibration error.

A model's logits z stand for $\log p(x \mid y) + \log\pi_y$ with the class frequencies $\pi$ that its training assumed.
Only the first part is divided by T, so that a temperature means the same whatever loss or sampling was chosen, and no
decision changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bootstrap import Patients
from .metrics import Score, calibration_scores
from .rows import with_caveats
from .scoring import Task

COLDEST, HOTTEST = 0.05, 20.0


def temperature(logits, split, *, prior=None) -> float:
    r"""The temperature of least loss on a split that was not trained on.

    $T = \arg\min_T -\sum_i \log \mathrm{softmax}\big((z_i - \log\pi)/T + \log\pi'\big)_{y_i}$ with $\pi'$ the split's
    own class frequencies (Guo et al. 2017, arXiv:1706.04599, section 4.2, where $\pi = \pi'$). Above 1: the model was
    too sure of itself.

    Args: `logits` (n, k) on `split`; `prior` (k,): class frequencies behind them (default: the split's, those of
        training).
    Returns: T, from 0.05 to 20; low for a model that is never wrong. Raises: ValueError as `metrics.evaluate`.
    """
    from scipy.optimize import minimize_scalar
    labels = Task(logits, split, prior).labels                             # refuses what does not fit
    apart = np.asarray(logits, np.float64) - _log(split.prior if prior is None else prior)
    counts = np.bincount(labels, minlength=apart.shape[1])
    there = counts > 0
    frequent = np.where(there, np.log(np.where(there, counts, 1) / len(labels)), -np.inf)

    def loss(log_T: float) -> float:
        z = apart / np.exp(log_T) + frequent
        return float(np.mean(np.logaddexp.reduce(z, axis=1) - z[np.arange(len(z)), labels]))
    found = minimize_scalar(loss, bounds=np.log([COLDEST, HOTTEST]), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def tempered(logits, T: float, prior) -> np.ndarray:
    r"""Logits with a temperature in them, $(z - \log\pi)/T + \log\pi$: the same `prior` stands behind them.

    Args: `logits` (n, k); `T` above 0; `prior` (k,), as given to `temperature`. Returns: (n, k) float64.
    """
    if not T > 0:
        raise ValueError(f"T is {T!r}; wanted a temperature above 0, from `temperature`")
    log_prior = _log(prior)
    return (np.asarray(logits, np.float64) - log_prior) / T + log_prior


@dataclass(frozen=True)
class Calibrated:
    """The temperature that validation asks for, and `scores`, the calibration error and floor on the test set with it;
    `caveats`: those of the test set."""

    temperature: float
    scores: dict[str, Score]
    caveats: tuple[str, ...] = ()

    def rows(self) -> list[dict]:
        """Records: the temperature, and each score with the suffix `tempered`."""
        rows = [{"quantity": "temperature", "value": self.temperature, "unit": "1"},
                *(score.row(name, suffix="tempered") for name, score in self.scores.items())]
        return [with_caveats(row, self.caveats) for row in rows]


def calibrated(chosen_on, val, logits, test, *, prior) -> Calibrated:
    """Find the temperature on validation and score the test set's probabilities with it.

    Args: `chosen_on` (n, k): logits on `val`; `logits`: on `test`; `prior` (k,): class frequencies behind both.
    """
    T = temperature(chosen_on, val, prior=prior)
    scores = calibration_scores(tempered(logits, T, prior), test, prior=prior)
    return Calibrated(T, scores, Patients(test).caveats)


def _log(prior) -> np.ndarray:
    prior = np.asarray(prior, np.float64)
    return np.log(prior / prior.sum())
