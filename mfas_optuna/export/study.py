"""From a study's final trainings to a folder with the chosen network."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mfas_optuna import __version__, datasets, finals
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.backbones import build_backbone
from mfas_optuna.backbones.taps import Tap
from mfas_optuna.baselines import head_from_record
from mfas_optuna.datasets import DataRequest, Dataset
from mfas_optuna.datasets.arrays import input_name
from mfas_optuna.datasets.dataset import SPLIT_NAMES
from mfas_optuna.errors import ExportError, StudyMismatchError
from mfas_optuna.export import checks
from mfas_optuna.export.backbones import OUTPUT_MODULE, WrittenBackbone, write_backbone
from mfas_optuna.export.card import write_card
from mfas_optuna.export.choose import BEST, Chosen, choose
from mfas_optuna.export.files import (
    CARD,
    DESCRIPTION,
    FORMAT,
    FORMAT_VERSION,
    ONNX,
    PROGRAM,
    RESERVED,
    SOURCE,
    WEIGHTS,
    file_digest,
)
from mfas_optuna.export.folder import check_free, publish
from mfas_optuna.export.head_code import Scaling
from mfas_optuna.export.heads import build_head, read_by_layers, write_head
from mfas_optuna.export.preparation import LICENCES, preparation
from mfas_optuna.export.source import Input, attribute, class_names, identifiers, write_source
from mfas_optuna.features.cache import OUTPUT, FeatureSet
from mfas_optuna.features.extract import feature_reader
from mfas_optuna.finals import Step
from mfas_optuna.fusion.head import HeadSettings, head_label
from mfas_optuna.prepare import Preparation, Prepared, blob_store, check_home
from mfas_optuna.progress import Progress, silent
from mfas_optuna.registry.blobs import BlobStore, decode_layer, encode_layer
from mfas_optuna.spec import GivenFeatures, NetworkSettings, PythonBackboneSettings, StudySpec, TapSettings
from mfas_optuna.training import fused
from mfas_optuna.training.labels import LabelScale

N_SAMPLES = 16
"""Samples of the validation split that every form is compared on."""

_OUTPUTS = {
    "multiclass": "logits (B, {n}) of the classes: softmax gives probabilities",
    "multilabel": "logits (B, {n}) of the labels: sigmoid gives probabilities",
    "regression": "values (B, {n}), in the units of the labels",
}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is exported, and where to.

    Attributes:
        spec: The study.
        study_name: Its name in the database.
        home: Folder that everything is kept in.
        storage_url: The database.
        data_root: Folder of raw data, or None.
        rebuild_command: What a user runs when a cached file is damaged.
        folder: Where to: a folder that does not exist, or is empty.
        method: Name of the method whose network it is, or `best`: the one that validation prefers.
        step: On frozen backbones or together with them; None: the one with the better validation mean.
        onnx: Whether an ONNX file is written; None: where it can be.
        force: Write over an exported model.
        weights: Folder or URL of the weights; None: in the home folder.
    """

    spec: StudySpec
    study_name: str
    home: Path
    storage_url: str
    data_root: Path | None
    rebuild_command: str
    folder: Path
    method: str = BEST
    step: Step | None = None
    onnx: bool | None = None
    force: bool = False
    weights: str | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported.

    Attributes:
        folder: Where it lies.
        description: What architecture.json holds.
    """

    folder: Path
    description: Mapping[str, Any]


@dataclass(frozen=True)
class _Backbone:
    """A trained backbone that the head reads, and how it is written."""

    settings: NetworkSettings
    model: torch.nn.Module
    taps: Sequence[TapSettings]
    written: WrittenBackbone
    file: str | None


def export_study(request: ExportRequest, *, say: Callable[[str], None], progress: Progress = silent) -> Exported:
    """Write the network that validation chose, in all forms, each compared with the trained one.

    The folder appears whole or not at all. Of the test split nothing is read.

    Raises:
        ExportCheckError: A form gives something else than the trained network.
        ExportError: There is no such network, its kind cannot be exported, or the folder is not free.
        MfasError: The study, its data or weights are missing or damaged.
    """
    check_free(request.folder, force=request.force)
    if request.onnx and not checks.has_onnx():
        raise ExportError("--onnx: expected onnx, onnxscript and onnxruntime. `pip install 'mfas-optuna[onnx]'`.")
    check_home(request.home)
    with database.clear_errors(request.storage_url):
        chosen = choose(request.storage_url, request.study_name, method=request.method, step=request.step)
    final = chosen.final
    settings = head_from_record(final.training.head)
    say(
        f"Export: {chosen.title}, {head_label(final.training.head)}, {final.training.step}, "
        f"seed {final.training.seed}, validation {final.result.validation_score:.4f}"
    )
    recorded = None if chosen.study is None else records.read_backbones(chosen.study)
    prepared = Preparation(
        request.spec,
        home=request.home,
        data_root=request.data_root,
        device=torch.device("cpu"),
        rebuild_command=request.rebuild_command,
        weights=request.weights,
        progress=progress,
        say=say,
    ).run(recorded=recorded)
    _check_features(request, chosen, prepared)
    store = blob_store(request.home, request.weights)
    state = decode_layer(store.get(final.result.weights))
    try:
        request.folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=request.folder.parent, prefix=f".{request.folder.name}-"))
    except OSError as error:
        raise ExportError(
            f"{request.folder}: cannot be written: {error.strerror}. Name another folder with -o."
        ) from error
    try:
        description = _Writing(request, chosen, settings, prepared, store, state, progress, say).write(temporary)
        temporary.chmod(0o755)
        publish(temporary, request.folder)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise ExportError(
            f"{request.folder}: cannot be written: {error}. Free space, or name another folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(request.folder, description)


def _check_features(request: ExportRequest, chosen: Chosen, prepared: Prepared) -> None:
    stored = None if chosen.study is None else records.read_features(chosen.study)
    if stored is not None and stored != prepared.fingerprint:
        raise StudyMismatchError(
            f"Study {request.study_name!r}: expected the features that it was begun with, {stored[:12]}, found "
            f"{prepared.fingerprint[:12]}. Restore the study file and the data.",
            [f"features: was {stored[:12]}, is now {prepared.fingerprint[:12]}"],
        )


class _Writing:
    """One model on its way into a folder."""

    def __init__(
        self,
        request: ExportRequest,
        chosen: Chosen,
        settings: HeadSettings,
        prepared: Prepared,
        store: BlobStore,
        state: Mapping[str, Tensor],
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self._request = request
        self._spec = request.spec
        self._chosen = chosen
        self._step = chosen.final.training.step
        self._settings = settings
        self._prepared = prepared
        self._features = prepared.features
        self._store = store
        self._state = state
        self._say = say
        self._reads = read_by_layers(settings.reads())
        self._arguments = identifiers(self._reads)
        self._dataset = self._load(progress) if prepared.backbones else None

    def _load(self, progress: Progress) -> Dataset:
        return datasets.load_dataset(DataRequest.of(self._spec, self._request.home, self._request.data_root, progress))

    def write(self, folder: Path) -> dict[str, Any]:
        """Write all files and return what architecture.json holds."""
        features, kind = self._features, self._features.target.kind
        inputs = self._inputs()
        backbones = {
            modality: self._backbone(modality) for modality in self._reads if modality in self._prepared.backbones
        }
        scaling = self._scaling()
        head_state = fused.head_state(self._state) if self._step == "unfrozen" else dict(self._state)
        rounds = features.matrix("validation").dtype == np.float16 and self._step == "frozen"
        head = write_head(
            self._settings,
            head_state,
            layout=features.layout,
            scaling=scaling,
            arguments=self._arguments,
            rounds=rounds,
        )
        outputs = _OUTPUTS[kind].format(n=features.target.n_outputs)
        label = head_label(self._settings.as_record())
        title = f"Study {self._request.study_name}: {self._chosen.title}, {label}"
        source = write_source(
            title=title,
            inputs=inputs,
            outputs=outputs,
            arguments=self._arguments,
            backbones={modality: of.written for modality, of in backbones.items()},
            head=head,
        )
        (folder / SOURCE).write_text(source, encoding="utf-8")
        (folder / WEIGHTS).write_bytes(encode_layer(self._weights(backbones, head.weights)))
        own = sorted({(of.file, self._own_source(of.settings)) for of in backbones.values() if of.file is not None})
        for name, path in own:
            shutil.copyfile(path, folder / name)
        samples = self._samples(inputs)
        expected_BC = self._expected(backbones, scaling, head_state, samples, inputs)
        differences = self._check(folder, samples, expected_BC)
        files = sorted(path.name for path in folder.iterdir() if path.is_file())
        description = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "title": title,
            "study": self._request.study_name,
            "method": self._chosen.choice.method,
            "step": self._step,
            "inputs": {of.name: self._input_record(of) for of in inputs},
            "outputs": outputs,
            "target": features.target.as_record(),
            "backbones": {modality: self._backbone_record(modality, of) for modality, of in backbones.items()},
            "network": {
                "label": head_label(self._settings.as_record()),
                **self._settings.as_record(),
            },
            "standardization": head.standardization,
            "rounds_features": rounds,
            "metrics": {
                "metric": self._spec.metric,
                "validation": self._chosen.final.result.validation_score,
                "validation_of_seeds": {
                    str(seed): final.result.validation_score for seed, final in self._chosen.choice.by_seed.items()
                },
                "test": self._chosen.test_score,
            },
            "methods": [asdict(method) for method in self._chosen.methods],
            "splits": {split: len(features.labels(split)) for split in SPLIT_NAMES},
            "lineage": self._lineage(),
            "stand_in": features.stand_in,
            "checks": differences,
            "files": {name: file_digest(folder / name) for name in files},
        }
        (folder / DESCRIPTION).write_text(
            json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        card = write_card(
            description,
            data_card=features.card,
            licence=LICENCES[self._spec.dataset.name],
            methods=self._chosen.methods,
            extra_files=[name for name, _ in own],
        )
        (folder / CARD).write_text(card, encoding="utf-8")
        return description

    # Parts.

    def _inputs(self) -> list[Input]:
        """Return the inputs: samples of each modality, or each feature that is read where such are given."""
        if self._dataset is not None:
            arrays = self._dataset.splits["validation"].inputs
            return [
                Input(modality, argument, modality, None, arrays[modality].dtype.name, arrays[modality].shape[1:])
                for modality, argument in self._arguments.items()
            ]
        features = [(modality, name) for modality, names in self._reads.items() for name in names]
        arguments = identifiers(f"{self._arguments[modality]}_{name}" for modality, name in features)
        widths = {of: self._features.layout.columns(*of) for of in features}
        return [
            Input(input_name(*of), argument, *of, "float32", (widths[of].stop - widths[of].start,))
            for of, argument in zip(features, arguments.values(), strict=True)
        ]

    def _backbone(self, modality: str) -> _Backbone:
        settings = self._spec.backbones[modality]
        if isinstance(settings, GivenFeatures) or self._dataset is None:
            raise AssertionError("unreachable")
        if self._step == "unfrozen":
            state = fused.backbone_state(self._state, modality)
        else:
            state = decode_layer(self._store.get(self._prepared.backbones[modality].digest))
        sample_shape = self._dataset.splits["validation"].inputs[modality].shape[1:]
        model = build_backbone(
            settings,
            sample_shape=sample_shape,
            n_outputs=self._dataset.for_task(settings.task).target.n_outputs,
            generator=torch.Generator().manual_seed(0),
            folder=self._spec.folder,
        )
        model.load_state_dict(state)
        by_name = {tap.name: tap for tap in settings.taps}
        by_name[OUTPUT] = TapSettings(module=OUTPUT_MODULE, name=OUTPUT)
        taps = [by_name[name] for name in self._reads[modality]]
        file = _own_name(settings.file) if isinstance(settings, PythonBackboneSettings) else None
        written = write_backbone(
            settings,
            class_name=class_names(self._arguments)[modality],
            modality=modality,
            attribute=attribute(self._arguments[modality]),
            file=file or "",
            sample_shape=sample_shape,
            state=state,
            taps=taps,
        )
        return _Backbone(settings, model.eval().requires_grad_(False), taps, written, file)

    def _own_source(self, settings: NetworkSettings) -> Path:
        if not isinstance(settings, PythonBackboneSettings):
            raise AssertionError("unreachable")
        return self._spec.folder / settings.file

    def _scaling(self) -> Scaling:
        features = self._features
        shift_F, scale_F = np.zeros_like(features.mean), np.ones_like(features.std)
        if self._spec.training.standardize:
            shift_F, scale_F = features.layout.standardization(features.mean, features.std)
        if features.target.kind != "regression":
            return Scaling(shift_F, scale_F)
        labels = LabelScale.of("regression", features.labels("train"))
        return Scaling(shift_F, scale_F, labels.mean_C, labels.std_C)

    def _weights(self, backbones: Mapping[str, _Backbone], of_head: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = {f"fusion.{name}": value for name, value in of_head.items()}
        for modality, backbone in backbones.items():
            children = backbone.written.children
            for name, value in backbone.model.state_dict().items():
                if children is None or name.split(".")[0] in children:
                    weights[f"{attribute(self._arguments[modality])}.{name}"] = value
        return weights

    # Checks.

    def _samples(self, inputs: Sequence[Input]) -> dict[str, Tensor]:
        """Return samples of the validation split, by the names of the model's arguments."""
        if self._dataset is not None:
            arrays = self._dataset.splits["validation"].inputs
            return {of.argument: torch.from_numpy(np.array(arrays[of.modality][:N_SAMPLES])) for of in inputs}
        rows = np.array(self._features.matrix("validation")[:N_SAMPLES], dtype=np.float32)
        layout = self._features.layout
        return {
            of.argument: torch.from_numpy(np.ascontiguousarray(rows[:, layout.columns(of.modality, of.feature or "")]))
            for of in inputs
        }

    def _expected(
        self,
        backbones: Mapping[str, _Backbone],
        scaling: Scaling,
        head_state: Mapping[str, Tensor],
        samples: Mapping[str, Tensor],
        inputs: Sequence[Input],
    ) -> Tensor:
        """Return what the study's own network gives: tapped backbones, whole rows, the head as it was trained."""
        features: FeatureSet = self._features
        layout = features.layout
        rows_BF = torch.zeros(len(next(iter(samples.values()))), layout.n_columns)
        for modality, backbone in backbones.items():
            argument = next(of.argument for of in inputs if of.modality == modality)
            taps = [Tap(tap.name, tap.module, tap.channel_axis) for tap in backbone.taps]
            with torch.inference_mode(), feature_reader(backbone.model, taps, torch.device("cpu")) as read:
                for tap, output in zip(taps, read(samples[argument].numpy()), strict=True):
                    rows_BF[:, layout.columns(modality, tap.name)] = output
        for of in inputs:
            if of.feature is not None:
                rows_BF[:, layout.columns(of.modality, of.feature)] = samples[of.argument]
        rows_BF = (rows_BF - torch.from_numpy(scaling.shift_F)) / torch.from_numpy(scaling.scale_F)
        head = build_head(self._settings, layout, features.target.n_outputs, head_state)
        with torch.inference_mode():
            outputs_BC = head(rows_BF).fused_BC
        if scaling.label_std_C is not None and scaling.label_mean_C is not None:
            in_units: npt.NDArray[np.float64] = outputs_BC.numpy() * scaling.label_std_C + scaling.label_mean_C
            outputs_BC = torch.from_numpy(in_units.astype(np.float32))
        return outputs_BC

    def _check(self, folder: Path, samples: Mapping[str, Tensor], expected_BC: Tensor) -> dict[str, float]:
        self._say(f"Export: comparing {SOURCE} with the trained network, in a process without this program")
        differences = {SOURCE: checks.check_module(folder, samples, expected_BC)}
        self._say(f"Export: {PROGRAM}")
        model = checks.load_module(folder)
        program, differences[PROGRAM] = checks.write_program(folder, model, samples, expected_BC)
        if self._request.onnx or (self._request.onnx is None and checks.has_onnx()):
            self._say(f"Export: {ONNX}")
            differences[ONNX] = checks.write_onnx(folder, program, samples, expected_BC)
        return differences

    # Records.

    def _input_record(self, of: Input) -> dict[str, Any]:
        layout = None if self._dataset is None else self._dataset.layouts.get(of.modality, "image")
        return {
            "argument": of.argument,
            "modality": of.modality,
            "feature": of.feature,
            "dtype": of.dtype,
            "shape": list(of.shape),
            "layout": layout or "vector",
            "preparation": preparation(self._spec.dataset, of.modality, self._features.card, of.dtype),
        }

    def _backbone_record(self, modality: str, backbone: _Backbone) -> dict[str, Any]:
        columns = {tap.name: self._features.layout.columns(modality, tap.name) for tap in backbone.taps}
        return {
            **backbone.settings.model_dump(mode="json", exclude={"features", "training", "weights", "file"}),
            "taps": [
                {**tap.model_dump(mode="json"), "width": columns[tap.name].stop - columns[tap.name].start}
                for tap in backbone.taps
            ],
            **{
                name: value
                for name, value in self._prepared.backbones[modality].as_record().items()
                if name in ("digest", "validation_score", "test_score", "given")
            },
        }

    def _lineage(self) -> dict[str, Any]:
        final, chosen = self._chosen.final, self._chosen
        return {
            "finals": finals.final_name(self._request.study_name),
            "final_trial": final.number,
            "search_trial": chosen.search_trial,
            "seed": final.training.seed,
            "tuning_seeds": list(chosen.tuning_seeds),
            "recipe": dict(final.training.recipe),
            "weights": final.result.weights,
            "features": self._prepared.fingerprint,
            "settings": self._spec.fingerprint(),
            "torch": final.result.torch_version,
            "device": final.result.device,
            "mfas": __version__,
        }


def _own_name(file: str) -> str:
    """Return what a Python file of the user is called beside the model."""
    name = Path(file).name
    return f"own_{name}" if name in RESERVED else name
