from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from softcam.errors import RecipeError, RunError
from softcam.nn import SoftCAM, convert, run_until
from softcam.training import Recipe
from softcam.training.batches import Share
from softcam.training.module import Learner, Task, create_optimizer
from softcam.training.trunk import find_trunk

pytestmark = pytest.mark.filterwarnings("ignore:.*self.log.*")
IMAGES = torch.randn(4, 1, 40, 40, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 1, 0])
INDICES = torch.arange(4)
WHOLE = Share(4)


class Net(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU())
        self.tail = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.tail(self.stem(images))).flatten(1))


@pytest.fixture
def softcam() -> SoftCAM:
    torch.manual_seed(0)
    return convert(Net().eval(), images=IMAGES)


def recipe(**changes: Any) -> Recipe:
    return Recipe.from_dict({"name": "r", "stages": [{"epochs": 1}], **changes})


def learner(model: nn.Module, task: Task | None = None, **changes: Any) -> Learner:
    trunk = find_trunk(model, "stem", IMAGES) if "stages" in changes else None
    return Learner(model, recipe(**changes), task=task or Task(2), steps_per_epoch=1, trunk=trunk)


def loss(learner: Learner, images: Tensor = IMAGES) -> Tensor:
    return learner.eval().training_step((images, TARGETS, INDICES, WHOLE), 0)


def test_loss_is_cross_entropy_plus_the_penalty_of_every_image(softcam: SoftCAM) -> None:
    model = learner(softcam, penalty={"l1": 0.01, "l2": 0.1})
    with torch.no_grad():
        evidence = softcam.eval().evidence(IMAGES)
    expected = 0.0
    for image in range(4):
        maps = evidence.maps[image].double()
        logits = maps.mean((1, 2))
        expected += float(logits.exp().sum().log() - logits[TARGETS[image]]) / 4
        expected += (0.01 * float(maps.abs().sum()) + 0.1 * math.sqrt(float((maps**2).sum()))) / 4
    assert loss(model).item() == pytest.approx(expected, rel=1e-5)


def test_the_penalty_sees_the_last_image_of_a_batch(softcam: SoftCAM) -> None:
    changed = IMAGES.clone()
    changed[-1] *= 3

    def penalty(images: Tensor) -> float:
        plain, penalised = learner(softcam), learner(softcam, penalty={"l1": 1.0})
        return (loss(penalised, images) - loss(plain, images)).item()

    assert penalty(changed) != pytest.approx(penalty(IMAGES), rel=1e-3)


@pytest.mark.parametrize("factors", [(1.0, 4.0), (0.0, 1.0)])
def test_each_scale_has_its_own_penalty(factors: tuple[float, float]) -> None:
    torch.manual_seed(0)
    model = convert(Net().eval(), images=IMAGES, at=("stem", "tail"))
    settings = recipe(model={"at": ["stem", "tail"]}, penalty={"l1": 0.01, "scales": list(factors)})
    ours = Learner(model, settings, task=Task(2), steps_per_epoch=1)
    with torch.no_grad():
        scales = model.eval().scales(IMAGES)
        logits = sum(scale.logits for scale in scales)
        assert torch.allclose(logits, model(IMAGES), atol=1e-6)
        expected = float(nn.functional.cross_entropy(logits, TARGETS))
    expected += sum(0.01 * f * float(scale.maps.abs().sum()) / 4 for f, scale in zip(factors, scales, strict=True))
    assert loss(ours).item() == pytest.approx(expected, rel=1e-5)


def test_factors_for_other_scales_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"`penalty\.scales` to be one factor for each of 1 places, but got 2"):
        recipe(model={"at": [16]}, penalty={"scales": [1.0, 2.0]})


def test_without_a_penalty_no_maps_are_made(softcam: SoftCAM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SoftCAM, "evidence", lambda *_: pytest.fail("maps were made"))
    assert loss(learner(softcam)).item() > 0


def test_both_twins_have_the_same_loss(softcam: SoftCAM) -> None:
    torch.manual_seed(0)
    assert loss(learner(softcam)).item() == pytest.approx(loss(learner(Net())).item(), rel=1e-5)


@pytest.mark.parametrize("penalty", [{}, {"l1": 0.1}])
def test_cached_features_give_the_loss_and_the_gradients_of_images(softcam: SoftCAM, penalty: dict[str, float]) -> None:
    twin = copy.deepcopy(softcam)
    whole = learner(softcam, penalty=penalty)
    cached = learner(twin, penalty=penalty, stages=[{"epochs": 1, "trunk": "stem"}])
    cached.on_train_epoch_start()
    with torch.no_grad():
        features = run_until(twin.eval(), "stem", IMAGES)
    a, b = loss(whole), loss(cached, features)
    assert torch.allclose(a, b, rtol=1e-5)
    a.backward()
    b.backward()
    for (name, ours), theirs in zip(twin.named_parameters(), softcam.parameters(), strict=True):
        if "stem" in name:
            assert ours.grad is None
        else:
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_a_frozen_trunk_stays_in_eval_mode_and_thaws_afterwards(
    softcam: SoftCAM, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = learner(softcam, stages=[{"epochs": 1, "trunk": "stem"}, {"epochs": 1}])
    model.on_train_epoch_start()
    network = softcam.features.network
    assert not network.stem[1].training
    assert network.tail[1].training
    before = network.stem[1].running_mean.clone(), network.tail[1].running_mean.clone()
    model.training_step((torch.randn(4, 4, 10, 10), TARGETS, INDICES, WHOLE), 0)
    assert torch.equal(network.stem[1].running_mean, before[0])
    assert not torch.equal(network.tail[1].running_mean, before[1])
    monkeypatch.setattr(Learner, "current_epoch", 1)
    model.on_train_epoch_start()
    assert network.stem[1].training
    assert all(item.requires_grad for item in softcam.parameters())


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_norms_keep_their_statistics_and_still_learn(
    softcam: SoftCAM,
    freeze: bool,
) -> None:
    model = learner(softcam, stages=[{"epochs": 1, "freeze_norms": freeze}])
    model.on_train_epoch_start()
    norm = softcam.features.network.tail[1]
    before = norm.running_mean.clone()
    model.training_step((IMAGES, TARGETS, INDICES, WHOLE), 0).backward()
    assert torch.equal(norm.running_mean, before) is freeze
    assert norm.weight.grad is not None
    assert softcam.head.training


def test_dropout_depends_on_seed_and_epoch(softcam: SoftCAM, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(epoch: int, seed: int = 0) -> float:
        monkeypatch.setattr(Learner, "current_epoch", epoch)
        with torch.random.fork_rng():
            learner(softcam, seed=seed).on_train_epoch_start()
            return float(torch.rand(()))

    assert draw(0) == draw(0)
    assert len({draw(0), draw(1), draw(0, seed=1)}) == 3


def test_class_weights_and_smoothing_change_the_loss(softcam: SoftCAM) -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([0, 0])
    a, b = math.log1p(math.exp(-2.0)), math.log1p(math.exp(1.0))
    plain = learner(softcam).classification_loss(logits, targets)
    assert float(plain) == pytest.approx((a + b) / 2)
    mixed = torch.tensor([0, 1])
    weighted = learner(softcam, Task(2, class_weights=torch.tensor([1.0, 3.0]))).classification_loss(logits, mixed)
    assert float(weighted) == pytest.approx((a + 3 * (b - 1)) / 4)
    smooth = learner(softcam, loss={"label_smoothing": 0.2}).classification_loss(logits, targets)
    assert float(smooth) == pytest.approx((0.9 * a + 0.1 * (a + 2) + 0.9 * b + 0.1 * (b - 1)) / 2)


def test_several_labels_have_a_binary_loss_each(softcam: SoftCAM) -> None:
    logits, targets = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 1.0]])
    a, b = math.log1p(math.exp(-2.0)), math.log1p(math.exp(1.0))
    task = Task(2, multi_label=True, class_weights=torch.tensor([1.0, 5.0]))
    assert float(learner(softcam, task).classification_loss(logits, targets)) == pytest.approx((a + 5 * b) / 2)
    smooth = learner(softcam, Task(2, multi_label=True), loss={"label_smoothing": 0.2})
    expected = (0.9 * a + 0.1 * (a + 2) + 0.9 * b + 0.1 * (b - 1)) / 2
    assert float(smooth.classification_loss(logits, targets)) == pytest.approx(expected)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(softcam: SoftCAM, value: float) -> None:
    nn.init.constant_(softcam.head.classifier.bias, value)
    with pytest.raises(RunError, match=r"loss to be finite, but got nan in epoch 1, batch 1\. Lower `optimizer\.lr`"):
        loss(learner(softcam))


def test_a_penalty_without_maps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`model` to be a SoftCAM model, but got Net\. Drop the penalty"):
        learner(Net(), penalty={"l1": 1.0})


def test_weight_decay_spares_biases_and_norms(softcam: SoftCAM) -> None:
    groups = create_optimizer(softcam, recipe(optimizer={"weight_decay": 0.3})).param_groups
    kernels, others = groups
    assert {item.ndim for item in kernels["params"]} == {4}
    assert {item.ndim for item in others["params"]} == {1}
    assert (kernels["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert sum(len(group["params"]) for group in groups) == len(list(softcam.parameters()))


def test_optimizers_take_their_settings(softcam: SoftCAM) -> None:
    sgd = create_optimizer(softcam, recipe(optimizer={"name": "sgd", "lr": 0.2, "momentum": 0.8, "nesterov": False}))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.2, 0.8, False)
    assert isinstance(create_optimizer(softcam, recipe()), torch.optim.AdamW)


def test_the_learning_rate_follows_the_schedule(softcam: SoftCAM) -> None:
    model = Learner(
        softcam,
        recipe(optimizer={"lr": 0.5}, schedule={"warmup_epochs": 1, "min_lr": 0.1}, stages=[{"epochs": 2}]),
        task=Task(2),
        steps_per_epoch=2,
    )
    chosen = model.configure_optimizers()
    rates = []
    for _ in range(5):
        rates.append(chosen["optimizer"].param_groups[0]["lr"])
        chosen["optimizer"].step()
        chosen["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.25, 0.5, 0.5, 0.3, 0.1])
    assert chosen["lr_scheduler"]["interval"] == "step"


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_fused_optimizer_takes_the_steps_of_the_plain_one(softcam: SoftCAM, name: str) -> None:
    settings = {"optimizer": {"name": name, "lr": 0.01}}
    ours, theirs = (copy.deepcopy(softcam).to(memory_format=torch.channels_last) for _ in range(2))
    fused, plain = (create_optimizer(model, recipe(**settings)) for model in (ours, theirs))
    assert fused.defaults["fused"] is True
    for group in plain.param_groups:
        group["fused"] = False
    for model, optimizer in ((ours, fused), (theirs, plain)):
        for _ in range(5):
            optimizer.zero_grad()
            loss(learner(model, **settings)).backward()
            optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "fused"),
    [
        ({"optimizer": {"gradient_clip": 1.0}}, None),
        ({"optimizer": {"gradient_clip": 1.0}, "precision": "32-true"}, True),
        ({"optimizer": {"name": "sgd"}, "stages": [{"epochs": 1, "trunk": "stem"}, {"epochs": 1}]}, None),
        ({"optimizer": {"name": "adamw"}, "stages": [{"epochs": 1, "trunk": "stem"}, {"epochs": 1}]}, True),
    ],
)
def test_what_a_fused_optimizer_cannot_do_is_left_to_the_plain_one(
    softcam: SoftCAM, changes: dict[str, Any], fused: bool | None
) -> None:
    settings = Recipe.from_dict({"name": "r", "stages": [{"epochs": 1}], **changes})
    assert create_optimizer(softcam, settings).defaults["fused"] is fused


def test_without_a_fused_kernel_the_plain_one_is_taken(softcam: SoftCAM, monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.optim.AdamW

    def refuse(groups: Any, **options: Any) -> torch.optim.Optimizer:
        if options.get("fused"):
            raise RuntimeError("`fused=True` requires all the params to be on supported devices")
        return original(groups, **options)

    monkeypatch.setattr(torch.optim, "AdamW", refuse)
    assert isinstance(create_optimizer(softcam, recipe()), original)


def test_dropout_differs_between_processes(softcam: SoftCAM, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = set()
    for rank in range(3):
        monkeypatch.setattr(Learner, "global_rank", rank)
        with torch.random.fork_rng():
            learner(softcam).on_train_epoch_start()
            drawn.add(float(torch.rand(())))
    assert len(drawn) == 3


def test_the_validation_loss_does_not_depend_on_the_batches(softcam: SoftCAM) -> None:
    weights = torch.tensor([1.0, 9.0])
    model = learner(softcam, Task(2, class_weights=weights)).eval()
    with torch.no_grad():
        expected = nn.functional.cross_entropy(softcam.eval()(IMAGES), TARGETS, weight=weights)
    for rows in ([0, 1, 2], [3]):
        model.validation_step((IMAGES[rows], TARGETS[rows], INDICES[rows], Share(len(rows))), 0)
    model.validation_step((IMAGES[:1], TARGETS[:1], INDICES[:1], Share(1, 0.0, 0.0)), 0)  # counts for nothing
    assert float(model.loss_mean.compute()) == pytest.approx(float(expected), rel=1e-5)
    hits = softcam(IMAGES).argmax(1) == TARGETS
    assert float(model.accuracy.compute()) == pytest.approx(float(hits.float().mean()))
    assert len(model.auroc.target) == 2
