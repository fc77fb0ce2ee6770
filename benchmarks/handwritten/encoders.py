"""ResNet-18 and ViT-B in plain PyTorch, as one would write them."""

import torch
from torch import nn

WIDTH = 768


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        """Adds the two branches."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18 that folds frames into the batch and averages them."""

    def __init__(self, channels):
        super().__init__()
        layers = [
            nn.Conv2d(channels, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        widths = [64, 64, 128, 256, 512]
        for i, (old, new) in enumerate(zip(widths, widths[1:], strict=False)):
            layers.append(BasicBlock(old, new, 1 if i == 0 else 2))
            layers.append(BasicBlock(new, new, 1))
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        """Maps `(batch, frames, channels, height, width)` to features."""
        features = self.layers(x.flatten(0, 1)).flatten(1)
        return features.unflatten(0, x.shape[:2]).mean(1)


class Patches(nn.Conv2d):
    """Maps patches of `(batch, channels, height, width)` to tokens."""

    def forward(self, x):
        """Applies a convolution without overlap."""
        return super().forward(x).flatten(2).transpose(1, 2)


class Transformer(nn.Module):
    """ViT-B over patches or words, mean-pooled; M3AE has a class token."""

    def __init__(self, embedding, tokens, m3ae):
        super().__init__()
        self.embedding = embedding
        self.positions = nn.Parameter(torch.randn(tokens, WIDTH), not m3ae)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH)) if m3ae else None
        activation = nn.GELU("tanh" if m3ae else "none")
        layer = nn.TransformerEncoderLayer(
            WIDTH, 12, 4 * WIDTH, 0.0, activation, batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.encoder = nn.TransformerEncoder(
            layer, 12, nn.LayerNorm(WIDTH), enable_nested_tensor=False
        )

    def forward(self, x):
        """Maps images `(batch, channels, height, width)` or ids to features."""
        x = self.embedding(x) + self.positions
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), 1, WIDTH), x], 1)
        return self.encoder(x).mean(1)
