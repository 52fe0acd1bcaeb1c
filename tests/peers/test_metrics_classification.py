"""Classification metrics against scikit-learn and torchmetrics on the same probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional import classification as tm

from softcam.metrics.classification import (
    auroc,
    average_precision,
    classification_report,
    confusion_matrix,
    precision_recall_points,
    quadratic_weighted_kappa,
    roc_points,
)

RNG = np.random.default_rng(11)
TARGETS = RNG.integers(2, size=200)
# Two decimals: many ties, and none of them at a bin's edge or at 1.
SCORES = np.clip(np.round(0.3 * TARGETS + 0.6 * RNG.random(200), 2), 0.01, 0.99) + 0.001
GRADES = RNG.integers(4, size=200)
PROBABILITIES = 0.7 * RNG.dirichlet(np.ones(4), 200) + 0.3 * np.eye(4)[GRADES]


def values(probabilities: np.ndarray, targets: np.ndarray, **arguments: object) -> dict[str, float]:
    report = classification_report(probabilities, targets, resamples=2, **arguments)  # type: ignore[arg-type]
    return {name: interval.value for name, interval in report.items()}


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_binary_report(threshold: float) -> None:
    got = values(np.stack([1 - SCORES, SCORES], 1), TARGETS, threshold=threshold)
    called = threshold <= SCORES
    expected = {
        "auroc": sk.roc_auc_score(TARGETS, SCORES),
        "average_precision": sk.average_precision_score(TARGETS, SCORES),
        "accuracy": sk.accuracy_score(TARGETS, called),
        "balanced_accuracy": sk.balanced_accuracy_score(TARGETS, called),
        "sensitivity": sk.recall_score(TARGETS, called),
        "specificity": sk.recall_score(TARGETS, called, pos_label=0),
        "precision": sk.precision_score(TARGETS, called),
        "f1": sk.f1_score(TARGETS, called),
        "brier": sk.brier_score_loss(TARGETS, SCORES),
        "ece": tm.binary_calibration_error(torch.tensor(SCORES), torch.tensor(TARGETS), n_bins=15).item(),
    }
    assert got == pytest.approx(expected)


def test_multiclass_report() -> None:
    got, called = values(PROBABILITIES, GRADES), PROBABILITIES.argmax(1)
    tensors = torch.tensor(PROBABILITIES), torch.tensor(GRADES)
    expected = {
        "auroc": sk.roc_auc_score(GRADES, PROBABILITIES, multi_class="ovr", average="macro"),
        "average_precision": sk.average_precision_score(np.eye(4)[GRADES], PROBABILITIES, average="macro"),
        "accuracy": sk.accuracy_score(GRADES, called),
        "balanced_accuracy": sk.balanced_accuracy_score(GRADES, called),
        "sensitivity": sk.recall_score(GRADES, called, average="macro"),
        "specificity": tm.multiclass_specificity(*tensors, num_classes=4, average="macro").item(),
        "precision": sk.precision_score(GRADES, called, average="macro"),
        "f1": sk.f1_score(GRADES, called, average="macro"),
        # scikit-learn sums over classes; ours halves the sum, so that two classes give the binary score.
        "brier": sk.brier_score_loss(GRADES, PROBABILITIES, scale_by_half=True),
        "ece": tm.multiclass_calibration_error(*tensors, num_classes=4, n_bins=15).item(),
    }
    assert got == pytest.approx(expected, rel=1e-5)


def test_multilabel_report() -> None:
    labels = RNG.integers(2, size=(200, 4))
    got = values(PROBABILITIES, labels, threshold=0.3)
    called = PROBABILITIES >= 0.3
    expected = {
        "auroc": sk.roc_auc_score(labels, PROBABILITIES, average="macro"),
        "average_precision": sk.average_precision_score(labels, PROBABILITIES, average="macro"),
        "accuracy": (called == labels).mean(),
        "sensitivity": sk.recall_score(labels, called, average="macro"),
        "precision": sk.precision_score(labels, called, average="macro"),
        "f1": sk.f1_score(labels, called, average="macro"),
        "brier": ((PROBABILITIES - labels) ** 2).mean(),
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected)


def test_auroc_and_average_precision_of_scores_that_are_no_probabilities() -> None:
    # torchmetrics would put such scores through a sigmoid, which ties large ones; ours takes them as they are.
    logits = 40 * SCORES
    assert auroc(logits, TARGETS) == pytest.approx(sk.roc_auc_score(TARGETS, logits), abs=1e-14)
    assert average_precision(logits, TARGETS) == pytest.approx(sk.average_precision_score(TARGETS, logits), abs=1e-14)


def test_roc_points() -> None:
    ours = roc_points(SCORES, TARGETS)
    fpr, tpr, thresholds = sk.roc_curve(TARGETS, SCORES, drop_intermediate=False)
    for got, expected in zip(ours, (fpr, tpr, thresholds), strict=True):
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)
    peer_fpr, peer_tpr, _ = tm.binary_roc(torch.tensor(SCORES), torch.tensor(TARGETS))
    torch.testing.assert_close(ours.fpr.float(), peer_fpr.float())
    torch.testing.assert_close(ours.tpr.float(), peer_tpr.float())


def test_precision_recall_points() -> None:
    precision, recall, thresholds = sk.precision_recall_curve(TARGETS, SCORES)
    # scikit-learn runs the other way and adds the point (0, 1).
    expected = recall[-2::-1], precision[-2::-1], thresholds[::-1]
    for got, peer in zip(precision_recall_points(SCORES, TARGETS), expected, strict=True):
        np.testing.assert_allclose(got.numpy(), peer, rtol=1e-12)


def test_confusion_matrix_and_kappa() -> None:
    called = PROBABILITIES.argmax(1)
    ours = confusion_matrix(called, GRADES, num_classes=4)
    np.testing.assert_array_equal(ours.numpy(), sk.confusion_matrix(GRADES, called))
    peer = tm.multiclass_confusion_matrix(torch.tensor(called), torch.tensor(GRADES), num_classes=4)
    assert torch.equal(ours, peer)
    kappa = quadratic_weighted_kappa(called, GRADES, num_classes=4, resamples=2).value
    assert kappa == pytest.approx(sk.cohen_kappa_score(GRADES, called, weights="quadratic"))
