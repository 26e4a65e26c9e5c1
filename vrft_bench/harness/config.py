"""RunConfig: everything that a user can choose about a run. Flags, config file and ``run.json`` are the same fields.

Nothing else reaches a run: an environment variable that matters (``VRFT_BENCH_DATA``) is resolved into a field by the
command line before it gets here, and is recorded like any other choice.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.models.base import Sampling
from vrft_bench.tasks.base import DataSpec, ProtocolName

_ALIASES = {"tasks": "task", "n": "samples"}
_LISTS = ("task", "categories", "sample_id", "include")
_PATHS = ("data", "annotations", "images", "output_dir", "cache")
_BACKEND_FIELDS = ("base_url", "max_concurrent", "tp", "dp", "spawn", "structured")
"""Fields that are arguments of the backend under names of their own."""
_CLUSTER_FIELDS = ("address", "replicas", "gpus_per_replica")
"""Fields that only the Ray executor reads."""
_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}
_TEXTS = ("model", "profile", "split", "ask", "base_url", "address", *_PATHS)


class RunConfig(BaseModel):
    """The choices of one ``vrft-bench run``. A field's description is also the help text of its flag."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    task: list[str] = Field(default=[], description="Tasks to run: names, globs or groups.")
    model: str = Field(default="hf/tiny", description="The model as backend/name, e.g. hf/PATH, mock/gold.")
    model_args: dict[str, Any] = Field(default={}, description="Arguments of the backend, e.g. batch_size=8.")
    base_url: str | None = Field(
        default=None, description="Address of an OpenAI-compatible server: http://host:8000/v1."
    )
    max_concurrent: int | None = Field(
        default=None, strict=True, ge=1, description="Most requests in flight at once, for backends that ask a server."
    )
    tp: int | None = Field(default=None, strict=True, ge=1, description="Tensor-parallel size of a vLLM engine.")
    dp: int | None = Field(default=None, strict=True, ge=1, description="Data-parallel replicas of a vLLM engine.")
    spawn: bool = Field(default=False, strict=True, description="Start a vLLM server for vllm/MODEL and ask it.")
    structured: bool = Field(
        default=False, strict=True, description="Let the engine write nothing but the task's answer format."
    )
    executor: Literal["local", "ray"] = Field(
        default="local", description="Where the model runs: local (this process) or ray (a replica per actor)."
    )
    address: str | None = Field(default=None, description="Ray cluster to join: auto or ray://HOST:PORT.")
    replicas: int = Field(default=1, strict=True, ge=1, description="Replicas of the model on the Ray cluster.")
    gpus_per_replica: float = Field(default=0.0, ge=0.0, description="GPUs that Ray gives to each replica.")
    cache: Path | None = Field(
        default=None, description="Folder of answers kept across runs; by default nothing is kept."
    )
    profile: str | None = Field(
        default=None, description="Coordinate profile; by default the one that the checkpoint's config selects."
    )
    protocol: ProtocolName = Field(
        default="strict", description="Rules of parsing and scoring: strict (sound) or paper (Visual-RFT's own)."
    )
    reward: str | None = Field(
        default=None, description="Rewards and weights in place of the task's own, e.g. iou=1,format=0.5."
    )
    data: Path | None = Field(default=None, description="Root of the real data; without it the sample data is used.")
    split: str | None = Field(default=None, description="Split of the data; by default the task's own.")
    shots: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        description="Only the samples of a few-shot split that `vrft-bench data split` drew; the split is then train.",
    )
    split_seed: int = Field(default=0, strict=True, ge=0, description="Seed that the few-shot split was drawn with.")
    categories: list[str] = Field(default=[], description="Only these categories; by default the task's own.")
    ask: str | dict[str, str] | None = Field(
        default=None,
        description="Which categories to ask per image: present (those in the truth), all, or file:PATH (a JSON map "
        "of image id to category names); by default the task's own rule. Of several tasks, a rule for each: TASK=RULE.",
    )
    annotations: Path | None = Field(default=None, description="Annotation file of the generic tasks.")
    images: Path | None = Field(default=None, description="Image folder of the generic tasks.")
    limit: int | None = Field(default=None, strict=True, ge=1, description="Only the first so many samples.")
    sample_id: list[str] = Field(default=[], description="Only the samples with these ids.")
    samples: int = Field(default=1, strict=True, ge=1, description="Completions per sample.")
    temperature: float = Field(default=0.0, strict=True, ge=0.0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(
        default=1.0, strict=True, gt=0.0, le=1.0, description="Nucleus sampling: the probability mass kept."
    )
    max_tokens: int = Field(default=1024, strict=True, ge=1, description="Longest completion, in tokens.")
    seed: int = Field(default=0, strict=True, description="Seed of everything random in the run.")
    output_dir: Path = Field(default=Path("results"), description="Where run folders go, or one run folder to resume.")
    fresh: bool = Field(
        default=False, strict=True, description="Start a new run even where a finished or a partial one is there."
    )
    max_failures: float = Field(
        default=0.05,
        strict=True,
        ge=0.0,
        le=1.0,
        description="Share of failed samples above which the run stops as failed.",
    )
    include: list[str] = Field(default=[], description="Python files that register tasks, models or profiles.")

    @field_validator(*_LISTS, mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        """A plain string is a comma list, as on the command line; a list is taken as it is."""
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()] or [""]
        if isinstance(value, list) and any(isinstance(part, str) and not part.strip() for part in value):
            raise ValueError("it names nothing")
        return value

    @field_validator(*_TEXTS, mode="before")
    @classmethod
    def _refuse_empty(cls, value: Any) -> Any:
        """An empty path would mean the working directory, and nobody means that by it."""
        if isinstance(value, str) and not value.strip():
            raise ValueError("it is empty")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _refuse_what_run_json_cannot_hold(cls, value: Any) -> Any:
        """Bytes that are no UTF-8 reach Python as half surrogate pairs; a backend's arguments may be anything."""
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False, default=_path_text).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(f"it cannot be written as JSON in UTF-8 ({error})") from None
        return value

    def with_absolute_paths(self) -> RunConfig:
        """The same choices of data and code for a process that works in another folder, where it keeps its own runs."""
        changed: dict[str, Any] = {
            name: path.absolute()
            for name in _PATHS
            if name != "output_dir" and isinstance(path := getattr(self, name), Path)
        }
        changed["include"] = [str(Path(file).expanduser().absolute()) for file in self.include]
        if isinstance(self.ask, str):
            changed["ask"] = _absolute_rule(self.ask)
        elif self.ask is not None:
            changed["ask"] = {task: _absolute_rule(rule) for task, rule in self.ask.items()}
        return self.model_copy(update=changed)

    def data_spec(self) -> DataSpec:
        """The part that says which data the run of one task is about."""
        if isinstance(self.ask, dict):
            raise UserError(
                f"ask has a rule for each of {', '.join(self.ask)}, and this is about one task",
                fix="give the rule alone: present, all or file:PATH",
            )
        split = "train" if self.split is None and self.shots is not None else self.split
        return DataSpec(self.data, split, tuple(self.categories), self.ask, self.annotations, self.images)

    def backend_args(self) -> dict[str, Any]:
        """``model_args`` with the fields that stand for one. Raises :class:`UserError` where both are given."""
        args = dict(self.model_args)
        for name in _BACKEND_FIELDS:
            value = getattr(self, name)
            if value is None or value is False:
                continue
            if name in args:
                flag = name.replace("_", "-")
                raise UserError(f"{name} is given twice: by --{flag} and by --model-args", fix="leave out one of them")
            args[name] = value
        return args

    def check_executor(self) -> None:
        """Raises :class:`UserError` where what is said about a Ray cluster does not go together."""
        idle = [name for name in _CLUSTER_FIELDS if getattr(self, name) != RunConfig.model_fields[name].default]
        if self.executor == "local" and idle:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
            raise UserError(f"{flags}: the model runs in this process", fix="add --executor ray, or leave it out")
        if self.address is not None and self.address != "auto" and not self.address.startswith("ray://"):
            raise UserError(
                f"--address {self.address!r} is neither auto nor ray://HOST:PORT",
                fix="write auto on a machine of the cluster, ray://HOST:10001 on any other",
            )
        if self.gpus_per_replica > 1.0 and not self.gpus_per_replica.is_integer():
            raise UserError(
                f"--gpus-per-replica {self.gpus_per_replica:g}: one GPU can be shared, more than one cannot",
                fix="write 0.5, 1, 2, ...",
            )
        engine = (self.tp or 1) * (self.dp or 1)
        if self.executor == "ray" and engine > max(self.gpus_per_replica, 1.0):
            raise UserError(
                f"an engine over {engine} GPUs does not fit --gpus-per-replica {self.gpus_per_replica:g}",
                fix=f"say --gpus-per-replica {engine}",
            )

    def sampling(self) -> Sampling:
        """The part that says how completions are drawn."""
        return Sampling(self.temperature, self.top_p, self.max_tokens, self.samples, self.seed)


def _absolute_rule(rule: str) -> str:
    kind, colon, path = rule.partition(":")
    return f"file:{Path(path).expanduser().absolute()}" if kind == "file" and colon else rule


def make_config(values: Mapping[str, Any], *, source: str = "the command line") -> RunConfig:
    """A validated config. Raises :class:`UserError` that names the field, what was given and what is valid."""
    try:
        return RunConfig.model_validate(_by_field(values, source))
    except ValidationError as error:
        raise _explain(error, source) from None


def load_config(path: str | Path) -> RunConfig:
    """Read a config from a YAML, TOML or JSON file, or from the ``run.json`` of an earlier run.

    Relative paths in it are meant from the working directory, as on the command line.
    """
    return make_config(read_config_file(path), source=str(path))


def read_config_file(path: str | Path) -> dict[str, Any]:
    """The keys and values that a config file sets, not yet validated."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"--config {str(path)!r}: no such file", fix="give a .yaml, .toml or .json file, or a run.json")
    try:
        value = _parse(file)
    except (ValueError, UnicodeDecodeError) as error:  # what json, tomllib and our YAML wrapper raise
        raise UserError(f"{path} is not valid {file.suffix.lstrip('.').upper()}: {error}", fix="repair it") from None
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        value = value["config"]
    if not isinstance(value, dict):
        raise UserError(
            f"{path} holds a {type(value).__name__}, not fields with values",
            fix="write one field per line, e.g. `task: coco_fewshot`",
        )
    return value


def merge(
    base: Mapping[str, Any] | RunConfig, flags: Mapping[str, Any], *, source: str = "the command line"
) -> RunConfig:
    """``base`` (a config, or what :func:`read_config_file` gave) with the explicitly given ``flags`` on top."""
    values = base.model_dump(exclude_unset=True) if isinstance(base, RunConfig) else base
    return make_config({**_by_field(values, source), **_by_field(flags, source)}, source=source)


def _by_field(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """``values`` under their fields' names: ``max-tokens`` is ``max_tokens``, and ``tasks`` is ``task``."""
    given: dict[str, str] = {}
    for key in values:
        if not isinstance(key, str):
            raise UserError(f"in {source}: the key {key!r} is not text", fix="write one field per line, as `limit: 5`")
        name = key.replace("-", "_")
        name = _ALIASES.get(name, name)
        if name in given:
            raise UserError(
                f"in {source}: {given[name]!r} and {key!r} are one field, and both are given",
                fix=f"leave out one of them, and write the other as {name!r}",
            )
        given[name] = key
    return {name: values[key] for name, key in given.items()}


def _parse(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    match file.suffix.lower():
        case ".json":
            return json.loads(text)
        case ".toml":
            return tomllib.loads(text)
        case ".yaml" | ".yml":
            import yaml

            try:
                return yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from None
        case suffix:
            raise UserError(f"{file}: unknown kind of config file {suffix!r}", fix="use .yaml, .toml or .json")


def validation_lines(error: ValidationError) -> list[str]:
    """What pydantic found, a line per place: ``config.limit: input should be a valid integer``."""
    return [
        ".".join(str(part) for part in item["loc"]) + (": " if item["loc"] else "") + _lowered(item["msg"])
        for item in error.errors()
    ]


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _explain(error: ValidationError, source: str) -> UserError:
    problems, fixes = [], {}
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown field {field!r}{did_you_mean(field, RunConfig.model_fields)}")
            fixes["fields"] = f"valid fields are {', '.join(RunConfig.model_fields)}"
        else:
            said = _lowered(item["msg"].removeprefix("Value error, "))
            problems.append(f"{field} = {item['input']!r}: {said}")
            fixes[field] = _valid(str(item["loc"][0]))
    return UserError(f"in {source}: " + "; ".join(problems), fix="; ".join(fixes.values()))


def _valid(name: str) -> str:
    """What a field takes: ``limit takes a whole number of at least 1 (only the first so many samples)``."""
    field = RunConfig.model_fields[name]
    about = _lowered((field.description or "").rstrip("."))
    types = get_args(field.annotation) or (field.annotation,)
    kind = next((word for kind, word in _KINDS.items() if kind in types), None)
    if kind is None:
        return f"{name}: {about}"
    bounds = [
        f"{sign} {bound:g}"
        for sign, key in (("of at least", "ge"), ("above", "gt"), ("at most", "le"))
        for rule in field.metadata
        if (bound := getattr(rule, key, None)) is not None
    ]
    return f"{name} takes {' '.join([kind, ' and '.join(bounds)]).strip()} ({about})"


def _path_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no type of JSON")
