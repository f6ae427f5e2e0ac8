"""Code that exported models have in common, as text."""

from __future__ import annotations

import json


def literal(text: str) -> str:
    """Return a string as Python code."""
    return json.dumps(text, ensure_ascii=False)


POOL = '''\
def pool(output: Tensor, channel_axis: int = 1) -> Tensor:
    """Return one value a channel, (B, channels): the mean over all positions."""
    axis = channel_axis % output.ndim
    positions = [other for other in range(1, output.ndim) if other != axis]
    return (output.mean(dim=positions) if positions else output).float()
'''

ROUND = '''\
def rounded(features: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return features as they are when they are stored as float16."""
    return {name: feature.half().float() for name, feature in features.items()}
'''

READ = '''\
def read(network: nn.Module, x: Tensor, layers: dict[str, tuple[str, int]]) -> dict[str, Tensor]:
    """Run a network and return the pooled outputs of submodules, given by (name, axis of the channels)."""
    features = {}

    def keep(name: str, axis: int):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            features[name] = pool(output, axis).clone()  # The network may write over its output.

        return hook

    handles = [
        network.get_submodule(module).register_forward_hook(keep(name, axis))
        for name, (module, axis) in layers.items()
    ]
    try:
        output = network(x)
    finally:
        for handle in handles:
            handle.remove()
    return {**output, **features} if isinstance(output, dict) else features
'''

OWN = '''\
def own_network(file: str, name: str) -> nn.Module:
    """Return the network that a function in a Python file beside this one makes."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, Path(__file__).with_name(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return getattr(module, name)()
'''

CHECK = '''\
def check(name: str, x: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Refuse what the model was not made for."""
    if x.dtype != dtype or x.shape[1:] != shape:
        expected = f"{dtype} (B, {', '.join(map(str, shape))})"
        raise ValueError(f"{name}: expected {expected}, found {x.dtype} {tuple(x.shape)}.")
'''

IMAGENET = '''\
def scale_as_imagenet(x: Tensor) -> Tensor:
    """Return RGB values of 0 to 1 with ImageNet's mean colour taken off, over its deviation."""
    shape = (3, *[1] * (x.ndim - 2))
    mean, deviation = x.new_tensor([0.485, 0.456, 0.406]), x.new_tensor([0.229, 0.224, 0.225])
    return (x - mean.view(shape)) / deviation.view(shape)
'''

MAXOUT = '''\
class Maxout(nn.Module):
    """Batch norm, dropout, and the maximum of several linear pieces."""

    def __init__(self, n_inputs: int, n_outputs: int, pieces: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(n_inputs)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(n_inputs, n_outputs * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(self.norm(x))).unflatten(1, (-1, self.pieces)).amax(dim=2)
'''

BOTTLENECK = '''\
class Bottleneck(nn.Module):
    """A bottleneck block whose middle convolution extends over three frames."""

    def __init__(self, n_inputs: int, channels: int, stride: int = 1, changes_shape: bool = False) -> None:
        super().__init__()
        strides = (1, stride, stride)
        self.conv1 = nn.Conv3d(n_inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, stride=strides, padding=(0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = nn.Conv3d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * channels)
        self.relu = nn.ReLU()
        self.downsample = (
            nn.Sequential(
                nn.Conv3d(n_inputs, 4 * channels, 1, stride=strides, bias=False), nn.BatchNorm3d(4 * channels)
            )
            if changes_shape
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)  # The first and last frame are repeated.
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)
'''

COOCCURRENCE = '''\
class JointsAsChannels(nn.Module):
    """Swaps channels and joints, so that convolutions see all joints at once."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 3)


class Stream(nn.Sequential):
    """conv1 to conv4 of the co-occurrence network, for the joints or for their motion."""

    def __init__(self, n_inputs: int, n_joints: int, width: int, dropout: float) -> None:
        super().__init__()
        half = width // 2
        self.conv1 = nn.Sequential(nn.Conv2d(n_inputs, width, 1), nn.ReLU())
        self.conv2 = nn.Conv2d(width, half, (3, 1), padding=(1, 0))
        self.transpose = JointsAsChannels()
        self.conv3 = nn.Sequential(nn.Conv2d(n_joints, half, 3, padding=1), halve())
        self.conv4 = nn.Sequential(nn.Conv2d(half, width, 3, padding=1), nn.Dropout2d(dropout), halve())


def joined(n_inputs: int, channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_inputs, channels, 3, padding=1), nn.ReLU(), nn.Dropout2d(dropout), halve())


def halve() -> nn.MaxPool2d:
    return nn.MaxPool2d(2, ceil_mode=True)


def motion(x: Tensor) -> Tensor:
    """Return the differences of adjacent frames, interpolated to as many frames as there are."""
    return functional.interpolate(x.diff(dim=2), size=x.shape[2:], mode="bilinear", align_corners=False)


def largest(x: Tensor, n_persons: int) -> Tensor:
    """Return the maximum over the persons of a sample, which lie one after the other."""
    return x.unflatten(0, (-1, n_persons)).amax(dim=1)
'''

LOAD = '''\
def load(folder: str | Path, device: str = "cpu") -> Model:
    """Return the trained model from its folder, ready to predict."""
    model = Model()
    model.load_state_dict(load_file(Path(folder) / "weights.safetensors"))
    return model.to(device).eval()
'''
