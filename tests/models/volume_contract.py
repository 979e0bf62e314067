# SPDX-License-Identifier: Apache-2.0
"""What every predictor of volumes promises: the contract of all, with those tests anew in which images are special."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from model_contract import PredictorContract
from stream_contract import assert_near
from torch import Tensor

from pcvideo.video_io import write_scenes


class VolumeContract(PredictorContract):
    """Inherit it in place of `PredictorContract`."""

    channels = 1
    multiple = 1
    size = (4, 6, 8)

    def binary(self, length: int = 3) -> Tensor:
        return (self.frames(1, length)[0] > 0.5).to(torch.uint8)

    def test_predict_takes_numpy_uint8_single_clips_and_batches_alike(self) -> None:
        model, occupied = self.model(torch.float32), self.binary()
        expected = model(occupied.float()[None], 2)[0].clamp(0, 1)
        for clip, options in [
            (occupied, {}),
            (occupied.numpy(), {}),
            (occupied.bool().numpy(), {}),
            (occupied[:, 0], {}),
            (list(occupied.numpy()), {}),
            (255 * occupied, {"value_range": (0, 255)}),
            (occupied.movedim(1, -1), {"layout": "TDHWC"}),
        ]:
            future = model.predict(clip, 2, **options)
            assert future.dtype == torch.float32
            torch.testing.assert_close(future, expected)
        torch.testing.assert_close(model.predict(occupied[None], 2), expected[None])
        torch.testing.assert_close(model.predict(occupied[None, :, 0], 2, layout="BTDHW"), expected[None])

    def test_predict_reads_files_of_scenes(self, tmp_path: Path) -> None:
        model, occupied = self.model(torch.float32), self.binary()
        expected = model(occupied.float()[None], 2).clamp(0, 1)
        np.save(tmp_path / "one.npy", occupied.numpy())
        write_scenes(tmp_path / "one.npz", occupied[None, :, 0].numpy())
        write_scenes(tmp_path / "two.npz", np.stack([occupied[:, 0].numpy()] * 2))
        torch.testing.assert_close(model.predict(tmp_path / "one.npy", 2), expected[0])
        torch.testing.assert_close(model.predict(tmp_path / "one.npz", 2), expected[0])
        torch.testing.assert_close(model.predict(tmp_path / "two.npz", 2), expected.expand(2, -1, -1, -1, -1, -1))

    def test_whole_numbers_other_than_occupancies_want_a_range(self) -> None:
        model, occupied = self.model(torch.float32), self.binary()
        with pytest.raises(ValueError, match=r"hold 0 and 1, got 0 to 255; say value_range"):
            model.predict(255 * occupied, 1)
        stream = model.stream()
        with pytest.raises(ValueError, match="ranges over"):
            stream.push(255 * occupied[0])

    def test_probabilities_and_empty_volumes_are_taken(self) -> None:
        model = self.model(torch.float32)
        for clip in (self.frames(1, 3)[0], torch.zeros(3, 1, *self.size)):
            assert torch.isfinite(model.predict(clip, 3)).all()

    def test_a_stream_takes_single_frames_uint8_and_any_size(self) -> None:
        model, occupied = self.model(), self.binary()
        stream = model.stream()
        for frame in occupied:
            pushed = stream.push(frame)
        assert pushed.shape == occupied.shape[1:]
        assert_near(stream.forecast(2), model.predict(occupied, 2), 1e-5)
