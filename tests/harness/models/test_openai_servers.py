"""What a server says about its model, and what follows for the requests and for the run's identity."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from openai_server import Pictures

from vrft_bench.errors import UserError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.models.openai import OpenAIBackend
from vrft_bench.harness.models.openai_servers import is_this_machine, read_model_list
from vrft_bench.harness.plan import resolve_profile
from vrft_bench.harness.progress import SilentProgress
from vrft_bench.harness.run import evaluate
from vrft_bench.tasks.profiles import ABS_ORIGINAL

TINY = Path(str(files("vrft_bench") / "assets" / "tiny_qwen2_vl"))


def listed(**card: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": "served", **card}]}


def asked_by(backend: OpenAIBackend, server: Any) -> dict[str, Any]:
    list(backend.generate(Pictures(size=1).requests()))
    return dict(server.asked[-1].body)


@pytest.mark.parametrize(
    ("owner", "fields"),
    [
        ("vllm", {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}),
        ("sglang", {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}),
        ("lmdeploy", {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}),
        ("llamacpp", {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}),
        ("openai", {}),
        (None, {}),
    ],
)
def test_defaults_that_would_change_how_text_is_drawn_are_set_aside_where_the_server_is_known(
    serve: Any, connect: Any, owner: str | None, fields: dict[str, Any]
) -> None:
    server = serve(lambda asked: "text", listed(owned_by=owner))
    backend = connect(server)
    body = asked_by(backend, server)
    usual = {"model", "messages", "max_tokens", "temperature", "top_p"}
    assert {name: value for name, value in body.items() if name not in usual} == fields
    assert backend.identity()["fields"] == fields
    assert backend.identity()["owned_by"] == owner


def test_extra_fields_win_and_are_part_of_the_identity(serve: Any, connect: Any) -> None:
    server = serve(lambda asked: "text", listed(owned_by="vllm"))
    backend = connect(
        server, extra_body={"top_k": 5, "min_p": None, "chat_template_kwargs": {"enable_thinking": False}}
    )
    body = asked_by(backend, server)
    assert body["top_k"] == 5
    assert "min_p" not in body
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert backend.identity()["fields"]["top_k"] == 5


def test_servers_that_do_not_say_what_they_loaded_are_told_apart_by_address(serve: Any, connect: Any) -> None:
    one, other = (connect(serve(lambda asked: "text", listed(owned_by="llamacpp"))) for _ in range(2))
    assert one.identity()["address"] == one.options.base_url
    assert one.identity() != other.identity()
    assert one.identity() | {"address": ""} == other.identity() | {"address": ""}


REMOTE = "http://10.0.0.7:8000/v1"


@pytest.mark.parametrize("root", ["/models/latest", "./latest", "latest", "../org/latest", None])
def test_what_only_means_something_on_the_servers_machine_is_known_together_with_its_address(root: str | None) -> None:
    served = read_model_list(listed(owned_by="sglang", root=root), "served")
    assert served.identity(REMOTE) == {
        "root": root,
        "base": None,
        "owned_by": "sglang",
        "revision": "server",
        "address": REMOTE,
    }


def test_a_folder_of_another_machine_is_not_taken_for_one_of_the_same_name_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(TINY, tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for root in (str(tmp_path / "org" / "model"), "org/model"):
        served = read_model_list(listed(owned_by="vllm", root=root), "served")
        assert served.identity(REMOTE)["root"] == root
        assert "files" not in served.identity(REMOTE)
        assert served.checkpoint("served", REMOTE) is None
        here = "http://localhost:8000/v1"
        assert "files" in served.identity(here)
        found = served.checkpoint("served", here)
        assert found is not None
        assert found.model_type == "qwen2_vl"


@pytest.mark.parametrize(
    ("card", "storage"),
    [
        (
            {"meta": {"ftype": "Q8_0", "n_params": 7, "size": 9, "n_ctx": 4096}},
            {"ftype": "Q8_0", "n_params": 7, "size": 9},
        ),
        ({"quantization": "fp8", "meta": None}, {"quantization": "fp8"}),
        ({"meta": {"size": 9}, "status": {"value": "loaded"}}, None),
        ({"quantization": "", "dtype": ["float16"], "size": None}, None),
    ],
)
def test_how_the_weights_are_stored_is_part_of_what_they_are_where_the_server_says_it(
    card: dict[str, Any], storage: dict[str, Any] | None
) -> None:
    assert read_model_list(listed(**card), "served").identity(REMOTE).get("storage") == storage
    found = read_model_list(listed(root=str(TINY), **card), "served").identity("http://localhost/v1")
    assert found.get("storage") == storage
    assert "files" in found


def test_identity_is_what_can_change_an_answer_and_nothing_else(serve: Any, connect: Any) -> None:
    server, other = (serve(lambda asked: "text", listed(owned_by="vllm", root="org/model", created=n)) for n in (1, 2))
    plain = connect(server).identity()
    same = connect(other, max_concurrent=3, timeout=5, retries=1, image_url="file", group_samples=False).identity()
    assert plain == same
    assert plain["revision"] == "server"
    assert (plain["root"], plain["name"], plain["backend"]) == ("org/model", "served", "openai")
    text = json.dumps(plain)
    assert "127.0.0.1" not in text
    assert str(server.port) not in text
    for name, value in (
        ("image_format", "jpeg"),
        ("resize", "none"),
        ("max_pixels", 40_000),
        ("think_begun", True),
        ("extra_body", {"top_k": 1}),
    ):
        assert connect(server, **{name: value}).identity() != plain, name
    assert connect(serve(lambda asked: "text", listed(owned_by="vllm", root="org/other"))).identity() != plain


def test_a_folder_that_a_server_of_this_machine_has_loaded_is_known_by_its_content(
    serve: Any, connect: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(TINY, folder)
    one, two = (connect(serve(lambda asked: "", listed(owned_by="vllm", root=str(root)))) for root in (TINY, folder))
    assert one.identity() == two.identity()
    assert "model.safetensors" in one.identity()["files"]
    assert str(TINY) not in json.dumps(one.identity())
    (folder / "generation_config.json").write_text("{}")
    edited = connect(serve(lambda asked: "", listed(owned_by="vllm", root=str(folder))))
    assert edited.identity() != one.identity()


@pytest.mark.parametrize(("root", "told"), [(None, True), ("latest", True), ("org/model", False)])
def test_a_finished_run_is_shown_with_the_hint_that_another_address_is_another_run_where_it_is(
    serve: Any, connect: Any, config: Callable[..., RunConfig], root: str | None, told: bool
) -> None:
    class Notes(SilentProgress):
        def note(self, text: str) -> None:
            lines.append(text)

    lines: list[str] = []
    task = Pictures(size=2)
    server = serve(task.truth(), listed(root=root))
    for _ in range(2):
        result = evaluate(task, connect(server), config(profile="abs_original"), progress=Notes())
    hint = "; another --base-url is another run: nothing else names the model" if told else ""
    assert lines == [f"finished already, shown from {result.folder}; --fresh runs it anew{hint}"]


def test_the_profile_is_that_of_the_checkpoint_that_the_server_has_loaded(
    serve: Any, connect: Any, config: Callable[..., RunConfig]
) -> None:
    backend = connect(serve(lambda asked: "", listed(root=str(TINY))), max_pixels=100_000)
    profile = resolve_profile(config(), backend)
    assert (profile.name, profile.max_pixels) == ("qwen2-vl", 100_000)
    adapter = {"data": [{"id": "base", "root": str(TINY)}, {"id": "served", "root": "/adapter", "parent": "base"}]}
    assert connect(serve(lambda asked: "", adapter)).profile().name == "qwen2-vl"


@pytest.mark.parametrize("card", [{}, {"root": "served"}, {"root": "/nowhere/here"}, {"root": 5}])
def test_where_nothing_is_known_of_the_checkpoint_the_user_is_asked_for_a_profile(
    serve: Any, connect: Any, config: Callable[..., RunConfig], card: dict[str, Any]
) -> None:
    backend = connect(serve(lambda asked: "", listed(**card)))
    assert backend.profile() is None
    with pytest.raises(UserError, match="no coordinate profile is known") as caught:
        resolve_profile(config(model="openai/served"), backend)
    assert "--profile qwen2-vl" in (caught.value.fix or "")
    assert resolve_profile(config(profile="qwen3-vl"), backend).name == "qwen3-vl"


def test_pixel_limits_need_a_profile_that_resizes_by_area(serve: Any, connect: Any, config: Any) -> None:
    backend = connect(serve(lambda asked: ""), max_pixels=50_000)
    assert resolve_profile(config(profile="qwen2.5-vl"), backend).max_pixels == 50_000
    with pytest.raises(UserError, match="not resized by area"):
        resolve_profile(config(profile="internvl"), backend)
    with pytest.raises(UserError, match="is above max_pixels=50000"):
        resolve_profile(config(profile="qwen3-vl"), backend)


def test_a_name_that_the_server_does_not_list_is_said_and_asked_for(
    serve: Any, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(lambda asked: "text", {"data": [{"id": "serve-d"}, {"id": "else"}]})
    with caplog.at_level(logging.WARNING):
        assert asked_by(connect(server), server)["model"] == "served"
    assert "does not list a model 'served'; did you mean 'serve-d'?" in caplog.text


@pytest.mark.parametrize(
    ("owner", "regex_in"),
    [
        ("vllm", lambda body: body["structured_outputs"]["regex"]),
        ("sglang", lambda body: body["regex"]),
        ("lmdeploy", lambda body: body["response_format"]["regex_schema"]),
    ],
)
def test_a_server_that_can_is_held_to_the_answer_format(
    serve: Any, connect: Any, owner: str, regex_in: Callable[[Any], str]
) -> None:
    task = Pictures(size=6)
    server = serve(task.truth(), listed(owned_by=owner))
    backend = connect(server, structured=True)
    completions = list(backend.generate(task.requests(profile=ABS_ORIGINAL)))
    pattern = re.compile(regex_in(server.asked[0].body))
    assert len(completions) == 6
    assert all(pattern.fullmatch(completion.text) for completion in completions)
    assert not pattern.fullmatch("a dog")
    begun = connect(server, structured=True, think_begun=True)
    list(begun.generate(task.requests()))
    assert re.fullmatch(regex_in(server.asked[-1].body), completions[0].text.removeprefix("<think>"))
    assert backend.identity() != connect(server).identity()


def test_a_server_that_is_not_known_to_hold_to_a_format_is_not_asked_to(serve: Any, connect: Any) -> None:
    server = serve(lambda asked: "text", listed(owned_by="llamacpp"))
    with pytest.raises(UserError, match="--structured on") as caught:
        asked_by(connect(server, structured=True), server)
    assert "vllm, sglang, lmdeploy" in (caught.value.fix or "")
    assert server.asked == []


@pytest.mark.parametrize(
    "odd", [None, 5, "x", [], {}, {"data": None}, {"data": [None, 5, {"id": None}]}, {"data": {"id": "served"}}]
)
def test_any_list_of_models_can_be_read(odd: Any) -> None:
    assert read_model_list(odd, "served").root is None


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1/v1", True),
        ("http://[::1]:9/v1", True),
        ("http://10.0.0.7:8000/v1", False),
        ("https://api.openai.com/v1", False),
    ],
)
def test_only_the_loopback_interface_is_this_machine(url: str, here: bool) -> None:
    assert is_this_machine(url) is here
