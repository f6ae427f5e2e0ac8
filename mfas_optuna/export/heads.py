"""Heads of every kind as readable PyTorch code, with standardisation and label scale folded into their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mfas_optuna.baselines.heads import (
    CentralNetSettings,
    GmuSettings,
    How,
    LateHeadsSettings,
    LateOutputsSettings,
    MlpSettings,
    OutputSettings,
    TowersSettings,
)
from mfas_optuna.errors import ExportError
from mfas_optuna.export.head_code import HeadCode, Scaling, WrittenHead
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.fusion.head import Head, HeadSettings, LayerChoice, NetworkSettings, head_label
from mfas_optuna.target import TargetKind

ACTIVATION_CODE: Mapping[str, str] = {
    "relu": "torch.relu({})",
    "sigmoid": "torch.sigmoid({})",
    "leaky_relu": "functional.leaky_relu({})",
    "tanh": "torch.tanh({})",
    "gelu": "functional.gelu({})",
    "silu": "functional.silu({})",
    "elu": "functional.elu({})",
    "softplus": "functional.softplus({})",
    "identity": "{}",
}
"""Code of each activation of a fusion layer."""

_State = Mapping[str, Tensor]


def build_head(settings: HeadSettings, layout: FeatureLayout, n_outputs: int, state: _State) -> Head:
    """Return a trained head on the CPU.

    Args:
        settings: What it is.
        layout: Where the features are in a row.
        n_outputs: C.
        state: Its weights.

    Raises:
        ExportError: The weights are not its own.
    """
    head = settings.build(layout, n_outputs, dropout=0.0, generator=torch.Generator().manual_seed(0))
    try:
        head.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ExportError(
            f"The stored weights do not fit the head {head_label(settings.as_record())}: {error}. "
            "Run `mfas-optuna fsck` on the study; train it again under another --name."
        ) from error
    return head.eval().requires_grad_(False)


def write_head(
    settings: HeadSettings,
    state: _State,
    *,
    layout: FeatureLayout,
    scaling: Scaling,
    arguments: Mapping[str, str],
    rounds: bool,
) -> WrittenHead:
    """Return a head as code; what it needs for its loss alone is left out.

    Args:
        settings: What it is.
        state: Its weights.
        layout: Where the features are in a row.
        scaling: What surrounds it.
        arguments: What the features of each modality are called in the code, in order.
        rounds: Whether it was trained on features rounded to float16: then it can round them too.

    Raises:
        ExportError: No code is written for its kind.
    """
    code = HeadCode(layout, scaling, arguments, settings.reads(), rounds=rounds)
    match settings:
        case NetworkSettings():
            return _network(code, settings, state)
        case MlpSettings():
            return _mlp(code, settings, state)
        case TowersSettings():
            return _towers(code, settings, state)
        case LateHeadsSettings():
            return _late_heads(code, settings, state)
        case LateOutputsSettings():
            return _late_outputs(code, settings, state)
        case OutputSettings():
            outputs = code.in_units(code.feature(*settings.reads()[0]))
            return code.written(f"What the backbone of {_inside(settings.modality)} gives.", outputs)
        case GmuSettings():
            return _gmu(code, settings, state)
        case CentralNetSettings():
            return _centralnet(code, settings, state)
    raise ExportError(f"No code is written for heads of kind {settings.as_record()['kind']!r}.")


def _inside(text: str) -> str:
    """Return text that can stand in a docstring."""
    return text.replace("\\", "\\\\").replace('"', "'")


def _network(code: HeadCode, settings: NetworkSettings, state: _State) -> WrittenHead:
    is_dense = settings.output == "all" and len(settings.layers) > 1
    names: list[str] = []
    for number, layer in enumerate(settings.layers, start=1):
        below = names[-1] if names else ""
        names.append(f"h{number}" if is_dense else "h")
        code.line(f"{names[-1]} = {_layer(code, layer, f'layer{number}', state, below)}")
    read = f"torch.cat([{', '.join(names)}], dim=1)" if is_dense else "h"
    return code.written(f"The fusion network {settings.notation}.", code.last("head", state, "network.head", read))


def _layer(code: HeadCode, layer: LayerChoice, name: str, state: _State, below: str) -> str:
    """Add what a layer needs beforehand, and return its h as an expression."""
    of = f"network.layers.{int(name.removeprefix('layer')) - 1}"
    sigma = ACTIVATION_CODE[layer.activation]
    parts = [[(modality, feature) for feature in features] for modality, features in layer.features.items()]
    everything = [feature for part in parts for feature in part]
    if layer.operator == "concatenation":
        z = code.reading(name, state, of, everything, below) if parts else code.linear(name, state, of, below)
        return sigma.format(z)
    joined = f"parts{name.removeprefix('layer')}"
    code.line(f"{joined} = []")
    for number, part in enumerate(parts, start=1):
        z = code.reading(f"{name}_{number}", state, f"{of}.parts.{number - 1}", part)
        code.line(f"{joined}.append({sigma.format(z)})")
    if below:
        z = code.linear(f"{name}_{len(parts) + 1}", state, f"{of}.parts.{len(parts)}", below)
        code.line(f"{joined}.append({sigma.format(z)})")
    n_parts = len(parts) + bool(below)
    if layer.operator == "product":
        return " * ".join(f"{joined}[{number}]" for number in range(n_parts))
    if layer.operator == "gate":
        gates_of = f"{name}_gates"
        gates = (
            code.reading(gates_of, state, f"{of}.gates", everything, below)
            if parts
            else code.linear(gates_of, state, f"{of}.gates", below)
        )
        code.line(f"z = torch.stack({gates}.chunk({n_parts}, dim=1)).softmax(dim=0)")
        return f"(z * torch.stack({joined})).sum(dim=0)"
    return f"torch.cat({joined}, dim=1)"


def _mlp(code: HeadCode, settings: MlpSettings, state: _State) -> WrittenHead:
    hidden = code.reading("layer1", state, "perceptron.hidden.0", settings.features)
    code.line(f"h = torch.relu({hidden})")
    for number in range(2, settings.hidden_layers + 1):
        hidden = code.linear(f"layer{number}", state, f"perceptron.hidden.{number - 1}", "h")
        code.line(f"h = torch.relu({hidden})")
    outputs = code.last("head", state, "perceptron.head", "h")
    return code.written(f"A perceptron on features side by side: {settings.label}.", outputs)


def _tower_outputs(code: HeadCode, features: Mapping[str, Sequence[str]], state: _State) -> None:
    """Add a perceptron for each modality, whose outputs are collected in `outputs`."""
    code.line("outputs = []")
    for number, (modality, names) in enumerate(features.items(), start=1):
        of = f"towers.{number - 1}"
        hidden = code.reading(f"tower{number}", state, f"{of}.hidden.0", [(modality, name) for name in names])
        code.line(f"h = torch.relu({hidden})")
        code.line(f"outputs.append({code.linear(f'head{number}', state, f'{of}.head', 'h')})")


def _towers(code: HeadCode, settings: TowersSettings, state: _State) -> WrittenHead:
    _tower_outputs(code, settings.features, state)
    outputs = code.in_units("torch.stack(outputs).sum(dim=0)")
    return code.written(f"A perceptron for each modality, whose outputs are added: {settings.label}.", outputs)


def _late_heads(code: HeadCode, settings: LateHeadsSettings, state: _State) -> WrittenHead:
    _tower_outputs(code, settings.features, state)
    _mean(code, settings.how, settings.target, len(settings.features), state)
    return code.written("The mean of what a perceptron for each modality predicts.", code.in_units("mean"))


def _late_outputs(code: HeadCode, settings: LateOutputsSettings, state: _State) -> WrittenHead:
    read = [code.feature(*feature) for feature in settings.reads()]
    code.line(f"outputs = [{', '.join(read)}]")
    _mean(code, settings.how, settings.target, len(read), state)
    return code.written("The mean of what the backbones predict.", code.in_units("mean"))


def _mean(code: HeadCode, how: How, target: TargetKind, n_modalities: int, state: _State) -> None:
    """Add `mean`: logits or values of the mean prediction of `outputs`."""
    logits_M = state["mean.weight_logits_M"] if how == "weighted" else torch.zeros(n_modalities)
    log_weights_M11 = logits_M.log_softmax(dim=0)[:, None, None]
    code.line("outputs = torch.stack(outputs)")
    if target == "regression":
        code.constant("weights", log_weights_M11.exp())
        code.line("mean = (self.weights * outputs).sum(dim=0)")
        return
    code.constant("log_weights", log_weights_M11)
    if target == "multiclass":
        code.line("mean = (self.log_weights + outputs.log_softmax(dim=2)).logsumexp(dim=0)")
        return
    code.line("present = (self.log_weights + functional.logsigmoid(outputs)).logsumexp(dim=0)")
    code.line("mean = present - (self.log_weights + functional.logsigmoid(-outputs)).logsumexp(dim=0)")


def _gmu(code: HeadCode, settings: GmuSettings, state: _State) -> WrittenHead:
    features = settings.reads()
    code.line("hidden = []")
    for number, feature in enumerate(features, start=1):
        hidden = code.reading(f"hidden{number}", state, f"hidden.{number - 1}", [feature])
        code.line(f"hidden.append(torch.tanh({hidden}))")
    gates = code.reading("gates", state, "gates", features)
    if len(features) == 2:
        code.line(f"z = torch.sigmoid({gates})")
        code.line("h = z * hidden[0] + (1 - z) * hidden[1]")
    else:
        code.line(f"z = torch.stack({gates}.chunk({len(features)}, dim=1)).softmax(dim=0)")
        code.line("h = (z * torch.stack(hidden)).sum(dim=0)")
    return code.written("A gated multimodal unit.", code.last("head", state, "head", "h"))


def _centralnet(code: HeadCode, settings: CentralNetSettings, state: _State) -> WrittenHead:
    n_layers = max(len(names) for names in settings.features.values())
    code.constant("alphas", state["alphas"])
    for layer in range(n_layers):
        code.line(f"terms = [{f'self.alphas[{layer}, 0] * h' if layer > 0 else ''}]")
        for number, (modality, names) in enumerate(settings.features.items(), start=1):
            position = layer - (n_layers - len(names))
            if position >= 0:
                hidden = code.reading(
                    f"projection{number}_{position + 1}",
                    state,
                    f"projections.{number - 1}.linears.{position}",
                    [(modality, names[position])],
                )
                code.line(f"terms.append(self.alphas[{layer}, {number}] * torch.relu({hidden}))")
        hidden = code.linear(f"central{layer + 1}", state, f"central.{layer}", "torch.stack(terms).sum(dim=0)")
        code.line(f"h = torch.relu({hidden})")
    return code.written(
        "A CentralNet: a network beside those of the modalities.", code.last("head", state, "head", "h")
    )


def read_by_layers(reads: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names of the features that are read, by modality, in the order of `reads`."""
    by_modality: dict[str, list[str]] = {}
    for modality, name in reads:
        by_modality.setdefault(modality, []).append(name)
    return by_modality
