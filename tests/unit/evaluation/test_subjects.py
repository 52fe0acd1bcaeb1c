from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from softcam.evaluation.subjects import Remembered, choose_subject, forward_of


class Brightness(nn.Module):
    """Three classes: the mean of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


class Counted:
    """A forward pass that counts the images that it runs."""

    def __init__(self) -> None:
        self.run: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.run.append(len(images))
        return forward_of(Brightness())(images)


IMAGES = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_no_image_is_run_twice() -> None:
    counted = Counted()
    remembered = Remembered(counted)
    expected = Brightness()(IMAGES)
    torch.testing.assert_close(remembered(IMAGES[:4]), expected[:4])
    # Known and new ones in another order, one of the new ones twice.
    order = [5, 0, 3, 4, 5, 1]
    torch.testing.assert_close(remembered(IMAGES[order]), expected[order])
    torch.testing.assert_close(remembered(IMAGES.flip(0)), expected.flip(0))
    assert counted.run == [4, 2]


def test_an_image_is_its_values_whatever_its_layout() -> None:
    counted = Counted()
    remembered = Remembered(counted)
    remembered(IMAGES)
    remembered(IMAGES.contiguous(memory_format=torch.channels_last))
    assert counted.run == [6]
    changed = IMAGES.clone()
    changed[2, 1, 3, 3] += 1e-6
    torch.testing.assert_close(remembered(changed), Brightness()(changed))
    assert counted.run == [6, 1]


def test_a_forward_pass_knows_no_gradient_and_keeps_the_model() -> None:
    weights = nn.Conv2d(3, 2, 4)
    model = nn.Sequential(weights, nn.Flatten())
    logits = forward_of(model)(IMAGES)
    assert not logits.requires_grad
    torch.testing.assert_close(logits, model(IMAGES))


def test_the_subject_is_the_most_probable_class() -> None:
    subject = choose_subject(Brightness(), IMAGES, ("mean",))
    probabilities = Brightness()(IMAGES).softmax(1)
    assert torch.equal(subject.target, probabilities.argmax(1))
    torch.testing.assert_close(subject.before, probabilities.amax(1))
    torch.testing.assert_close(subject.filled["mean"], torch.full((6,), 1 / 3))
    assert subject.truth is None


def test_another_forward_pass_is_asked_instead_of_the_model() -> None:
    counted = Counted()
    subject = choose_subject(nn.Identity(), IMAGES, ("mean",), forward=counted)
    subject.predict(IMAGES)
    # The wholly filled images are all alike.
    assert counted.run == [6, 1]


def test_log_odds_are_of_each_class_against_all_others() -> None:
    subject = choose_subject(Brightness(), IMAGES, ())
    odds = subject.log_odds(IMAGES)
    probabilities = Brightness()(IMAGES).double().softmax(1)
    torch.testing.assert_close(odds, (probabilities / (1 - probabilities)).log())
    # Where the probability of a class is 1 in any precision, the odds still tell the images apart.
    certain = torch.tensor([500.0, 1000.0])[:, None, None, None] * torch.tensor([1.0, 0, 0])[:, None, None]
    torch.testing.assert_close(
        subject.log_odds(certain.expand(2, 3, 4, 4))[:, 0],
        torch.tensor([500.0, 1000.0]).double() - torch.tensor(2.0).double().log(),
    )


def test_part_of_a_subject() -> None:
    truth = torch.eye(6, dtype=torch.bool)[:, :4, None].expand(6, 4, 4)
    subject = replace(choose_subject(Brightness(), IMAGES, ("mean", "blur")), truth=truth)
    assert subject.take(torch.ones(6, dtype=torch.bool)) is subject
    part = subject.take(torch.tensor([False, True, False, False, True, False]))
    chosen = [1, 4]
    assert torch.equal(part.images, IMAGES[chosen])
    assert torch.equal(part.target, subject.target[chosen])
    assert torch.equal(part.before, subject.before[chosen])
    assert {name: torch.equal(values, subject.filled[name][chosen]) for name, values in part.filled.items()} == {
        "mean": True,
        "blur": True,
    }
    assert part.truth is not None
    assert torch.equal(part.truth, truth[chosen])


def test_the_second_of_two_classes_is_decided_for_from_its_threshold() -> None:
    images = torch.zeros(3, 2, 2, 2)
    # Probabilities of the second class: 0.2, 0.4 and 0.6.
    images[:, 1] = torch.tensor([0.2, 0.4, 0.6]).logit()[:, None, None]
    most = choose_subject(Brightness(), images, ())
    assert most.target.tolist() == [0, 0, 1]
    torch.testing.assert_close(most.before, torch.tensor([0.8, 0.6, 0.6]))
    reported = choose_subject(Brightness(), images, (), threshold=0.3)
    assert reported.target.tolist() == [0, 1, 1]
    torch.testing.assert_close(reported.before, torch.tensor([0.8, 0.4, 0.6]))
