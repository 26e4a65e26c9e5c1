"""``vrft-bench doctor`` as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STUBBORN = """
from vrft_bench.harness.models.base import Completion
from vrft_bench.registry import MODELS
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.profiles import NORM_1, QWEN2_VL


class Stubborn:
    def __init__(self, name, args):
        self.name = name

    def identity(self):
        return {"name": self.name}

    def profile(self):
        return QWEN2_VL

    def generate(self, requests):
        for request in requests:
            image = request.sample.image
            gold = request.task.gold(request.sample, Frame(NORM_1, image.width, image.height))
            yield Completion(request.sample.id, request.n, gold)

    def close(self):
        pass


MODELS.register("stubborn_for_doctor", Stubborn)
"""


def test_the_report_ends_with_the_verdict(cli: Callable[..., Any]) -> None:
    outcome = cli("doctor", "--model", "mock/gold", "--profile", "qwen3-vl", "--per-size", "4", "--plain")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["environment", "state", "what", "there", "is"]
    assert "profile   qwen3-vl: norm_1000; images are resized to multiples of 32, 65,536 to 16,777,216 pixels" in lines
    (best,) = [line for line in lines if line.startswith("norm_1000 (as asked)")]
    assert best.split()[3] == "0.998"
    assert best.split()[-6:] == ["1.00"] * 6
    assert lines[-1].startswith("verdict: speaks norm_1000, as its profile declares (IoU 1.00 against 0.")
    assert "asking 48 questions about drawn images, in norm_1000" in outcome.err


def test_a_contradiction_ends_with_exit_code_1_and_json_holds_the_evidence(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    outcome = cli("doctor", "--include", "stubborn.py", "--model", "stubborn_for_doctor/x", "--per-size", "4", "--json")
    assert outcome.code == 1
    report = json.loads(outcome.out)
    assert (report["verdict"]["finding"], report["verdict"]["speaks"]) == ("contradicts", ["norm_1"])
    assert report["exit_code"] == 1
    by_name = {way["name"]: way for way in report["asked"][0]["readings"]}
    assert by_name["norm_1"]["iou"] > 0.99
    assert by_name["norm_1000"]["iou"] < 0.3
    assert report["asked"][0]["sizes"]["84x84"]["numbers_across"] == pytest.approx([1.0, 1.0], abs=0.002)


def test_a_model_that_does_not_load_ends_with_exit_code_4(cli: Callable[..., Any]) -> None:
    outcome = cli("doctor", "--model", "hf/not-there")
    assert outcome.code == 4
    assert "FAILED    hf/not-there: no such checkpoint folder\n            fix: give a checkpoint folder" in outcome.out


def test_a_cluster_is_refused_with_what_to_do_instead(cli: Callable[..., Any]) -> None:
    for flags in (["--executor", "ray"], ["--replicas", "2"], ["--address", "auto"], ["--gpus-per-replica", "1"]):
        outcome = cli("doctor", "--model", "mock/gold", "--profile", "qwen2-vl", *flags)
        assert outcome.code == 2
        assert "doctor examines the model on this machine, not on a cluster" in outcome.err
        assert "run doctor on a machine of the cluster" in outcome.err
