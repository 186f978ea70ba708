"""ResNet18 (He et al., 2015), in PyTorch, with the parameter names of torchvision.

    hermes check examples/resnet18.py -- cifar cifar10.npz       # stem and data, see below
    hermes run examples/resnet18.py -- cifar cifar10.npz
    python examples/resnet18.py -- cifar cifar10.npz             # a master
    hermes run examples/resnet18.py -- --smoke                   # seconds: narrow, and no file

The stem is `cifar` (a 3 x 3 convolution, for images of 32 x 32: 11.17 M parameters with 10 classes)
or `imagenet` (7 x 7 with stride 2 and pooling, for about 224 x 224: 11.69 M with 1000). The file
holds x_train and x_test, uint8, (n, height, width, 3), and their labels y_train and y_test; how to
make one of CIFAR-10: examples/cifar10.py. Weights of torchvision, saved with safetensors, load with
Job(init="resnet18.safetensors") where stem and classes are theirs.
"""

import numpy as np
import torch
from torch import nn

import hermes
from hermes.errors import JobError


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, and a way around them."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        around = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + around)


class ResNet18(nn.Module):
    """The stem, four layers of two blocks, the mean over the image, and one linear layer."""

    def __init__(self, stem="cifar", classes=10, width=64, zero_init=False):
        """`width`: channels of the first layer; `zero_init`: each block begins as the identity,
        which often trains a little better."""
        super().__init__()
        large = stem == "imagenet"
        kernel, stride, padding = (7, 2, 3) if large else (3, 1, 1)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if large else nn.Identity()
        self.layer1 = self._layer(width, width, 1)
        self.layer2 = self._layer(width, 2 * width, 2)
        self.layer3 = self._layer(2 * width, 4 * width, 2)
        self.layer4 = self._layer(4 * width, 8 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if zero_init and isinstance(part, BasicBlock):
                nn.init.zeros_(part.bn2.weight)

    @staticmethod
    def _layer(channels, width, stride):
        return nn.Sequential(BasicBlock(channels, width, stride), BasicBlock(width, width, 1))

    def forward(self, x):
        x = x.permute(0, 3, 1, 2).float() / 255  # images travel as bytes, channels last
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def images(path):
    """What the file holds; called on the master alone."""
    train, test = hermes.data.npz(path)
    if not isinstance(train, tuple) or train[0].shape[3:] != (3,):
        raise JobError(
            f"{path} holds no images in three channels",
            remedy="It needs x_train (n, height, width, 3), y_train (n,), x_test and y_test; see "
            "the top of examples/resnet18.py.",
        )
    return [(x, y.reshape(-1)) for x, y in (train, test)]


def digits():
    """The 8 x 8 digits that come with Hermes, enlarged to 16 x 16 bytes in three channels."""
    x, y = hermes.data.digits()
    large = np.kron(x[:100] * 255, np.ones((2, 2))).astype(np.uint8)
    return np.repeat(large[..., None], 3, axis=3), y[:100]


def job(args):
    smoke = args == ["--smoke"]
    stem, path = ("cifar", "") if smoke else (args if len(args) == 2 else ("", ""))
    if stem not in ("cifar", "imagenet"):
        raise JobError(
            "examples/resnet18.py needs a stem and a file",
            remedy="hermes run examples/resnet18.py -- cifar cifar10.npz (or imagenet; what the "
            "file holds: see its top); to try without a file: -- --smoke",
        )
    return hermes.Job(
        model=lambda: ResNet18(stem, 1000 if stem == "imagenet" else 10, width=8 if smoke else 64),
        data=digits if smoke else lambda: images(path),
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=5e-4),
        batch=16 if smoke else 64,
        round=hermes.Round(epochs=1),  # short rounds: an update soon, however slow the device
        stop=hermes.Stop(versions=1) if smoke else hermes.Stop(samples=3_000_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
