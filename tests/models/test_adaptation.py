# SPDX-License-Identifier: Apache-2.0
"""Weights for other channels, levels and widths: what is carried over predicts the same, the rest is told by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pcvideo

GREY = {"in_channels": 1, "levels": 2, "channels": (4, 6, 8), "hidden_channels": 3}
OPTIONS = [
    {},
    {"patch": 2},
    {"residual": True, "patch": 2, "resample": "average"},
    {"resample": "fir", "fusion": "modulate"},
    {"cell": "encoder_lstm_decoder"},
    {"cell": "encoder_lstm_decoder", "fusion": "add", "residual": True},
]


def model_of(seed: int = 0, **options: Any) -> pcvideo.MSPN:
    torch.manual_seed(seed)
    model = pcvideo.MSPN(**GREY | options).double().eval()
    # Fresh residual heads and equal cutoffs would hide a mistake.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def clip_of(channels: int, frames: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(2, frames, channels, 16, 24, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_grey_model_made_colour_predicts_grey_frames_as_before_in_every_channel(options: dict[str, Any]) -> None:
    grey = model_of(**options)
    adaptation = pcvideo.adapt(grey, {"in_channels": 3})
    clip = clip_of(1)
    expected = grey(clip, 3)
    colour = adaptation.model(clip.expand(-1, -1, 3, -1, -1), 3)
    torch.testing.assert_close(colour, expected.expand(-1, -1, 3, -1, -1), rtol=1e-9, atol=1e-9)
    assert (adaptation.fresh, adaptation.dropped) == ((), ())
    assert set(adaptation.kept) | set(adaptation.adapted) == set(adaptation.model.state_dict())


def test_a_colour_model_made_grey_weighs_its_first_prediction_as_colour_is_made_grey() -> None:
    # With no activation on the image, and nothing but zeros seen, each prediction is linear in the head's weights.
    colour = model_of(in_channels=3, levels=1, channels=(4, 6), residual=True)
    grey = pcvideo.adapt(colour, {"in_channels": 1}).model
    red, green, blue = colour.init_state(clip_of(3)[:, 0]).predictions[0].unbind(1)
    expected = 0.299 * red + 0.587 * green + 0.114 * blue
    torch.testing.assert_close(grey.init_state(clip_of(1)[:, 0]).predictions[0][:, 0], expected)


def test_a_colour_model_made_grey_takes_a_grey_frame_in_as_it_took_it_in_colours() -> None:
    colour = model_of(in_channels=3, levels=1, channels=(4, 6))
    grey = pcvideo.adapt(colour, {"in_channels": 1}).model
    error = torch.rand(1, 2, 8, 8, dtype=torch.float64)
    hidden = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    in_colours = torch.cat([error[:, :1].expand(-1, 3, -1, -1), error[:, 1:].expand(-1, 3, -1, -1), hidden], dim=1)
    expected = colour.cells[0].codec.stem(in_colours)
    torch.testing.assert_close(grey.cells[0].codec.stem(torch.cat([error, hidden], dim=1)), expected)


def test_a_level_more_keeps_the_levels_that_there_were_and_tells_the_new_one_by_name() -> None:
    two = model_of(channels=(4, 6, 8, 8))
    adaptation = pcvideo.adapt(two, {"levels": 3})
    assert all(name.startswith("cells.2.") or "merge_latent" in name for name in adaptation.fresh)
    assert any(name.startswith("cells.2.") for name in adaptation.fresh)
    # The coarsest level of two took in no prediction from above.
    assert adaptation.adapted == ("cells.1.codec.stem.weight",)
    new, old = adaptation.model.state_dict(), two.state_dict()
    assert all(torch.equal(new[name], old[name]) for name in adaptation.kept)
    one, other = old["cells.1.codec.stem.weight"], new["cells.1.codec.stem.weight"]
    # Errors of the level and of the one below: four channels; then the prediction from above; then the hidden state.
    assert torch.equal(other[:, :4], one[:, :4])
    assert torch.equal(other[:, 5:], one[:, 4:])


def test_a_level_less_drops_the_coarsest_by_name() -> None:
    adaptation = pcvideo.adapt(model_of(channels=(4, 6, 8, 8), levels=3), {"levels": 2})
    assert adaptation.fresh == ()
    assert adaptation.dropped
    assert all(name.startswith("cells.2.") or "merge_latent" in name for name in adaptation.dropped)


def test_what_has_no_counterpart_is_fresh_and_told_by_name() -> None:
    grey = model_of(patch=2)
    adaptation = pcvideo.adapt(grey, {"patch": 4})
    names = {f"cells.{level}.{part}" for level in (0, 1) for part in ("codec.stem.weight", "to_image.weight")}
    assert set(adaptation.fresh) == names | {"cells.0.to_image.bias", "cells.1.to_image.bias"}
    assert adaptation.adapted == ()
    # Two colours to three: nothing says which is which.
    two = pcvideo.adapt(model_of(in_channels=2), {"in_channels": 3})
    assert "cells.0.codec.stem.weight" in two.fresh
    assert "cells.0.codec.encoders.0.0.main.0.weight" in two.kept


def test_a_model_without_a_word_on_its_channels_keeps_what_has_the_same_shape() -> None:
    torch.manual_seed(0)
    colour = pcvideo.PPNV2(channels=(3, 4, 5))
    adaptation = pcvideo.adapt(colour, {"channels": (3, 4, 6)})
    new, old = adaptation.model.state_dict(), colour.state_dict()
    assert all(torch.equal(new[name], old[name]) for name in adaptation.kept)
    assert all(old[name].shape != new[name].shape for name in adaptation.fresh)
    assert len(adaptation.kept) > 20
    assert len(adaptation.fresh) > 10


def test_nothing_changed_is_a_copy_that_shares_no_memory() -> None:
    model = model_of().float().train()
    adaptation = pcvideo.adapt(model, {})
    assert (adaptation.adapted, adaptation.fresh, adaptation.dropped, adaptation.changes) == ((), (), (), {})
    with torch.no_grad():
        next(adaptation.model.parameters()).zero_()
    assert next(model.parameters()).any()
    assert adaptation.model.training
    assert adaptation.model.dtype == torch.float32


def test_the_report_names_every_tensor_that_was_not_kept() -> None:
    adaptation = pcvideo.adapt(model_of(), {"in_channels": 3})
    said = str(adaptation)
    assert "in_channels 1 -> 3" in said
    assert f"{len(adaptation.kept)} tensors kept" in said
    assert all(name in said for name in adaptation.adapted)


def test_changes_that_make_no_model_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'in_channels'"):
        pcvideo.adapt(model_of(), {"in_chanels": 3})
    with pytest.raises(ValueError, match="levels"):
        pcvideo.adapt(model_of(), {"levels": 3})
    with pytest.raises(TypeError, match="model must be a Predictor"):
        pcvideo.adapt(torch.nn.Conv2d(1, 1, 1), {})
