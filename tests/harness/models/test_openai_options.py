"""What a user may say to the openai backend, and what is answered to anything else."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.errors import UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models import open_backend
from vrft_bench.harness.models.openai_faults import Kind, kind_of, parse_retry_after
from vrft_bench.harness.models.openai_options import ApiKey, OpenAIOptions
from vrft_bench.harness.models.openai_transport import proxy_for

URL = "http://localhost:8000/v1"


def test_flags_reach_the_backend_as_its_arguments() -> None:
    config = make_config(
        {"model": "openai/org/name", "base_url": URL + "/", "max_concurrent": 7, "model_args": {"timeout": "60"}}
    )
    options = open_backend(config).options  # type: ignore[attr-defined]
    assert (options.base_url, options.max_concurrent, options.timeout) == (URL, 7, 60.0)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({}, "needs the address of a server"),
        ({"base_url": "localhost:8000"}, "is no http address"),
        ({"base_url": "ftp://host/v1"}, "is no http address"),
        ({"base_url": "http://host:port/v1"}, "is no http address"),
        ({"base_url": URL + "?key=1"}, "goes on with a query"),
        ({"base_url": URL + "/chat/completions"}, "is the address of one endpoint"),
        ({"base_url": URL, "max_concurent": 5}, "did you mean 'max_concurrent'?"),
        ({"base_url": URL, "max_concurrent": 0}, "max_concurrent=0 is not a whole number of at least 1"),
        ({"base_url": URL, "retries": -1}, "retries=-1 is not a whole number of at least 0"),
        ({"base_url": URL, "timeout": "soon"}, "timeout='soon' is not a number of seconds"),
        ({"base_url": URL, "timeout": "nan"}, "timeout='nan' is not a number of seconds"),
        ({"base_url": URL, "image_format": "webp"}, "image_format='webp' is not known"),
        ({"base_url": URL, "think_begun": "maybe"}, "is neither true nor false"),
        ({"base_url": URL, "extra_body": "{"}, "extra_body is not JSON"),
        ({"base_url": URL, "extra_body": "[1]"}, "extra_body is no JSON object"),
        ({"base_url": URL, "extra_body": {"model": "x", "n": 2}}, "sets model, n, which the run itself sets"),
        (
            {"base_url": URL, "extra_body": {"temperature": 1.0}},
            "extra_body sets temperature, which --temperature sets",
        ),
        ({"base_url": URL, "min_pixels": 9, "max_pixels": 8}, "min_pixels=9 is above max_pixels=8"),
        ({"base_url": URL, "resize": "none", "max_pixels": 8}, "resize=none says that images are sent as they are"),
        ({"base_url": URL, "image_url": "http"}, "needs both image_root and image_base_url"),
        ({"base_url": URL, "image_root": "/"}, "are for images that are sent as references"),
        ({"base_url": URL, "image_url": "file", "image_root": "/"}, "needs both image_root and image_base_url"),
        ({"base_url": URL, "image_url": "http", "image_root": "/no/such", "image_base_url": URL}, "no such folder"),
        (
            {"base_url": URL, "image_url": "http", "image_root": "/", "image_base_url": "s3://b"},
            "neither an http nor a file address",
        ),
        (
            {"base_url": URL, "image_url": "http", "image_root": "/", "image_base_url": "http://[x"},
            "image_base_url='http://[x' is neither an http nor a file address",
        ),
        ({"base_url": URL, "spawn": True}, "the openai backend has no argument 'spawn'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(args: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        OpenAIOptions.parse(args)
    assert said in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize(
    "args",
    [
        {"base_url": "http://user:hunter2@host/v1"},
        {"base_url": "http://hunter2@host/v1"},
        {"base_url": URL, "api_key": "hunter2"},
        {"base_url": URL, "image_url": "http", "image_root": "/", "image_base_url": "http://u:hunter2@files/"},
        {"base_url": URL, "image_url": "http", "image_root": "/", "image_base_url": "http://u:hunter2@[files/"},
    ],
)
def test_credentials_in_arguments_are_refused_and_not_repeated(args: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        OpenAIOptions.parse(args)
    assert "hunter2" not in str(caught.value)


def test_null_in_extra_fields_may_take_out_what_a_flag_sets() -> None:
    options = OpenAIOptions.parse({"base_url": URL, "extra_body": '{"temperature": null, "seed": null}'})
    assert options.extra_body == {"temperature": None, "seed": None}


def test_a_key_comes_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert ApiKey.from_environment(None).headers() == {}
    monkeypatch.setenv("OPENAI_API_KEY", " hunter2\n")
    assert ApiKey.from_environment(None).headers() == {"Authorization": "Bearer hunter2"}
    monkeypatch.setenv("OTHER", "swordfish")
    key = ApiKey.from_environment("OTHER")
    assert key.headers() == {"Authorization": "Bearer swordfish"}
    assert "swordfish" not in repr(key)
    with pytest.raises(UserError, match="names no variable") as caught:
        ApiKey.from_environment("sk-which-is-a-key-by-mistake")
    assert "sk-which" not in str(caught.value)
    monkeypatch.setenv("OTHER", "two words")
    with pytest.raises(UserError, match="characters that no key has") as caught:
        ApiKey.from_environment("OTHER")
    assert "two words" not in str(caught.value)


def test_a_key_is_hidden_whole_escaped_and_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "gsk_0123/4567abcd")
    key = ApiKey.from_environment(None)
    assert key.hide_in("a gsk_0123/4567abcd b") == "a [key] b"
    assert key.hide_in(r'{"m": "gsk_0123\/4567abcd"}') == '{"m": "[key]"}'
    assert key.hide_traces_in("provided: gsk_****abcd. See ... or **bold**") == "provided: [key] See ... or **bold**"
    assert key.hide_in("provided: gsk_****abcd.") == "provided: gsk_****abcd."
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ApiKey.from_environment(None).hide_traces_in("no key ... at all") == "no key ... at all"


@pytest.mark.parametrize("placeholder", ["1", "x", "EMPTY", "token"])
def test_a_placeholder_for_a_key_is_not_taken_out_of_answers(monkeypatch: pytest.MonkeyPatch, placeholder: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", placeholder)
    key = ApiKey.from_environment(None)
    said = '{"index": 1, "text": "an EMPTY box", "completion_tokens": 1, ... }'
    assert key.headers() == {"Authorization": f"Bearer {placeholder}"}
    assert key.hide_in(said) == said
    assert key.hide_traces_in(said) == said


@pytest.mark.parametrize(
    "url", ["user:secret@host:8000/v1", "http:/user:secret@host/v1", "http://user:secret@host:port/v1"]
)
def test_a_mistyped_address_is_not_repeated_where_it_may_hold_a_password(url: str) -> None:
    with pytest.raises(UserError, match="holds a user name or a password") as refused:
        OpenAIOptions.parse({"base_url": url})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "proxy", ["socks5://u:secret@proxy:1080", "http://u:se/cret@proxy:3128", "http://u:secret@proxy:port", "http://["]
)
def test_a_proxy_that_is_no_address_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(UserError, match="names for https is no http address") as refused:
        proxy_for("https://api.example/v1")
    assert "cret" not in str(refused.value)
    monkeypatch.setenv("https_proxy", "proxy:3128")
    assert proxy_for("https://api.example/v1") == "http://proxy:3128"


def test_a_proxy_of_the_environment_is_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_for("https://api.openai.com/v1") == "http://proxy:3128"
    assert proxy_for("https://inside.example/v1") is None
    assert proxy_for("https://127.0.0.1:8000/v1") is None
    assert proxy_for("http://api.openai.com/v1") is None


NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("Sat, 31 Jan 2026 12:01:30 GMT", 90.0),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        ("Saturday, 31-Jan-26 12:00:05 GMT", 5.0),
        ("Sat, 31 Jan 99999999999999999999 12:00:00 GMT", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_every_form_of_rfc_9110(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.one_of(st.text(max_size=40), st.datetimes().map(str), st.floats().map(str)))
def test_no_retry_after_is_worse_than_none(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0.0 <= seconds < math.inf


@given(st.integers(100, 599))
def test_every_status_has_a_kind(status: int) -> None:
    kind = kind_of(status)
    assert (kind is Kind.OVERLOADED) == (status in (429, 503, 504, 529))
    assert (kind is Kind.CLOSED) == (status in (401, 402))
    if 400 <= status < 500 and status not in (401, 402, 408, 409, 425, 429):
        assert kind is Kind.REFUSED
    assert kind_of(status, "insufficient_quota") is Kind.CLOSED


def test_an_image_root_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    args = {"base_url": URL, "image_url": "http", "image_root": ".", "image_base_url": "http://files/coco/"}
    options = OpenAIOptions.parse(args)
    assert (options.image_root, options.image_base_url) == (tmp_path, "http://files/coco")


def test_every_option_is_on_the_page_of_the_backend_with_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs" / "backends" / "openai.md").read_text()
    rows = {name: row for row in page.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", row)}
    for option in fields(OpenAIOptions):
        assert option.name in rows, option.name
        if isinstance(option.default, int | float) and not isinstance(option.default, bool):
            assert rows[option.name].rstrip(" |").endswith(f"{option.default:g}"), option.name
