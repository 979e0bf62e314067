# SPDX-License-Identifier: Apache-2.0
"""The LPIPS wrapper: values of the package, silence, and clear errors where the backbone cannot be had."""

from __future__ import annotations

import copy
import importlib
import socket
from urllib.error import URLError

import pytest
import torch

from pcvideo import metrics
from pcvideo.metrics import LPIPS, MetricUnavailable

package = pytest.importorskip("lpips", reason="the lpips package is not installed")
torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
# The attribute pcvideo.metrics.lpips is the function.
module = importlib.import_module("pcvideo.metrics.lpips")


@pytest.fixture(scope="module")
def random_network():
    torch.manual_seed(0)
    return package.LPIPS(net="squeeze", pretrained=False, pnet_rand=True, verbose=False)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """No cached backbone, no remembered failure, and no word against the network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(module, "_failures", {})
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("PCVIDEO_OFFLINE", raising=False)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def frames():
    torch.manual_seed(1)
    return torch.rand(2, 2, 3, 32, 32), torch.rand(2, 2, 3, 32, 32)


def test_each_frame_scores_as_the_package_scores_it_rescaled(random_network, frames):
    prediction, target = frames
    values = LPIPS(network=random_network)(prediction, target)
    assert values.shape == (2, 2)
    for b in range(2):
        for t in range(2):
            expected = random_network(prediction[b, t][None], target[b, t][None], normalize=True)
            torch.testing.assert_close(values[b, t], expected.reshape(()))


def test_many_frames_score_as_few_do(random_network):
    torch.manual_seed(2)
    prediction, target = torch.rand(70, 1, 20, 20), torch.rand(70, 1, 20, 20)
    distance = LPIPS(network=random_network)
    torch.testing.assert_close(distance(prediction, target)[64:], distance(prediction[64:], target[64:]))


def test_grey_frames_are_repeated_to_three_channels(random_network, frames):
    prediction, target = (clip[:, :, :1] for clip in frames)
    distance = LPIPS(network=random_network)
    expected = distance(prediction.repeat(1, 1, 3, 1, 1), target.repeat(1, 1, 3, 1, 1))
    torch.testing.assert_close(distance(prediction, target), expected)


def test_two_channels_and_an_unknown_backbone_are_refused(random_network):
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        LPIPS(network=random_network)(torch.rand(2, 32, 32), torch.rand(2, 32, 32))
    with pytest.raises(ValueError, match=r"backbone must be one of.*did you mean 'alex'"):
        LPIPS("alexx")
    with pytest.raises(TypeError, match="network must be callable"):
        LPIPS(network=3)


@pytest.mark.parametrize(("backbone", "side"), [("alex", 31), ("vgg", 16), ("squeeze", 17)])
def test_the_smallest_side_is_the_smallest_the_backbone_takes(backbone, side, monkeypatch):
    network = package.LPIPS(net=backbone, pretrained=False, pnet_rand=True, verbose=False)
    monkeypatch.setattr(module, "_load_network", lambda name: network)
    fits, small = torch.rand(3, side, 40), torch.rand(3, side - 1, 40)
    assert LPIPS(backbone)(fits, fits).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match=f"at least {side} pixels"):
        LPIPS(backbone)(small, small)
    with pytest.raises(RuntimeError, match=r"too small|Output size"):
        network(small[None], small[None])


@pytest.mark.parametrize("variable", ["PCVIDEO_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_without_the_backbone_fails_at_once_and_says_how_to_mend_it(empty_cache, monkeypatch, frames, variable):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *args, **kwargs: pytest.fail("touched the network"))
    with pytest.raises(MetricUnavailable, match=rf"{variable}.*put https://.*alexnet.*network="):
        LPIPS("alex")(*frames)


def test_a_download_that_fails_is_a_clear_error_within_the_time_limit_and_is_not_repeated(
    empty_cache, monkeypatch, frames
):
    limits = []

    def refuse(*args, **kwargs):
        limits.append(socket.getdefaulttimeout())
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    before = socket.getdefaulttimeout()
    for _ in range(2):
        with pytest.raises(MetricUnavailable, match=r"cannot be downloaded.*no route to host"):
            LPIPS("alex")(*frames)
    assert len(limits) == 1
    assert 0 < limits[0] <= 10
    assert socket.getdefaulttimeout() == before


def test_a_cached_backbone_is_used_offline_silently_and_without_touching_the_random_stream(
    empty_cache, monkeypatch, frames, capfd, recwarn
):
    empty_cache.mkdir(parents=True)
    torch.manual_seed(3)
    url = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    torch.save(torchvision.models.squeezenet1_1().state_dict(), empty_cache / url.rpartition("/")[2])
    monkeypatch.setenv("PCVIDEO_OFFLINE", "1")
    stream = torch.get_rng_state()
    values = LPIPS("squeeze")(*frames)
    assert torch.equal(torch.get_rng_state(), stream)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    expected = package.LPIPS(net="squeeze", verbose=False)(
        frames[0].flatten(0, 1), frames[1].flatten(0, 1), normalize=True
    )
    torch.testing.assert_close(values.flatten(), expected.flatten())


def test_a_broken_cached_backbone_is_named(empty_cache, frames):
    empty_cache.mkdir(parents=True)
    url = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    path = empty_cache / url.rpartition("/")[2]
    for content in (b"", b"12345", b"PK\x03\x04 cut short"):
        path.write_bytes(content)
        with pytest.raises(MetricUnavailable, match=f"{path.name}.*delete it"):
            LPIPS("squeeze")(*frames)


def test_the_function_keeps_one_network_for_the_process(monkeypatch, random_network, frames):
    built = []
    monkeypatch.setattr(module, "_shared", {})
    monkeypatch.setattr(module, "_load_network", lambda name: built.append(name) or random_network)
    first = metrics.lpips(*frames, backbone="squeeze")
    torch.testing.assert_close(metrics.lpips(*frames, backbone="squeeze"), first)
    assert built == ["squeeze"]


def test_gradients_reach_the_prediction_and_not_the_network(random_network, frames):
    prediction = frames[0].clone().requires_grad_()
    network = copy.deepcopy(random_network).train().requires_grad_(True)
    LPIPS(network=network)(prediction, frames[1]).sum().backward()
    assert prediction.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in network.parameters())
    assert not network.training


def test_a_network_first_used_in_inference_mode_still_serves_a_loss(monkeypatch, frames):
    def build(name):
        return package.LPIPS(net=name, pretrained=False, pnet_rand=True, verbose=False)

    monkeypatch.setattr(module, "_load_network", build)
    distance = LPIPS("squeeze")
    with torch.inference_mode():
        distance(*frames)
    prediction = frames[0].clone().requires_grad_()
    distance(prediction, frames[1]).sum().backward()
    assert prediction.grad.isfinite().all()
