"""Draws waves of a given frequency: recurrent generator and discriminator, manual optimisation in turns."""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

STEPS, NOISE = 10, 4


class Generator(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(NOISE + 1, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, noise, frequency):
        output, _ = self.rnn(torch.cat([noise, frequency.expand(*noise.shape[:2], 1)], dim=-1))
        return self.out(output)


class Discriminator(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(1, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, wave):
        return self.out(self.rnn(wave)[0][:, -1])


class GAN(pl.LightningModule):
    def __init__(self, hidden: int = 12) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = Generator(hidden)
        self.discriminator = Discriminator(hidden)
        self.drawn = 0

    def adversarial_loss(self, wave, real: bool):
        judged = self.discriminator(wave)
        return nn.functional.binary_cross_entropy_with_logits(judged, torch.full_like(judged, float(real)))

    def training_step(self, batch, batch_idx):
        frequency, real = batch["frequency"], batch["wave"]
        opt_g, opt_d = self.optimizers()
        noise = torch.randn(len(real), STEPS, NOISE, device=self.device)
        self.drawn += len(real)

        self.toggle_optimizer(opt_g)
        fake = self.generator(noise, frequency)
        distance = nn.functional.mse_loss(fake, real)
        g_loss = 0.05 * self.adversarial_loss(fake, real=True) + distance
        opt_g.zero_grad()
        self.manual_backward(g_loss)
        self.clip_gradients(opt_g, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        opt_g.step()
        self.untoggle_optimizer(opt_g)

        with self.toggled_optimizer(opt_d):
            d_loss = self.adversarial_loss(real, real=True) + self.adversarial_loss(fake.detach(), real=False)

            def closure():
                opt_d.zero_grad()
                d_loss.backward()

            opt_d.step(closure)

        for scheduler in self.lr_schedulers():
            scheduler.step()
        for parameter in self.discriminator.out.parameters():
            parameter.data.clamp_(-0.5, 0.5)
        self.log("train_loss", distance, on_step=False, on_epoch=True)
        self.log("d_loss", d_loss, on_step=False, on_epoch=True)

    def configure_optimizers(self):
        opt_g = torch.optim.Adam(self.generator.parameters(), lr=5e-2, betas=(0.5, 0.9))
        opt_d = torch.optim.RMSprop(self.discriminator.parameters(), lr=1e-3)
        return [opt_g, opt_d], [torch.optim.lr_scheduler.ExponentialLR(opt, 0.99) for opt in (opt_g, opt_d)]


class Waves(TensorDataset):
    def __getitem__(self, index):
        frequency, wave = super().__getitem__(index)
        return {"frequency": frequency, "wave": wave}


def build():
    frequency = torch.rand(384, 1, 1, generator=torch.Generator().manual_seed(0))
    waves = torch.sin(torch.arange(STEPS).view(1, -1, 1) * (0.2 + frequency))
    return GAN(), DataLoader(Waves(frequency, waves), batch_size=32, shuffle=True)


TRAINER: dict = {}
