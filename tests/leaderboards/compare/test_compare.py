"""Comparing runs: what is shared, and figures that can be known otherwise."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.identity import fingerprint
from vrft_bench.leaderboards.compare import Comparison, compare_runs
from vrft_bench.leaderboards.compare_answers import Tally
from vrft_bench.leaderboards.compare_metrics import Resampling, sizes_of
from vrft_bench.leaderboards.compare_words import conclusions, warnings
from vrft_bench.leaderboards.report.joined import join_run
from vrft_bench.leaderboards.report.verdicts import judge_run
from vrft_bench.leaderboards.runs import open_runs
from vrft_bench.tasks.base import BoxTarget, ClassTarget, Dataset, Figure, MaskTarget, MetricReport, Prediction, Sample
from vrft_bench.tasks.classification import ClassificationTask
from vrft_bench.tasks.data.sample import sample_folder
from vrft_bench.tasks.metrics.paired import FigureKey
from vrft_bench.tasks.metrics.significance import clusters_needed, detectable_difference, mcnemar

pytestmark = pytest.mark.usefixtures("sample_cache")
FEW = Resampling(replicates=100)


def figure(folder: Path, name: str) -> float:
    """What the run's own metrics say."""
    return float(json.loads((folder / "metrics.json").read_text())["report"]["figures"][name]["value"])


def row(found: Comparison, key: FigureKey, table: str = "figures", pair: int = 0) -> Any:
    return next(item for item in found.pairs[pair].tables[table] if item.key == key)


class TestFigures:
    def test_accuracy_is_tested_by_mcnemar_on_the_samples_that_flipped(self, ran: Any) -> None:
        one = ran("classification", "one", ran.sometimes(0.8, seed="a"), limit=60)
        two = ran("classification", "two", ran.sometimes(0.6, seed="b"), limit=60)
        found = compare_runs([one, two], FEW)
        pair, accuracy = found.pairs[0], row(found, FigureKey("accuracy"))
        assert accuracy.difference.before == figure(one, "accuracy")
        assert accuracy.difference.after == figure(two, "accuracy")
        assert pair.gained - pair.lost == round(60 * accuracy.difference.value)
        assert pair.gained > 0
        assert accuracy.difference.p_value == pytest.approx(mcnemar(pair.gained, pair.lost))
        assert pair.right.difference.value == accuracy.difference.value
        for label in {flip.id.split("/")[0] for flip in pair.flips}:
            own = row(found, FigureKey("accuracy", label), "by_category")
            stored = json.loads((two / "metrics.json").read_text())["report"]["by_category"][label]
            assert own.difference.after == pytest.approx(stored["accuracy"]["value"])
            assert own.objects == stored["n"]

    @pytest.mark.parametrize("task", ["coco_fewshot", "lvis_fewshot", "coco_ovd"])
    def test_detection_has_every_figure_of_both_reports(self, task: str, ran: Any) -> None:
        one = ran(task, "one", ran.noisy(miss=0.1), limit=160)
        two = ran(task, "two", ran.noisy(miss=0.3, jitter=0.15), limit=160)
        found = compare_runs([one, two], FEW)
        assert found.pairs[0].headline.key == FigureKey("ap")
        stored = json.loads((one / "metrics.json").read_text())["report"]["figures"]
        compared = {item.key.figure for item in found.pairs[0].tables["figures"]}
        defined = {name for name, item in stored.items() if item["value"] is not None}
        sizes = {f"ap_{item.key.size}" for item in found.pairs[0].tables["by_size"]}
        untested = {"ap_tie_min", "ap_tie_mean", "ap_tie_max", "boxes_without_confidence"}
        assert compared | sizes == defined - untested
        for item in (*found.pairs[0].tables["figures"], *found.pairs[0].tables["by_size"]):
            name = f"ap_{item.key.size}" if item.key.size else item.key.figure
            assert item.difference.before == pytest.approx(figure(one, name))
            assert item.difference.after == pytest.approx(figure(two, name))
        by_category = found.pairs[0].tables["by_category"]
        stored = json.loads((two / "metrics.json").read_text())["report"]["by_category"]
        for item in by_category:
            assert item.difference.after == pytest.approx(stored[item.key.category]["ap"]["value"])
            assert item.objects == stored[item.key.category]["truths"]
        assert sum(item.objects for item in found.pairs[0].tables["by_size"]) == sum(
            item.objects for item in by_category
        )

    def test_answers_are_right_where_the_report_says_so(self, ran: Any) -> None:
        for task, answer in (
            ("coco_fewshot", ran.noisy(miss=0.2, jitter=0.2, false=0.3)),
            ("lvis_fewshot", ran.noisy(miss=0.2, jitter=0.2, false=0.3)),
            ("lisa_grounding", ran.noisy(jitter=0.25)),
            ("classification", ran.sometimes(0.5, otherwise=ran.unreadable)),
        ):
            perfect, other = ran(task, "perfect", ran.gold, limit=150), ran(task, "other", answer, limit=150)
            pair = compare_runs([perfect, other], FEW).pairs[0]
            verdicts = judge_run(join_run(open_runs([other]).rows[0]))
            wrong_in_report = {key for (key, _), verdict in verdicts.items() if not verdict.right}
            assert {flip.id for flip in pair.flips} == wrong_in_report
            assert 10 < pair.lost < 140
            assert pair.gained == 0

    def test_grounding_is_compared_by_the_size_of_the_region(self, ran: Any) -> None:
        one, two = (
            ran("lisa_grounding", "one", ran.noisy(jitter=0.1)),
            ran("lisa_grounding", "two", ran.noisy(jitter=0.3)),
        )
        found = compare_runs([one, two], FEW)
        for name in ("miou", "acc50"):
            assert row(found, FigureKey(name)).difference.after == pytest.approx(figure(two, name))
        sizes = found.pairs[0].tables["by_size"]
        assert {item.key.size for item in sizes} == {"small", "medium"}
        whole = sum(item.difference.after * item.objects for item in sizes) / sum(item.objects for item in sizes)
        assert whole == pytest.approx(figure(two, "miou"))

    def test_truth_that_nobody_was_asked_about_is_missed_by_both(self, ran: Any, tmp_path: Path) -> None:
        asked = tmp_path / "asked.json"
        asked.write_text(json.dumps({str(image): ["red circle", "red square"] for image in range(1, 301)}))
        answers = {"one": ran.noisy(miss=0.1), "two": ran.noisy(miss=0.4)}
        one, two = (ran("coco_fewshot", name, answer, ask=f"file:{asked}") for name, answer in answers.items())
        ap = row(compare_runs([one, two], FEW), FigureKey("ap")).difference
        assert (ap.before, ap.after) == (pytest.approx(figure(one, "ap")), pytest.approx(figure(two, "ap")))
        assert 0 < ap.after < ap.before < 0.25

    def test_answers_that_never_came_are_wrong_and_have_no_length(self, ran: Any) -> None:
        one, two = (ran("classification", name, ran.gold, limit=40) for name in ("one", "two"))
        lines = (two / "samples.jsonl").read_text().splitlines()
        for number in range(4):
            record = json.loads(lines[number])
            lines[number] = json.dumps({"id": record["id"], "n": 0, "error": "the server is gone"})
        (two / "samples.jsonl").write_text("\n".join(lines) + "\n")
        found = compare_runs([one, two], FEW)
        assert found.pairs[0].statuses["failed"].answers == [0, 4]
        assert row(found, FigureKey("accuracy")).difference.value == pytest.approx(-0.1)
        assert row(found, FigureKey("total"), "rewards").difference.after == pytest.approx(1.8)
        assert row(found, FigureKey("characters"), "lengths").difference.value == pytest.approx(0, abs=2)
        assert (
            "10.0% of the answers of B cannot be read, and 0.0% of those of A: 4 right answers were lost with that"
            in (conclusions(found))
        )

    def test_sizes_are_cocos_by_annotated_area(self) -> None:
        box = (0.0, 0.0, 100.0, 100.0)
        assert sizes_of(BoxTarget((box, box, box), (1024.0, 1025.0, 9217.0))) == ["small", "medium", "large"]
        assert sizes_of(BoxTarget((box,))) == ["large"]
        assert sizes_of(MaskTarget((0.0, 0.0, 20.0, 20.0), ())) == ["small"]
        assert sizes_of(ClassTarget("x")) == []

    def test_pass_at_k_is_the_unbiased_estimator(self) -> None:
        assert Tally("image", right=2, asked=4).pass_at(1) == 0.5
        assert Tally("image", right=2, asked=4).pass_at(2) == pytest.approx(5 / 6)
        assert Tally("image", right=1, asked=4).pass_at(4) == 1.0
        assert Tally("image", right=0, asked=4).pass_at(4) == 0.0

    def test_pass_at_k_of_several_answers_stands_beside_pass_at_1(self, ran: Any) -> None:
        """One is right on most samples always, the other on nearly all of them, but not each time."""
        one = ran("classification", "wide", ran.sometimes(0.4), limit=80, samples=4, temperature=1.0)
        sure = ran.sometimes(0.6, always=True)
        two = ran("classification", "sure", sure, limit=80, samples=4, temperature=1.0)
        found = compare_runs([one, two], Resampling(replicates=400))
        rows = {item.key.figure: item.difference for item in found.pairs[0].tables["pass_at_k"]}
        assert list(rows) == ["pass@1", "pass@2", "pass@4"]
        assert rows["pass@1"].before == pytest.approx(figure(one, "accuracy"))
        assert rows["pass@1"].after == pytest.approx(rows["pass@4"].after)
        assert rows["pass@1"].value > 0 > rows["pass@4"].value
        assert any("solves fewer samples in all" in line for line in conclusions(found))

    def test_pass_at_k_of_the_one_run_that_has_several_answers_is_shown_alone(self, ran: Any) -> None:
        one = ran("classification", "once", ran.sometimes(0.5), limit=40)
        two = ran("classification", "often", ran.sometimes(0.5, seed="b"), limit=40, samples=2, temperature=1.0)
        rows = compare_runs([one, two], FEW).pairs[0].tables["pass_at_k"]
        assert [item.key.figure for item in rows] == ["pass@1", "pass@2"]
        assert math.isnan(rows[1].difference.before)
        assert rows[1].p_holm is None
        assert rows[1].difference.after > rows[0].difference.after

    def test_holms_correction_is_over_a_table_and_all_runs(self, ran: Any) -> None:
        folders = [
            ran("classification", str(number), ran.sometimes(chance, seed=str(number)), limit=60)
            for number, chance in enumerate((0.7, 0.5, 0.8))
        ]
        found = compare_runs(folders, FEW)
        rows = [item for pair in found.pairs for item in pair.tables["figures"]]
        assert len(rows) == 6
        least = min(rows, key=lambda item: item.difference.p_value)
        assert least.p_holm == pytest.approx(min(1.0, 6 * least.difference.p_value))
        assert [pair.run.letter for pair in found.pairs] == ["B", "C"]
        p_values = sorted(pair.headline.difference.p_value for pair in found.pairs)
        assert min(pair.headline_p for pair in found.pairs) == pytest.approx(min(1.0, 2 * p_values[0]))

    def test_the_same_seed_gives_the_same_comparison_and_the_seed_is_told(self, ran: Any) -> None:
        folders = [ran("coco_fewshot", str(miss), ran.noisy(miss=miss), limit=240) for miss in (0.1, 0.2)]
        first, again, other = (compare_runs(folders, Resampling(100, seed)).to_json() for seed in (3, 3, 4))
        assert first == again
        assert first["seed"] == 3
        lows = [[item["low"] for item in found["pairs"][0]["figures"]] for found in (first, other)]
        assert lows[0] != lows[1]

    def test_a_plugins_metric_has_intervals_by_a_jackknife_and_no_test(
        self, ran: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Longest:
            """The share of answers, squared: no mean of anything."""

            def __init__(self, dataset: Dataset) -> None:
                self.right: list[float] = []

            def update(self, sample: Sample, prediction: Prediction, n: int = 0) -> None:
                assert isinstance(sample.target, ClassTarget)
                self.right.append(float(prediction.label == sample.target.label))

            def compute(self) -> MetricReport:
                return MetricReport("odd", {"odd": Figure((sum(self.right) / len(self.right)) ** 2)})

        monkeypatch.setattr(ClassificationTask, "metric", lambda self, dataset: Longest(dataset))
        one = ran("classification", "one", ran.sometimes(0.9), limit=80)
        two = ran("classification", "two", ran.sometimes(0.3), limit=80)
        found = compare_runs([one, two], FEW)
        odd = row(found, FigureKey("odd"))
        assert odd.difference.before == figure(one, "odd")
        assert odd.difference.value == pytest.approx(figure(two, "odd") - figure(one, "odd"))
        assert odd.difference.low < odd.difference.value < odd.difference.high < 0
        assert odd.difference.p_value is None
        assert conclusions(found)[0].startswith("B is worse than A in odd")


class TestWhatIsShared:
    def test_runs_of_different_limits_share_what_both_asked(self, ran: Any) -> None:
        one = ran("classification", "one", ran.gold, limit=60)
        two = ran("classification", "two", ran.sometimes(0.5), limit=40)
        found = compare_runs([one, two], FEW)
        assert len(found.shared.ids) == 40
        assert found.shared.left_out == ("20 samples of A are not in every run",)
        assert row(found, FigureKey("accuracy")).difference.after == figure(two, "accuracy")
        assert found.differing == []
        assert any("only a part of the data" in line for line in conclusions(found))

    def test_a_sample_whose_truth_was_changed_is_left_out(self, ran: Any, tmp_path: Path) -> None:
        root = sample_folder("coco", "val")
        truth = json.loads((root / "annotations" / "instances_val2017.json").read_text())
        files = []
        for name, shift in (("old", 0.0), ("new", 3.0)):
            truth["annotations"][0]["bbox"][0] += shift
            files.append(tmp_path / f"{name}.json")
            files[-1].write_text(json.dumps(truth))
        one, two = (
            ran("detection", file.stem, ran.gold, annotations=file, images=root / "images" / "val2017", limit=100)
            for file in files
        )
        found = compare_runs([one, two], FEW)
        assert len(found.shared.ids) == 99
        assert found.shared.left_out == tuple(f"1 samples of {run} have another truth elsewhere" for run in "AB")

    def test_an_unfinished_run_is_compared_on_what_it_has_and_said_to_be_unfinished(self, ran: Any) -> None:
        one = ran("classification", "one", ran.gold, limit=40)
        two = ran("classification", "two", ran.wrong, limit=40)
        lines = (two / "samples.jsonl").read_bytes().splitlines(keepends=True)
        (two / "samples.jsonl").write_bytes(b"".join(lines[:30]) + lines[30][:20])
        manifest = json.loads((two / "run.json").read_text()) | {"status": "interrupted", "finished": 30}
        (two / "run.json").write_text(json.dumps(manifest))
        found = compare_runs([one, two], FEW)
        assert len(found.shared.ids) == 30
        assert row(found, FigureKey("accuracy")).difference.value == -1.0
        said = warnings(found)
        assert any(line.startswith("B: unfinished") for line in said)
        assert "not compared: 10 samples of B have no answer yet" in said

    def test_other_conditions_are_said_first_and_are_no_error(self, ran: Any) -> None:
        one = ran("classification", "one", ran.gold, limit=40)
        two = ran("classification", "two", ran.gold, limit=40, samples=2, temperature=1.0)
        found = compare_runs([one, two], FEW)
        assert warnings(found)[:2] == [
            "the runs differ in sampling: greedy, at most 1024 tokens in A, "
            "temperature 1, top-p 1, at most 1024 tokens, 2 completions per sample in B",
            "a difference below may come from these rather than from the models",
        ]
        assert any("would differ between equal models too" in line for line in conclusions(found))

    def test_one_image_is_too_few_for_anything_and_said_once(self, ran: Any) -> None:
        lines = conclusions(compare_runs([ran("classification", name, ran.gold, limit=1) for name in "ab"], FEW))
        assert [line for line in lines if "few" in line] == ["1 image is too few for an interval of accuracy"]

    def test_a_run_under_another_version_of_the_task_is_judged_by_todays(self, ran: Any) -> None:
        one, two = (ran("classification", name, ran.gold, limit=40) for name in ("one", "two"))
        manifest = json.loads((two / "run.json").read_text())
        manifest["identity"]["task"]["version"] = "0"
        manifest["fingerprint"] = fingerprint(manifest["identity"])
        (two / "run.json").write_text(json.dumps(manifest))
        said = warnings(compare_runs([one, two], FEW))
        assert said[0] == "the runs differ in version: 1 in A, 0 in B"
        assert "B was made under version 0 of the task, and is judged here by version 1" in said

    def test_rewards_by_other_weights_are_not_compared(self, ran: Any) -> None:
        one = ran("classification", "one", ran.gold, limit=40)
        two = ran("classification", "two", ran.gold, limit=40, reward="accuracy=1,format=0.5")
        found = compare_runs([one, two], FEW)
        assert found.pairs[0].tables["rewards"] == []
        assert "B was rewarded by other rules or weights than A: rewards are not compared" in warnings(found)


class TestBadInput:
    def test_runs_that_share_nothing(self, ran: Any) -> None:
        ids = [f"blue_circle/{number:04}.png" for number in (4, 12)]
        one, two = (ran("classification", str(place), ran.gold, sample_id=[key]) for place, key in enumerate(ids))
        with pytest.raises(UserError, match="share no answered sample: 1 samples of A are not in every run"):
            compare_runs([one, two], FEW)

    def test_other_tasks(self, ran: Any) -> None:
        one, two = ran("classification", "one", ran.gold, limit=3), ran("lisa_grounding", "two", ran.gold, limit=3)
        with pytest.raises(UserError, match=r"is a run of classification, and .* of lisa_grounding"):
            compare_runs([one, two], FEW)

    def test_sample_data_beside_real_data(self, ran: Any) -> None:
        root = sample_folder("reasonseg", "val") / "val"
        one, two = (
            ran("grounding", "one", ran.gold, limit=3),
            ran("grounding", "two", ran.gold, images=root, limit=3),
        )
        with pytest.raises(UserError, match="one ran on the sample data and one on real data"):
            compare_runs([one, two], FEW)

    def test_one_run_or_one_run_twice(self, ran: Any) -> None:
        only = ran("classification", "one", ran.gold, limit=3)
        with pytest.raises(UserError, match="two runs or more, and 1 is given"):
            compare_runs([only], FEW)
        with pytest.raises(UserError, match="two runs or more, and 1 is given"):
            compare_runs([only, only / "run.json"], FEW)

    def test_a_run_of_a_newer_format(self, ran: Any) -> None:
        one, two = (ran("classification", name, ran.gold, limit=3) for name in ("one", "two"))
        manifest = json.loads((two / "run.json").read_text()) | {"format": 99}
        (two / "run.json").write_text(json.dumps(manifest))
        with pytest.raises(DataError, match="is of format 99"):
            compare_runs([one, two], FEW)

    def test_a_run_without_answers(self, ran: Any) -> None:
        one, two = (ran("classification", name, ran.gold, limit=3) for name in ("one", "two"))
        (two / "samples.jsonl").write_bytes(b"")
        with pytest.raises(UserError, match=r"share no answered sample: .*3 samples of B have no answer yet"):
            compare_runs([one, two], FEW)
        (two / "samples.jsonl").unlink()
        with pytest.raises(DataError, match="no answers to compare"):
            compare_runs([one, two], FEW)

    def test_truth_that_is_not_on_this_machine(self, ran: Any, tmp_path: Path) -> None:
        root = sample_folder("coco", "val")
        file = tmp_path / "truth.json"
        file.write_bytes((root / "annotations" / "instances_val2017.json").read_bytes())
        one, two = (
            ran("detection", name, ran.gold, annotations=file, images=root / "images" / "val2017", limit=5)
            for name in ("one", "two")
        )
        file.unlink()
        with pytest.raises(DataError, match=r"runs keep answers and no truth, and that of .* is not on this machine"):
            compare_runs([one, two], FEW)

    def test_a_figure_that_one_image_has_no_interval_for(self, ran: Any) -> None:
        one, two = (
            ran("lisa_grounding", name, ran.noisy(jitter=0.1 * place), limit=1) for place, name in enumerate("ab")
        )
        found = compare_runs([one, two], FEW)
        assert found.images == 1
        assert conclusions(found)[0].startswith("1 image is too few for an interval of mean IoU")
        assert json.dumps(found.to_json(), allow_nan=False)

    def test_a_metric_that_neither_run_defines(self, ran: Any) -> None:
        ids = ["1:red circle", "1:red square"]  # no such objects in this image: AP is not defined
        one, two = (ran("coco_fewshot", name, ran.gold, sample_id=ids) for name in ("one", "two"))
        found = compare_runs([one, two], FEW)
        assert math.isnan(found.pairs[0].headline.difference.value)
        assert "AP is not defined" in conclusions(found)[0]
        assert json.dumps(found.to_json(), allow_nan=False)


class TestWords:
    def test_a_clear_difference_is_said_to_be_one(self, ran: Any) -> None:
        one = ran("classification", "one", ran.sometimes(0.5), limit=100)
        two = ran("classification", "two", ran.sometimes(0.9), limit=100)
        lines = conclusions(compare_runs([one, two], FEW))
        assert lines[0].startswith("B is better than A in accuracy: +0.")
        assert lines[0].endswith("p < 0.001")

    def test_without_a_difference_it_says_how_many_images_would_be_needed(self, ran: Any) -> None:
        one = ran("classification", "one", ran.sometimes(0.7, seed="a"), limit=100)
        two = ran("classification", "two", ran.sometimes(0.7, seed="c"), limit=100)
        found = compare_runs([one, two], Resampling(replicates=500))
        accuracy = found.pairs[0].headline.difference
        line = conclusions(found)[0]
        assert line.startswith("no difference between B and A in accuracy can be shown")
        assert f"a true difference of {detectable_difference(accuracy.standard_error):.3f} would be found" in line
        needed = clusters_needed(100, accuracy.standard_error, accuracy.value)
        stated = int(line.rpartition("about ")[2].split()[0].replace(",", ""))
        assert needed <= stated < 1.1 * needed

    def test_equal_answers_are_said_to_be_equal(self, ran: Any) -> None:
        one, two = (ran("classification", name, ran.sometimes(0.7), limit=50) for name in ("one", "two"))
        assert conclusions(compare_runs([one, two], FEW))[0].startswith("B and A have the same accuracy")

    def test_a_reward_that_rises_while_the_metric_falls_is_told(self, ran: Any) -> None:
        one = ran("coco_fewshot", "one", ran.gold_without_thought, limit=160, reward="format=1")
        two = ran("coco_fewshot", "two", ran.noisy(jitter=0.3, miss=0.5), limit=160, reward="format=1")
        lines = conclusions(compare_runs([one, two], FEW))
        assert any(line.startswith("the reward rose and AP fell from A to B") and "pays for" in line for line in lines)
        back = conclusions(compare_runs([two, one], FEW))
        assert any(line.startswith("the reward fell while AP rose from A to B") for line in back)

    def test_answers_lost_because_they_cannot_be_read_are_counted(self, ran: Any) -> None:
        one = ran("classification", "one", ran.sometimes(0.9, seed="a"), limit=100)
        two = ran(
            "classification", "two", ran.sometimes(0.7, ran.sometimes(0.9, seed="a"), ran.unreadable, "b"), limit=100
        )
        found = compare_runs([one, two], FEW)
        statuses, moves = found.pairs[0].statuses, found.pairs[0].moves
        unread = statuses["no_answer"].answers[1]
        assert moves["ok", "no_answer"].pairs == unread
        assert moves["ok", "no_answer"].right_after == 0
        assert moves["ok", "ok"].right_before == moves["ok", "ok"].right_after
        lost = moves["ok", "no_answer"].right_before
        assert found.pairs[0].lost == lost
        said = f"{unread}.0% of the answers of B cannot be read, and 0.0% of those of A: {lost} right answers were lost"
        assert any(line.startswith(said) for line in conclusions(found))

    def test_few_images_sample_data_and_other_seeds_are_always_limits(self, ran: Any) -> None:
        folders = [ran("classification", name, ran.sometimes(0.5, seed=name), limit=20) for name in ("one", "two")]
        lines = conclusions(compare_runs(folders, FEW))
        assert "20 images are few: intervals and p-values are rough" in lines
        assert any("sample data" in line for line in lines)
        assert "Another seed of training or sampling is not covered" in lines[-1]
