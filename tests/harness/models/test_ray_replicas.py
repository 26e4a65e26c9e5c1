"""Replicas on a real local Ray cluster: the records of a local run, whatever dies."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra [ray]")

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.config import RunConfig, make_config
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.models.base import Backend, Completion, Request, Sampling
from vrft_bench.harness.models.ray_cluster import Cluster
from vrft_bench.harness.models.ray_replicas import RayBackend
from vrft_bench.harness.models.replica import FULL, READ_AHEAD
from vrft_bench.harness.results import RunResult
from vrft_bench.harness.run import evaluate
from vrft_bench.harness.store import SAMPLES, read_manifest
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec, ImageRef
from vrft_bench.tasks.profiles import ABS_ORIGINAL, QWEN2_VL

ODD = str(Path(__file__).with_name("odd_backends.py"))
TASK = get_task("coco_fewshot")

CLI = (sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()")

Start = Callable[..., RayBackend]


@pytest.fixture(scope="module")
def cluster(sample_cache: Path) -> Iterator[None]:
    """One cluster for all tests, which their backends find connected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 2)
        made = Cluster(None, replicas=2, gpus_per_replica=0.0)
    yield
    made.leave()


@pytest.fixture
def start(cluster: None) -> Iterator[Start]:
    with ExitStack() as stack:

        def make(model: str, replicas: int = 2, **arguments: Any) -> RayBackend:
            backend = RayBackend(model, {}, replicas=replicas, include=[ODD], **arguments)
            return stack.enter_context(closing(backend))

        yield make


@pytest.fixture(scope="module")
def asked(sample_cache: Path) -> list[Request]:
    """The 2,400 questions of the sample data's coco_fewshot."""
    samples = TASK.load(DataSpec()).samples()
    return [
        Request(TASK, sample, 0, TASK.messages(sample, ABS_ORIGINAL), ABS_ORIGINAL, Sampling()) for sample in samples
    ]


def records(run: RunResult) -> dict[tuple[str, int], dict[str, Any]]:
    """The records of a run, but for how long each took."""
    lines = [json.loads(line) for line in (run.folder / SAMPLES).read_text().splitlines()]
    assert len({(line["id"], line["n"]) for line in lines}) == len(lines)
    return {(line["id"], line["n"]): {**line, "seconds": None} for line in lines}


def once(completions: list[Completion], requests: list[Request]) -> None:
    assert Counter((item.sample_id, item.n) for item in completions) == Counter(
        (item.sample.id, item.n) for item in requests
    )


def test_a_mocks_run_is_that_of_one_process(start: Start, tmp_path: Path) -> None:
    def run(backend: Backend, folder: str) -> RunResult:
        return evaluate(TASK, backend, config.model_copy(update={"output_dir": tmp_path / folder}))

    config = make_config({"task": TASK.name, "model": "mock/noisy", "samples": 2, "limit": 300})
    here, there = run(load_backend("mock/noisy"), "here"), run(start("mock/noisy"), "there")
    assert records(there) == records(here)
    assert len(records(there)) == 600
    assert there.manifest.identity == here.manifest.identity
    assert there.manifest.fingerprint == here.manifest.fingerprint
    assert there.report == here.report


def test_a_models_run_is_that_of_one_process(start: Start, tmp_path: Path) -> None:
    task, backend = get_task("lvis_fewshot"), start("hf/tiny")
    local = load_backend("hf/tiny", {})
    assert backend.identity() == local.identity()
    assert backend.profile() == QWEN2_VL
    config = make_config({"task": task.name, "limit": 48, "max_tokens": 64})
    here = evaluate(task, local, config.model_copy(update={"output_dir": tmp_path / "here"}))
    there = evaluate(task, backend, config.model_copy(update={"output_dir": tmp_path / "there"}))
    assert records(there) == records(here)
    assert there.manifest.fingerprint == here.manifest.fingerprint


def test_a_limit_of_the_backend_reaches_any_profile(cluster: None) -> None:
    with closing(RayBackend("hf/tiny", {"max_pixels": 50176})) as backend:
        assert backend.with_pixel_limits(ABS_ORIGINAL).max_pixels == 50176
        with pytest.raises(UserError, match="min_pixels=100000 is above max_pixels=50176"):
            backend.with_pixel_limits(replace(ABS_ORIGINAL, min_pixels=100_000))


def test_small_runs_are_spread_too_and_requests_are_read_as_they_are_needed(start: Start, asked: list[Request]) -> None:
    read = 0

    def stream() -> Iterator[Request]:
        nonlocal read
        for request in asked:
            read += 1
            yield request

    backend = start("process/x")
    assert len({item.text for item in backend.generate(asked[:40])}) == 2
    completions = backend.generate(stream())
    most = 0
    for done, _ in enumerate(islice(completions, 500)):
        most = max(most, read - done)
    assert most <= 2 * (READ_AHEAD + FULL) + READ_AHEAD
    assert isinstance(completions, Iterator)
    completions.close()  # type: ignore[attr-defined]
    once(list(backend.generate(asked[:100])), asked[:100])


@pytest.mark.parametrize("how", ["SIGKILL", "ray.kill"])
def test_a_replica_that_is_killed_loses_no_sample(
    start: Start, asked: list[Request], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    import ray

    backend, requests = start("process/x"), asked[:1000]
    completions: list[Completion] = []
    for completion in backend.generate(requests):
        completions.append(completion)
        if len(completions) == 100:
            if how == "SIGKILL":
                os.kill(int(completion.text), signal.SIGKILL)
            else:
                ray.kill(backend._seats[0].actor)
    once(completions, requests)
    assert not [item for item in completions if item.error]
    assert len({item.text for item in completions}) == 3  # the two that began, and the one that took over
    assert len([line for line in caplog.messages if "a replica died" in line]) == 1


def test_a_sample_that_kills_fails_alone(start: Start, asked: list[Request]) -> None:
    requests = asked[:300]
    poison = requests[150].sample.id
    completions = list(start(f"poisoned/{poison}").generate(requests))
    once(completions, requests)
    (failed,) = [item for item in completions if item.error]
    assert failed.sample_id == poison
    assert re.match("the model's process dies of it: .+", failed.error or "")


def test_a_gpu_that_is_lost_is_replaced_with_its_process(start: Start, asked: list[Request]) -> None:
    requests = asked[:100]
    completions = list(start(f"loses_gpu/{requests[80].sample.id}").generate(requests))
    once(completions, requests)
    (failed,) = [item for item in completions if item.error]
    assert failed.error == "the model's process dies of it: the GPU is lost"


def test_a_place_where_every_replica_dies_is_given_up_and_nothing_fails(
    start: Start, asked: list[Request], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    requests = asked[:1000]
    completions = list(start(f"lonely/{tmp_path / 'number'}").generate(requests))
    once(completions, requests)
    assert not [item for item in completions if item.error]
    assert "3 replicas in a row died before they answered anything: going on with one fewer" in caplog.messages


def test_when_all_die_the_run_ends_and_resumes(start: Start, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    model = f"fragile/{broken}"
    config = make_config({"task": TASK.name, "model": model, "limit": 50, "output_dir": tmp_path / "runs"})
    broken.touch()
    with pytest.raises(BackendError, match="6 replicas died one after another without an answer: ") as caught:
        evaluate(TASK, start(model), config)
    assert "repeat the command: it resumes" in str(caught.value).lower()
    (folder,) = (tmp_path / "runs").glob("*/*/*/")
    assert read_manifest(folder).status == "failed"
    broken.unlink()
    result = evaluate(TASK, start(model), config)
    assert (result.folder, result.status, result.answers.failures) == (folder, "complete", 0)
    assert len(records(result)) == 50


def test_images_that_replicas_cannot_read_are_sent_once_each(
    start: Start, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    puts: list[bytes] = []
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: puts.append(value) or put(value))
    by_image = {request.sample.image.path: request for request in asked}
    images = [path for path in by_image if path is not None][:3]
    expected: dict[str, str] = {}
    requests: list[Request] = []
    with ExitStack() as stack:
        for number, path in enumerate(images):
            file = stack.enter_context(path.open("rb"))
            only_here = Path(f"/proc/self/fd/{os.dup2(file.fileno(), 900 + number)}")
            stack.callback(os.close, 900 + number)
            shown = by_image[path].sample
            held = shown.image
            as_bytes = ImageRef(held.width, held.height, data=path.read_bytes())
            for category, image in enumerate([replace(held, path=only_here)] * 40 + [as_bytes] * 40):
                name = f"{number}:{category}"
                sample = replace(shown, id=name, image=image)
                requests.append(replace(by_image[path], sample=sample))
                expected[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        completions = list(start("sees/x").generate(requests))
    once(completions, requests)
    assert {item.sample_id: item.image_sha256 for item in completions} == expected
    assert sorted(puts) == sorted([path.read_bytes() for path in images] * 2)  # once by path, once as bytes


def test_an_image_that_is_nowhere_fails_for_its_own_reason(start: Start, asked: list[Request], tmp_path: Path) -> None:
    sample = asked[0].sample
    away = replace(asked[0], sample=replace(sample, image=replace(sample.image, path=tmp_path / "away.png")))
    (there,) = start("sees/x", replicas=1).generate([away])
    assert there.error == f"away.png: no such file in {tmp_path}"


def test_replicas_without_a_place_are_not_waited_for(
    start: Start, asked: list[Request], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vrft_bench.harness.models.ray_replicas.GATHERING", 3.0)
    completions = list(start("process/x", replicas=5).generate(asked[:200]))
    once(completions, asked[:200])
    (told,) = [line for line in caplog.messages if line.startswith("going on with")]
    assert re.match(r"going on with [1-4] of 5 replicas: each needs 0 GPU and 0.5 CPU on one machine; ", told)


def test_replicas_that_are_different_models_are_refused(start: Start, asked: list[Request]) -> None:
    with pytest.raises(BackendError, match=r"is not that of .* \(there\): process: \d+ there, \d+ here"):
        list(start("fickle/x").generate(asked[:5]))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("refuses/x", UserError, "the engine takes no such profile"),
        ("loses_gpu/everything", None, ""),
        ("defective/x", ZeroDivisionError, "a defect of a plugin"),
        ("nonsense/x", UserError, "names no backend and no folder"),
        ("hf/no-such-folder", BackendError, "has to be on every machine of the cluster"),
    ],
)
def test_what_a_backend_says_of_a_mistake_arrives(
    start: Start, asked: list[Request], model: str, error: type[Exception] | None, message: str
) -> None:
    if error is None:
        assert len(list(start(model, replicas=1).generate(asked[:3]))) == 3
        return
    with pytest.raises(error, match=message):
        list(start(model, replicas=1).generate(asked[:3]))


def test_warnings_of_replicas_are_told(start: Start, asked: list[Request], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        list(start("warns/x", replicas=1).generate(asked[:1]))
    assert [line for line in caplog.messages if line.endswith("going on with batch_size 8")]


def children(pid: int) -> set[int]:
    """The processes below ``pid``, all the way down."""
    found: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            child = int(stat.parent.name)
            found |= {child} | children(child)
    return found


def test_ctrl_c_ends_the_cluster_and_one_process_can_resume(tmp_path: Path, sample_cache: Path) -> None:
    def command(*more: str) -> list[str]:
        own = ["--include", ODD, "--model", "slow/0.01", "--limit", "400", "--output-dir", str(tmp_path), *more]
        return [*CLI, "run", "--task", TASK.name, *own]

    on_ray = command("--executor", "ray", "--replicas", "2")
    process = subprocess.Popen(on_ray, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and sum(len(file.read_bytes()) for file in tmp_path.rglob(SAMPLES)) < 10_000:
        time.sleep(0.02)
    below = children(process.pid)
    assert len(below) >= 4  # two replicas, and the cluster's own
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert re.search(r"interrupted with \d+ of 400 completions done", err)
    assert [pid for pid in below if Path(f"/proc/{pid}/exe").exists()] == []
    resumed = subprocess.run(command("--json"), capture_output=True, text=True, timeout=120)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming" in resumed.stderr
    (result,) = [json.loads(line) for line in resumed.stdout.splitlines()]
    assert (result["status"], result["answers"]["completions"]) == ("complete", 400)


def test_gpus_that_are_not_there_are_a_mistake(tmp_path: Path, sample_cache: Path) -> None:
    flags = ["--model", "mock/gold", "--executor", "ray", "--gpus-per-replica", "1000", "--dry-run"]
    done = subprocess.run([*CLI, "run", "--task", TASK.name, *flags], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--replicas 1 --gpus-per-replica 1000: this machine has" in done.stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicas": 2}, "--replicas: the model runs in this process"),
        ({"address": "auto", "gpus_per_replica": 1}, "--address, --gpus-per-replica: the model runs in this process"),
        ({"executor": "ray", "gpus_per_replica": 1.5}, "one GPU can be shared, more than one cannot"),
        ({"executor": "ray", "tp": 2, "dp": 2, "gpus_per_replica": 2}, "an engine over 4 GPUs does not fit"),
        ({"executor": "ray", "address": "10.0.0.1:6379"}, "is neither auto nor ray://HOST:PORT"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        make_config(values).check_executor()


def test_the_executor_is_free_to_change_between_runs() -> None:
    for values in ({}, {"replicas": 1}, {"executor": "ray", "tp": 2, "gpus_per_replica": 2}):
        config: RunConfig = make_config(values)
        config.check_executor()
