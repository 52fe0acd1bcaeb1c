"""Maps against what the libraries themselves return."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
import torch
from captum.attr import DeepLift, GuidedBackprop, IntegratedGradients, NoiseTunnel, Occlusion, Saliency
from numpy.typing import NDArray
from pytorch_grad_cam import AblationCAM, EigenCAM, GradCAM, LayerCAM, ScoreCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from softcam.attribution import attribute
from softcam.attribution.layers import find_stages
from softcam.attribution.seeds import create_generator


class Net(nn.Module):
    """A small classifier with ReLU modules and a nonlinear head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Tanh())
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((-2, -1)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


IMAGES = torch.randn(3, 3, 20, 28, generator=torch.Generator().manual_seed(1))
TARGET = torch.tensor([0, 2, 1])


def scale_and_resize(maps: Tensor) -> NDArray[np.float32]:
    """Do to raw maps what the grad-cam library does to its own."""
    done = []
    for each in maps.numpy():
        scaled = (each - each.min()) / (1e-7 + (each - each.min()).max())
        resized = cv2.resize(scaled.astype(np.float32), (28, 20))
        done.append((resized - resized.min()) / (1e-7 + (resized - resized.min()).max()))
    return np.stack(done)


@pytest.mark.parametrize(
    ("method", "library"),
    [("grad_cam", GradCAM), ("layer_cam", LayerCAM), ("xgrad_cam", XGradCAM), ("score_cam", ScoreCAM)],
)
def test_scaled_and_resized_our_cams_are_the_librarys(method: str, library: type, net: Net) -> None:
    ours = scale_and_resize(attribute(method, net, IMAGES, TARGET))
    theirs = library(net, [net.features])(IMAGES, [ClassifierOutputTarget(int(index)) for index in TARGET])
    np.testing.assert_allclose(ours, theirs, atol=1e-4 if method == "score_cam" else 1e-5)


def test_ablation_cam_is_the_librarys_where_features_start_at_zero_and_logits_are_positive(net: Net) -> None:
    net.features[3] = nn.ReLU()
    net.head[2].bias.data += 1
    # Only where the least feature is zero does the library set channels to zero.
    features, logits = net.features(IMAGES), net(IMAGES)
    assert (features.amin((1, 2, 3)) == 0).all()
    assert (logits > 0).all()
    ours = scale_and_resize(attribute("ablation_cam", net, IMAGES, TARGET))
    theirs = AblationCAM(net, [net.features])(IMAGES, [ClassifierOutputTarget(int(index)) for index in TARGET])
    assert theirs.max() > 0.9
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_eigen_cam_is_the_librarys_up_to_its_sign(net: Net) -> None:
    cam = EigenCAM(net, [net.features])
    features = net.features(IMAGES).detach().numpy()
    signed = torch.from_numpy(cam.get_cam_image(IMAGES, net.features, [], features, None, eigen_smooth=False))
    ours = attribute("eigen_cam", net, IMAGES, TARGET)
    for mine, other in zip(ours, signed, strict=True):
        assert any(torch.allclose(mine, turned.relu(), atol=1e-5) for turned in (other, -other))


def test_eigen_cam_has_the_sign_of_seg_eigen_cam(net: Net) -> None:
    library = pytest.importorskip("pytorch_grad_cam.utils.svd_on_activations")
    if not hasattr(library, "get_2d_projection_with_sign_correction"):
        pytest.skip("this grad-cam has no Seg-Eigen-CAM")
    theirs = library.get_2d_projection_with_sign_correction(net.features(IMAGES).detach().numpy())
    ours = attribute("eigen_cam", net, IMAGES, TARGET)
    torch.testing.assert_close(ours, torch.from_numpy(theirs).relu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_finer_cam_is_the_librarys(index: int, net: Net) -> None:
    library = pytest.importorskip("pytorch_grad_cam.finer_cam", reason="grad-cam has Finer-CAM from 1.5.5")
    theirs = library.FinerCAM(net, [net.features])(IMAGES, target_idx=index)
    ours = scale_and_resize(attribute("finer_cam", net, IMAGES, torch.full((3,), index)))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_refine_cam_is_the_librarys_but_for_its_last_scaling(net: Net) -> None:
    library = pytest.importorskip("pytorch_grad_cam.refine_cam", reason="grad-cam has RefineCAM from 1.5.7")
    stages = [net.get_submodule(name) for name in find_stages(net, IMAGES, count=3)]
    assert len(stages) == 2
    theirs = library.RefineCAM(net, stages)(IMAGES, [ClassifierOutputTarget(int(index)) for index in TARGET])
    ours = attribute("refine_cam", net, IMAGES, TARGET)
    low, high = ours.amin((1, 2), keepdim=True), ours.amax((1, 2), keepdim=True)
    assert (high > 0).all()
    np.testing.assert_allclose((ours - low) / (high - low), theirs, atol=1e-3)


def two_classes() -> Net:
    torch.manual_seed(0)
    net = Net()
    net.head[2] = nn.Linear(8, 2)
    return net.eval()


def torchcam(name: str, net: Net, target: Tensor, **options: float) -> Tensor:
    library = pytest.importorskip("torchcam.methods", reason="torchcam is a second opinion, not a dependency")
    with getattr(library, name)(net, "features", input_shape=(3, 20, 28), **options) as cam:
        return cam(target.tolist(), net(IMAGES), normalized=False)[0].relu()


def test_xgrad_cam_is_that_of_torchcam(net: Net) -> None:
    torch.testing.assert_close(attribute("xgrad_cam", net, IMAGES, TARGET), torchcam("XGradCAM", net, TARGET))


def test_finer_cam_of_two_classes_is_that_of_torchcam_at_the_same_strength() -> None:
    net, target = two_classes(), torch.tensor([0, 1, 1])
    theirs = torchcam("FinerCAM", net, target, gamma=1.0)
    torch.testing.assert_close(attribute("finer_cam", net, IMAGES, target), theirs)


def test_integrated_gradients_are_captums(net: Net) -> None:
    theirs = IntegratedGradients(net).attribute(IMAGES, target=TARGET, n_steps=50).sum(1)
    torch.testing.assert_close(
        attribute("integrated_gradients", net, IMAGES, TARGET), theirs.float(), rtol=1e-4, atol=1e-6
    )


def test_guided_backprop_is_captums_where_all_activations_are_relu_modules(net: Net) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = GuidedBackprop(net).attribute(IMAGES.clone().requires_grad_(), target=TARGET).sum(1)
    torch.testing.assert_close(attribute("guided_backprop", net, IMAGES, TARGET), theirs.float())


def test_smooth_grad_is_captums_noise_tunnel_under_the_same_seed(net: Net) -> None:
    ours = attribute("smooth_grad", net, IMAGES, TARGET)
    for image, index, mine in zip(IMAGES, TARGET, ours, strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(create_generator(image).initial_seed())
            theirs = NoiseTunnel(Saliency(net)).attribute(
                image[None], nt_samples=50, stdevs=0.15 * float(image.max() - image.min()), target=int(index), abs=False
            )
        torch.testing.assert_close(mine, theirs[0].abs().sum(0), rtol=1e-4, atol=1e-6)


def test_deep_lift_is_captums_where_all_activations_are_modules_called_once(net: Net) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = DeepLift(net).attribute(IMAGES.clone(), target=TARGET).sum(1)
    torch.testing.assert_close(attribute("deep_lift", net, IMAGES, TARGET), theirs.detach(), rtol=1e-4, atol=1e-6)


def test_occlusion_is_captums_window_by_window(net: Net) -> None:
    theirs = Occlusion(net).attribute(IMAGES, (3, 3, 4), strides=(3, 1, 2), target=TARGET).mean(1)
    torch.testing.assert_close(attribute("occlusion", net, IMAGES, TARGET), theirs.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_edges_are_those_of_opencv(channels: int, net: Net) -> None:
    for image, mine in zip(IMAGES, attribute("edges", net, IMAGES[:, :channels], TARGET), strict=True):
        grey = image[:channels].mean(0).numpy()
        across, down = (cv2.Sobel(grey, cv2.CV_64F, *d, borderType=cv2.BORDER_REPLICATE) for d in ((1, 0), (0, 1)))
        np.testing.assert_allclose(mine, np.hypot(across, down), rtol=1e-4, atol=1e-5)
