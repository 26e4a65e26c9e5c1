"""How images reach a server: resized as the profile says, in the request or by reference, and not too many at once."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai_server import Asked, Later, Pictures
from PIL import Image

from vrft_bench.errors import UserError
from vrft_bench.harness.images import ImageError
from vrft_bench.harness.models import openai_images
from vrft_bench.harness.models.base import Request
from vrft_bench.harness.models.openai_images import sizes
from vrft_bench.tasks.base import ImageRef
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.profiles import INTERNVL, QWEN2_5_VL, QWEN3_VL


def photo(folder: Path, name: str = "a photo.png", size: tuple[int, int] = (300, 200), **options: Any) -> ImageRef:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(file, **options)
    return ImageRef(*size, path=file)


def about(ref: ImageRef, profile: ModelProfile = QWEN2_5_VL) -> Request:
    (request,) = Pictures(size=1).requests(profile=profile)
    return replace(request, sample=replace(request.sample, image=ref))


def send(connect: Any, server: Any, request: Request, **args: Any) -> tuple[Any, Asked]:
    (completion,) = connect(server, **args).generate([request])
    return completion, server.asked[-1]


@pytest.fixture
def server(serve: Any) -> Any:
    return serve(lambda asked: "text")


def test_an_image_within_the_limits_is_sent_as_it_is_and_seen_rounded(
    server: Any, connect: Any, tmp_path: Path
) -> None:
    ref = photo(tmp_path)
    completion, asked = send(connect, server, about(ref))
    assert ref.path is not None
    assert asked.image == ref.path.read_bytes()
    assert completion.processed == (308, 196) == QWEN2_5_VL.processed_size(300, 200)


@pytest.mark.parametrize(
    ("limits", "seen"), [({"max_pixels": 10_000}, (112, 56)), ({"min_pixels": 200_000}, (560, 392))]
)
def test_an_image_outside_the_limits_is_resized_to_what_the_model_will_see(
    server: Any, connect: Any, tmp_path: Path, limits: dict[str, int], seen: tuple[int, int]
) -> None:
    request = about(photo(tmp_path), replace(QWEN2_5_VL, **limits))
    completion, asked = send(connect, server, request)
    assert Image.open(io.BytesIO(asked.image)).size == completion.processed == seen
    untouched, asked = send(connect, server, request, resize="none")
    assert Image.open(io.BytesIO(asked.image)).size == (300, 200)
    assert untouched.processed is None
    assert Frame(request.profile, 300, 200, untouched.processed).limits() == seen


@example(width=48, height=1553, family=QWEN3_VL, limits=(1_000, 100_000))
@given(
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
    family=st.sampled_from([QWEN2_5_VL, QWEN3_VL]),
    limits=st.tuples(st.integers(1_000, 100_000), st.integers(100_000, 20_000_000)),
)
def test_the_servers_own_resizing_leaves_what_is_sent_where_we_say_it_does(
    width: int, height: int, family: ModelProfile, limits: tuple[int, int]
) -> None:
    """Any server whose limits are the family's or wider sees an image of the size that the record names."""
    low, high = max(limits[0], family.min_pixels), min(limits[1], family.max_pixels)
    asked = replace(family, min_pixels=low, max_pixels=high)
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(ImageError, match="aspect ratio"):
            sizes(width, height, asked)
        return
    target = asked.processed_size(width, height)
    settles = asked.processed_size(*target) == target
    try:
        size, processed = sizes(width, height, asked)
    except ImageError:
        assert (settles, family) == (False, QWEN2_5_VL)
        return
    if processed is None:
        assert (settles, family, size) == (False, QWEN3_VL, target)
    else:
        assert family.processed_size(*(size or (width, height))) == processed == target


def test_families_that_do_not_resize_by_area_get_the_image_as_it_is(server: Any, connect: Any, tmp_path: Path) -> None:
    completion, asked = send(connect, server, about(photo(tmp_path, size=(3000, 10)), INTERNVL))
    assert Image.open(io.BytesIO(asked.image)).size == (3000, 10)
    assert completion.processed is None


def test_an_image_that_no_processor_takes_fails_its_sample(server: Any, connect: Any, tmp_path: Path) -> None:
    (completion,) = connect(server).generate([about(photo(tmp_path, size=(3000, 10)))])
    assert completion.error == "an image of 3000x10 pixels has an aspect ratio above 200"
    (missing,) = connect(server).generate([about(ImageRef(5, 5, path=tmp_path / "gone.png"))])
    assert "gone.png: no such file" in missing.error
    assert server.asked == []


def test_images_are_sent_by_reference_to_servers_that_can_read_them(server: Any, connect: Any, tmp_path: Path) -> None:
    ref = photo(tmp_path / "val 2017")
    mapped = {"image_root": str(tmp_path), "image_base_url": "http://files:9000/coco/"}
    completion, asked = send(connect, server, about(ref), image_url="http", **mapped)
    assert asked.url == "http://files:9000/coco/val%202017/a%20photo.png"
    assert completion.image_sha256 is not None
    _, asked = send(connect, server, about(ref), image_url="file")
    assert asked.url == f"file://{tmp_path}/val%202017/a%20photo.png"
    there = {"image_root": str(tmp_path), "image_base_url": "file:///mnt/coco"}
    _, asked = send(connect, server, about(ref), image_url="file", **there)
    assert asked.url == "file:///mnt/coco/val%202017/a%20photo.png"


def test_an_image_that_must_be_changed_is_sent_itself_all_the_same(server: Any, connect: Any, tmp_path: Path) -> None:
    small = replace(QWEN2_5_VL, max_pixels=10_000)
    _, asked = send(connect, server, about(photo(tmp_path), small), image_url="file")
    assert asked.url.startswith("data:image/png;base64,")
    _, asked = send(connect, server, about(photo(tmp_path, "b.bmp")), image_url="file")
    assert asked.url.startswith("data:image/png;base64,")


def test_an_image_outside_the_mapped_folder_ends_the_run(server: Any, connect: Any, tmp_path: Path) -> None:
    inside, outside = photo(tmp_path / "in"), photo(tmp_path / "out")
    mapped = {"image_root": str(tmp_path / "in"), "image_base_url": "http://files"}
    backend = connect(server, image_url="http", **mapped)
    assert len(list(backend.generate([about(inside)]))) == 1
    with pytest.raises(UserError, match="does not lie in image_root"):
        list(backend.generate([about(outside)]))


@pytest.mark.parametrize("side", [250, 300, 900])
def test_images_of_any_size_arrive_whole(server: Any, connect: Any, side: int) -> None:
    """Below and above the size from which a body is sent in parts."""
    stream = io.BytesIO()
    Image.effect_noise((side, side), 90).save(stream, "PNG")
    completion, asked = send(connect, server, about(ImageRef(side, side, data=stream.getvalue())))
    assert completion.error is None
    assert asked.image == stream.getvalue()
    assert int(asked.headers["Content-Length"]) > len(asked.url)


def test_jpeg_is_written_where_it_is_asked_for(server: Any, connect: Any, tmp_path: Path) -> None:
    _, asked = send(connect, server, about(photo(tmp_path, "b.bmp")), image_format="jpeg")
    assert asked.url.startswith("data:image/jpeg;base64,")


def noise(number: int, side: int = 300) -> ImageRef:
    """An image that no format makes smaller: 180 kB as it is sent. No two numbers have the same."""
    stream = io.BytesIO()
    Image.effect_noise((side, side), 50 + number / 10).convert("RGB").save(stream, "PNG", compress_level=1)
    return ImageRef(side, side, data=stream.getvalue())


def numbered(refs: list[ImageRef]) -> list[Request]:
    requests = [about(ref) for ref in refs]
    return [replace(one, sample=replace(one.sample, id=str(index))) for index, one in enumerate(requests)]


def test_requests_that_are_made_ready_ahead_hold_a_bounded_number_of_bytes(
    serve: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [noise(number) for number in range(30)]
    size = max(len(ref.data or b"") for ref in refs) * 4 / 3 + 100
    monkeypatch.setattr(openai_images, "MOST_HELD", int(5 * size))
    held: list[int] = []

    def script(asked: Asked) -> Any:
        held.append(backend._sender.held_bytes)
        return Later(0.3, "text")

    backend = connect(serve(script))
    backend.images.max_bytes = 1
    completions = list(backend.generate(numbered(refs)))
    assert sorted(int(one.sample_id) for one in completions) == list(range(30))
    assert [one.error for one in completions if one.error] == []
    assert 4 * size < max(held) <= (5 + 2 * openai_images.WORKERS) * size
    assert backend._sender.held_bytes == 0
    assert backend.images.encoded == 30


def test_an_image_above_the_bound_is_sent_all_the_same(
    serve: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_images, "MOST_HELD", 1)
    server = serve(lambda asked: Later(0.2, "text"))
    backend = connect(server)
    assert len(list(backend.generate(numbered([noise(number) for number in range(16)])))) == 16
    assert server.most_in_flight <= 2 * openai_images.WORKERS


def test_an_image_that_many_ask_about_is_counted_once(
    serve: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = noise(0)
    monkeypatch.setattr(openai_images, "MOST_HELD", 2 * len(ref.data or b""))
    held: list[int] = []

    def script(asked: Asked) -> Any:
        held.append(backend._sender.held_bytes)
        return Later(0.02, "text")

    server = serve(script)
    backend = connect(server)
    assert len(list(backend.generate(numbered([ref] * 80)))) == 80
    assert server.most_in_flight >= 10
    assert set(held) == {len(server.asked[0].url)}


def test_images_that_nobody_waits_for_any_more_are_not_made(
    serve: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_images, "MOST_HELD", 1)
    go = threading.Event()
    server = serve(lambda asked: "text" if go.is_set() or len(server.asked) == 1 else Later(5, "text"))
    backend = connect(server)
    first = numbered([noise(number) for number in range(30)])
    given_up = backend.generate(first)
    next(given_up)
    time.sleep(0.5)
    given_up.close()  # type: ignore[attr-defined]
    assert backend._sender.held_bytes == 0
    time.sleep(0.5)
    assert 1 < backend.images.encoded <= 1 + 3 * openai_images.WORKERS
    go.set()
    assert len(list(backend.generate(first))) == 30
