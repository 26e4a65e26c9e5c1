"""Writing an export: everything or nothing, the same bytes for the same choices, and never over another one."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from vrft_bench import __version__
from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.plan import RunPlan, choose_task, make_plan
from vrft_bench.harness.store import write_json
from vrft_bench.registry import PROFILES
from vrft_bench.tasks.base import Task
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.trainers.base import Hyperparameters
from vrft_bench.trainers.export.base import SETTLED, Engine, Export, Stage
from vrft_bench.trainers.export.images import ImageFolder, images_digest
from vrft_bench.trainers.export.rows import export_rows
from vrft_bench.trainers.export.scoring import FORMAT, INCLUDED, MANIFEST, read_manifest, reward_weights

_TASK_FILES = ("data", "reward.py", "vrft_taskset.py", "dataset_info.json")
"""Files that may not change after the export."""
_SETTINGS = ("config.args", "config.yaml", "launch.sh")
"""Files that are there to be edited, and may not be missing."""
_IDENTITY = ("format", "engine", "stage", "task", "data", "profile", "hyperparameters", "model")
"""Parts of a manifest that say what an export is of."""

MODELS = {
    "qwen2-vl": "Qwen/Qwen2-VL-2B-Instruct",
    "qwen2.5-vl": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen3-vl": "Qwen/Qwen3-VL-4B-Instruct",
}
"""The model that ``launch.sh`` trains where none is named, by profile."""


def find_engine(name: str, stage: str) -> Engine:
    """The engine called ``name``. Raises :class:`UserError` for one that is unknown or that lacks ``stage``."""
    from vrft_bench.trainers.export.engines import ENGINES

    if name not in ENGINES:
        raise UserError(
            f"--for {name!r} is no engine that is exported to{did_you_mean(name, ENGINES)}",
            fix=f"choose one of {', '.join(ENGINES)}; for TRL, `vrft-bench train` trains in place",
        )
    engine = ENGINES[name]
    if stage not in SETTLED:
        raise UserError(f"--stage {stage!r} is no stage{did_you_mean(stage, SETTLED)}", fix="choose grpo or sft")
    if stage not in engine.stages:
        raise UserError(f"{name} has no stage {stage!r} for vision-language models", fix=engine.elsewhere)
    return engine


def settled(stage: Stage, recipe: Mapping[str, Any]) -> Hyperparameters:
    """A value for everything: the recipe's where it has one."""
    values = SETTLED[stage].given()
    if "steps" in recipe and "epochs" not in recipe:
        values.pop("epochs")
    return Hyperparameters(**values | {name: value for name, value in recipe.items() if name != "engine_args"})


def limited_profile(config: RunConfig, how: Hyperparameters) -> ModelProfile:
    """The profile that boxes are written in, within the area limits of ``how``. Raises :class:`UserError` for none."""
    from vrft_bench.harness.models.pixel_limits import limit_pixels

    if config.profile is None:
        raise UserError(
            "an export is made for one family of models, and no profile is given",
            fix=f"say --profile {' | '.join(PROFILES.names())}: images and boxes are written as that family sees them",
        )
    profile: ModelProfile = PROFILES.get(config.profile)
    return limit_pixels(profile, how.min_pixels, how.max_pixels)


def write_export(
    engine: Engine,
    stage: Stage,
    config: RunConfig,
    folder: Path,
    *,
    recipe: Mapping[str, Any],
    model: str | None = None,
    manifest: Path | None = None,
) -> tuple[dict[str, Any], bool]:
    """Export the task of ``config`` into ``folder``: its manifest, and whether it was written.

    A folder that holds the very same export is left as it is. Raises :class:`UserError` for one that holds anything
    else, for a profile or a model that is missing, and for a reward whose name means something to the engine;
    :class:`DataError` for images that cannot be read.
    """
    how = settled(stage, recipe)
    _require_even(stage, how)
    (name,) = config.task
    task = choose_task(name, config)
    _refuse_reserved(engine, task)
    profile = limited_profile(config, how)
    plan = make_plan(task, profile, config)
    found = _manifest(engine, stage, plan, how, _named(model) if model else _usual_model(profile), manifest)
    if _holds_the_same(folder, found):
        return read_manifest(folder), False
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--output-dir {folder}: {error.strerror}", fix="choose another folder with -o") from error
    try:
        _write(engine, plan, partial, found, how, manifest, _engine_args(recipe))
        _put(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return found, True


def _put(partial: Path, folder: Path) -> None:
    """Let the export in ``partial`` be ``folder``: at once, or the manifest last in an empty one that is there already.

    That one may be where the user is, or a mounted volume, and neither can be replaced.
    """
    if not folder.exists():
        partial.rename(folder)
        return
    for path in sorted(partial.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
        shutil.move(path, folder / path.name)
    partial.rmdir()


def _require_even(stage: Stage, how: Hyperparameters) -> None:
    """Raise :class:`UserError` for a batch that engines would make a smaller or larger one without a word."""
    assert how.batch_size is not None
    parts = [(how.accumulation, "accumulation")] + ([(how.group_size, "group_size")] if stage == "grpo" else [])
    for part, name in parts:
        if part is not None and how.batch_size % part:
            raise UserError(
                f"batch_size {how.batch_size} is no multiple of {name} {part}",
                fix=f"give such numbers with --recipe FILE, where `{stage}:` holds `batch_size:` and `{name}:`",
            )


def _engine_args(recipe: Mapping[str, Any]) -> list[str]:
    """A recipe's arguments for TRL, which no other engine is told."""
    return [f"engine_args = {recipe['engine_args']}"] if recipe.get("engine_args") else []


def _write(
    engine: Engine,
    plan: RunPlan,
    folder: Path,
    found: dict[str, Any],
    how: Hyperparameters,
    manifest: Path | None,
    left_out: list[str],
) -> None:
    stage = found["stage"]
    rows = export_rows(plan, ImageFolder(folder, plan.profile), stage, manifest)
    export = Export(folder, stage, plan, rows, how, found["model"], left_out)
    _copy_included(plan.config, folder)
    engine.write(export)
    (folder / "launch.sh").chmod(0o755)
    count, digest = images_digest(folder)
    found["left_out"] = export.left_out
    found["settings"] = sorted(path.name for path in folder.iterdir() if path.name in _SETTINGS)
    found["counts"] = {"rows": len(rows), "images": count}
    found["images_sha256"] = digest
    found["files"] = file_hashes(folder)
    write_json(folder / MANIFEST, found)


def file_hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file of an export that may not change, by name."""
    listed = [path for name in (*_TASK_FILES, INCLUDED) for path in ((folder / name), *(folder / name).rglob("*"))]
    kept = sorted(path for path in set(listed) if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def ship(name: str, target: Path) -> None:
    """Copy a file of ``shipped`` as it is."""
    source = files("vrft_bench.trainers.export.shipped") / name
    target.write_bytes(source.read_bytes())


def _manifest(
    engine: Engine, stage: Stage, plan: RunPlan, how: Hyperparameters, model: str, selection: Path | None
) -> dict[str, Any]:
    task = plan.task
    return {
        "format": FORMAT,
        "engine": {"name": engine.name, "version": engine.version},
        "stage": stage,
        "task": {
            "name": task.name,
            "version": task.version,
            "protocol": task.protocol,
            "reward": plan.config.reward,
            "rewards": reward_weights(task),
            "included": [Path(file).name for file in plan.config.include],
            "vrft_bench": __version__,
        },
        "data": {
            "kind": plan.data_kind,
            "split": plan.dataset.split,
            "shots": plan.config.shots,
            "samples": plan.survey.samples,
            "sha256": plan.survey.sha256,
            "selection_sha256": None if selection is None else _selection_hash(selection),
        },
        "profile": _as_stored(plan.profile.to_json()),
        "hyperparameters": how.given(),
        "model": model,
    }


def _selection_hash(manifest: Path) -> str:
    try:
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"--manifest {manifest}: {error.strerror}", fix="give a manifest of `probe`") from error


def _as_stored(value: dict[str, Any]) -> dict[str, Any]:
    return {name: list(item) if isinstance(item, tuple) else item for name, item in value.items()}


def _holds_the_same(folder: Path, found: dict[str, Any]) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    fix = "choose another folder with -o, or remove this one"
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is there and holds no export", fix=fix)
    there = read_manifest(folder)
    for part in _IDENTITY:
        if there.get(part) != found[part]:
            raise UserError(
                f"{folder} already holds another export: its {part} is {_short(there.get(part))}, and this one's "
                f"{_short(found[part])}",
                fix=fix,
            )
    return True


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _refuse_reserved(engine: Engine, task: Task) -> None:
    for reward in task.rewards:
        if reward.name in engine.reserved or reward.name == "total":
            raise UserError(
                f"the reward {reward.name!r} of {task.name} has a name that {engine.name} uses itself",
                fix="rename the reward",
            )


def _named(model: str) -> str:
    """``model``; a folder by its whole path, since ``launch.sh`` is started from anywhere."""
    folder = Path(model).expanduser()
    return str(folder.absolute()) if folder.is_dir() else model


def _usual_model(profile: ModelProfile) -> str:
    if profile.name not in MODELS:
        raise UserError(
            f"no model is known for profile {profile.name!r}", fix="name the one to train with --model PATH_OR_ID"
        )
    return MODELS[profile.name]


def _copy_included(config: RunConfig, folder: Path) -> None:
    names = [Path(file).name for file in config.include]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two included files are called {twice.pop()!r}", fix="rename one of them")
    for file in config.include:
        (folder / INCLUDED).mkdir(exist_ok=True)
        shutil.copyfile(Path(file).expanduser(), folder / INCLUDED / Path(file).name)
