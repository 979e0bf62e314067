# SPDX-License-Identifier: Apache-2.0
"""A regime of training of one's own: one class with one method, the rest is the trainer's.

Here frames count the more the further ahead they were predicted, since far ones are what a forecast is for. The model
is a small MSPN that forecasts one moving digit.

    python examples/own_strategy.py --steps 200 --out own-strategy
"""

import argparse

import pcvideo


class FarFramesCount(pcvideo.training.Strategy):
    def forward(self, batch):
        forecast = self.model(batch[:, : self.context], self.horizon)
        errors = (forecast - batch[:, self.context : self.length]).square().mean((0, 2, 3, 4))
        weights = errors.new_tensor([step + 1 for step in range(self.horizon)])
        loss = (weights * errors).sum() / weights.sum()
        # What is logged beside the loss: tensors of one number.
        return loss, {"first_frame": errors[0].detach(), "last_frame": errors[-1].detach()}


def main(steps: int, out: str) -> None:
    clips = [
        pcvideo.data.MovingMNIST(clips=count, size=32, frames=8, num_digits=1, split=split)
        for count, split in ((1000, "train"), (16, "test"))
    ]
    model = pcvideo.MSPN(in_channels=1, levels=1, channels=(8, 16), hidden_channels=8, patch=4, residual=True)
    strategy = FarFramesCount(context=4, horizon=4)
    trainer = pcvideo.Trainer(model, strategy, run_dir=out, steps=steps, batch_size=4, lr=3e-3, clip_norm=1.0)
    metrics = trainer.fit(*clips, resume="auto")
    print(f"mse {metrics['mse']:.2f}, of copying the last frame {metrics['copy_last/mse']:.2f}; weights in {out}/best")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", default="own-strategy")
    main(**vars(parser.parse_args()))
