"""engines.preprocess: every picture that is whole decodes right, every other one is refused."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import elpv_dataset
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from engines import preprocess
from engines.picture_file import PictureError, read_header
from engines.preprocess import decode, load, pixels, resize

ELPV = sorted((Path(elpv_dataset.__file__).parent / "data" / "images").glob("*.png"))
SUFFIXES = {".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WebP"}
LOSSLESS_WEBP = [cv2.IMWRITE_WEBP_QUALITY, 101]


def cells(count: int = 3) -> list[np.ndarray]:
    """The first solar cells of the data set: grey, (300, 300)."""
    return [np.asarray(Image.open(path)) for path in ELPV[:count]]


def colour_cells() -> np.ndarray:
    """Three solar cells as the red, green and blue of one picture, (300, 300, 3)."""
    return np.dstack(cells(3))


def encode(suffix: str, rgb: np.ndarray, options: list[int] | None = None) -> bytes:
    """Write with OpenCV: RGB, RGBA or grey."""
    swap = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    picture = cv2.cvtColor(rgb, swap[rgb.shape[2]]) if rgb.ndim == 3 else rgb
    return cv2.imencode(suffix, picture, options or [])[1].tobytes()


def save(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Write with Pillow."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes, bits: int = 8, colour: int = 0) -> bytes:
    """Write a PNG by hand; `rows` as the standard has them, a filter byte before each."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def photo(height: int, width: int) -> np.ndarray:
    """Something like a photo: noise of every scale, sharp edges, grain."""
    random = np.random.default_rng(5)
    picture = np.full((height, width, 3), 120, np.float32)
    for octave in range(8):
        coarse = random.normal(size=(3 * 2**octave, 4 * 2**octave, 3)).astype(np.float32)
        fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        picture += 50 / 1.45**octave * fine
    for _ in range(40):
        x, y = int(random.integers(width)), int(random.integers(height))
        shade = [int(value) for value in random.integers(0, 256, 3)]
        cv2.circle(picture, (x, y), int(random.integers(5, 80)), shade, -1, cv2.LINE_AA)
    picture += 3 * random.normal(size=(height, width, 1))
    return picture.clip(0, 255).astype(np.uint8)


def refuse(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        decode(data)
    return str(caught.value)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b).mean())


def small_files() -> dict[str, bytes]:
    """One small whole file of each kind, from a real cell."""
    grey, colour = cells(1)[0][100:148, 100:164], colour_cells()[100:148, 100:164]
    picture = Image.fromarray(colour)
    return {
        "grey PNG": encode(".png", grey),
        "colour PNG": encode(".png", colour),
        "JPEG": encode(".jpg", colour),
        "progressive JPEG": save(picture, "JPEG", progressive=True),
        "JPEG with restarts": encode(".jpg", colour, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        "BMP": encode(".bmp", colour),
        "palette BMP": encode(".bmp", grey),
        "lossy WebP": encode(".webp", colour, [cv2.IMWRITE_WEBP_QUALITY, 80]),
        "lossless WebP": encode(".webp", colour, LOSSLESS_WEBP),
        "WebP with EXIF": save(picture, "WebP", exif=oriented(1)),
    }


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


SMALL = small_files()


# What is whole


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("picture", [cells(1)[0], colour_cells()], ids=["grey", "colour"])
def test_every_format_round_trips(suffix: str, picture: np.ndarray, tmp_path: Path) -> None:
    data = encode(suffix, picture, LOSSLESS_WEBP if suffix == ".webp" else None)
    expected = picture if picture.ndim == 3 else np.dstack([picture] * 3)
    assert read_header(data)[:3] == (SUFFIXES[suffix], 300, 300)
    decoded = decode(data)
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    assert difference(decoded, expected) <= (4 if suffix == ".jpg" else 0)
    assert suffix in preprocess.PICTURE_SUFFIXES
    path = tmp_path / ("cell" + suffix)
    path.write_bytes(data)
    loaded = load(path, 96, 128)
    assert loaded.shape == (96, 128, 3) and loaded.dtype == np.uint8
    assert loaded.flags.c_contiguous and loaded.flags.owndata
    assert np.array_equal(loaded, resize(decode(data), 96, 128))
    assert np.array_equal(load(str(path), 96, 128), loaded)


def test_lossy_webp_is_close() -> None:
    data = encode(".webp", colour_cells(), [cv2.IMWRITE_WEBP_QUALITY, 90])
    assert difference(decode(data), colour_cells()) < 4


def test_elpv_pictures_are_read_as_pillow_reads_them() -> None:
    for path in ELPV[:20]:
        grey = np.asarray(Image.open(path))
        assert np.array_equal(load(path, 300, 300), np.dstack([grey] * 3))


def test_two_threads_give_the_same_pixels() -> None:
    alone = [load(path, 224, 224) for path in ELPV[:30]]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda path: load(path, 224, 224), ELPV[:30]))
    assert np.array_equal(np.stack(alone), np.stack(together))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_spread_over_the_whole_range(bits: int) -> None:
    width, top = 8 // bits, 2**bits - 1
    levels = [(3 * column + 1) & top for column in range(width)]
    row = sum(level << (8 - bits * (column + 1)) for column, level in enumerate(levels))
    decoded = decode(png(width, 1, bytes([0, row]), bits=bits))
    expected = [level * 255 // top for level in levels]
    assert decoded[0].tolist() == [[value] * 3 for value in expected]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_of_sixteen_bits_the_upper_eight_are_kept(channels: int) -> None:
    random = np.random.default_rng(0)
    deep = random.integers(0, 65536, (40, 30, channels)).astype(np.uint16)
    deep[0, :2] = [[0], [65535]]
    data = encode(".png", deep[..., 0] if channels == 1 else deep)
    expected = (deep >> 8).astype(np.uint8)[..., :3]
    assert np.array_equal(decode(data), np.broadcast_to(expected, (40, 30, 3)))


@pytest.mark.parametrize("kind", ["PNG", "WebP", "BMP"])
def test_alpha_is_dropped(kind: str) -> None:
    colour = colour_cells()
    rgba = np.dstack([colour, cells(4)[3]])
    rgba[:50, :, 3] = 0
    options = {"lossless": True, "exact": True} if kind == "WebP" else {}
    assert np.array_equal(decode(save(Image.fromarray(rgba), kind, **options)), colour)


def test_transparency_of_grey_and_palette_is_dropped() -> None:
    grey = cells(1)[0]
    both = Image.fromarray(np.dstack([grey, grey.T]))
    assert np.array_equal(decode(save(both, "PNG")), np.dstack([grey] * 3))
    key = save(Image.fromarray(grey), "PNG", transparency=int(grey[0, 0]))
    assert np.array_equal(decode(key), np.dstack([grey] * 3))
    palette = Image.fromarray(colour_cells()).quantize(100)
    data = save(palette, "PNG", transparency=bytes(range(100)))
    assert np.array_equal(decode(data), np.asarray(palette.convert("RGB")))


def quarters(height: int = 64, width: int = 96) -> np.ndarray:
    """Red, green / blue, yellow: shows a swap of channels and a wrong turn."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = 230, 20, 30
    picture[: height // 2, width // 2 :] = 20, 200, 40
    picture[height // 2 :, : width // 2] = 10, 40, 220
    picture[height // 2 :, width // 2 :] = 220, 210, 20
    return picture


@pytest.mark.parametrize("quality", [75, 95])
def test_cmyk_jpeg_has_the_right_colours(quality: int) -> None:
    cmyk = Image.fromarray(quarters()).convert("CMYK")
    assert difference(decode(save(cmyk, "JPEG", quality=quality)), quarters()) < 3


def test_jpeg_of_rgb_and_of_each_chroma_sampling_has_the_right_colours() -> None:
    picture = Image.fromarray(quarters())
    for options in ({"keep_rgb": True}, {"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}):
        assert difference(decode(save(picture, "JPEG", quality=95, **options)), quarters()) < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("orientation", range(9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    stored = Image.fromarray(quarters())
    options = {"lossless": True} if kind == "WebP" else {}
    data = save(stored, kind, exif=oriented(orientation), **options)
    assert read_header(data)[:3] == (kind, 64, 96)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert upright.shape == ((96, 64, 3) if orientation >= 5 else (64, 96, 3))
    assert difference(decode(data), upright) < 1
    grey = save(stored.convert("L"), kind, exif=oriented(orientation), **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(grey))).convert("RGB"))
    assert difference(decode(grey), upright) < 1


def test_xmp_does_not_hide_exif() -> None:
    data = save(Image.fromarray(quarters()), "JPEG", exif=oriented(6))
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    for position in (2, data.index(b"\xff\xc0")):
        assert decode(data[:position] + segment + data[position:]).shape == (96, 64, 3)


def test_big_endian_exif_and_broken_exif() -> None:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"MM\0*" + struct.pack(">IH", 8, 1) + entry
    turned = save(Image.fromarray(quarters()), "JPEG", exif=b"Exif\0\0" + exif)
    assert decode(turned).shape == (96, 64, 3)
    for broken in (b"", exif[:9], exif[:18], b"XX" + exif[2:], exif[:4] + b"\xff" * 4):
        data = save(Image.fromarray(quarters()), "JPEG", exif=b"Exif\0\0" + broken)
        assert decode(data).shape == (64, 96, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_pixel(suffix: str) -> None:
    grey = encode(suffix, np.full((1, 1), 77, np.uint8))
    colour = encode(suffix, np.full((1, 1, 3), (200, 90, 30), np.uint8))
    assert decode(grey).shape == decode(colour).shape == (1, 1, 3)
    assert pixels(grey, 5, 3).shape == pixels(colour, 5, 3).shape == (5, 3, 3)
    assert np.abs(pixels(colour, 5, 3).astype(int) - (200, 90, 30)).max() <= 4


def test_bmp_stored_top_down_and_with_the_old_header() -> None:
    top_down = struct.pack("<2sIIIIiiHHIIIIII", b"BM", 0, 0, 54, 40, 1, -2, 1, 24, *[0] * 6)
    old = struct.pack("<2sIIIIHHHH", b"BM", 0, 0, 26, 12, 1, 4, 1, 24)
    red, blue = b"\0\0\xff\0", b"\xff\0\0\0"
    assert decode(top_down + red + blue)[:, 0].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert decode(old + 2 * (blue + red))[:, 0].tolist() == 2 * [[255, 0, 0], [0, 0, 255]]
    for whole in (top_down + red + blue, old + 2 * (blue + red)):
        assert refuse(whole[:-1]) == "truncated BMP"


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("junk", [b"\0", b"\xff\xd9", b"junk" * 1000], ids=["zero", "end", "long"])
def test_what_follows_the_picture_is_ignored(name: str, junk: bytes) -> None:
    assert np.array_equal(decode(SMALL[name] + junk), decode(SMALL[name]))


# Resizing


@given(
    st.tuples(*[st.integers(1, 70)] * 4),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_grey_takes_a_shorter_way_to_the_same_pixels(size: tuple[int, ...], seed: int) -> None:
    height, width, new_height, new_width = size
    grey = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    short = pixels(encode(".png", grey), new_height, new_width)
    long = pixels(encode(".png", np.dstack([grey] * 3)), new_height, new_width)
    assert np.array_equal(short, long)


def test_grey_and_colour_files_of_a_cell_give_the_same_pixels() -> None:
    for grey in cells(10):
        for size in ((224, 224), (150, 100), (299, 301), (380, 380)):
            short = pixels(encode(".png", grey), *size)
            assert np.array_equal(short, pixels(encode(".png", np.dstack([grey] * 3)), *size))
    jpeg = encode(".jpg", cells(1)[0])
    colour = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert colour is not None
    assert np.array_equal(pixels(jpeg, 224, 224), resize(colour, 224, 224))


def area_weights(old: int, new: int) -> np.ndarray:
    """How much of each old pixel lies under each new one, (new, old)."""
    edges = np.arange(new + 1) * old / new
    starts, ends = edges[:-1, None], edges[1:, None]
    cover = np.minimum(ends, np.arange(1, old + 1)) - np.maximum(starts, np.arange(old))
    return cover.clip(0) * new / old


def linear_weights(old: int, new: int) -> np.ndarray:
    """Weights of the two nearest old pixels, centres aligned, edges repeated: (new, old)."""
    centres = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    return (1 - np.abs(centres[:, None] - np.arange(old))).clip(0)


@pytest.mark.parametrize(
    ("size", "weights"),
    [
        ((150, 100), area_weights),
        ((300, 37), area_weights),
        ((280, 149), area_weights),
        ((224, 224), linear_weights),
        ((300, 151), linear_weights),
        ((380, 380), linear_weights),
        ((600, 150), linear_weights),
    ],
)
def test_resize_averages_areas_or_interpolates(
    size: tuple[int, int], weights: Callable[[int, int], np.ndarray]
) -> None:
    picture = colour_cells()
    rows, columns = weights(300, size[0]), weights(300, size[1])
    exact = np.einsum("yi,xj,ijc->yxc", rows, columns, picture, optimize=True)
    assert np.abs(resize(picture, *size) - exact).max() <= 1


def test_resize_to_the_same_size_changes_nothing() -> None:
    picture = colour_cells()
    assert resize(picture, 300, 300) is picture


# Large JPEGs


def test_large_jpeg_is_decoded_smaller_and_stays_close() -> None:
    picture = photo(1200, 1600)
    data = encode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
    for (height, width), shape in {
        (224, 224): (600, 800),
        (150, 200): (300, 400),
        (75, 75): (150, 200),
        (301, 400): (1200, 1600),
        (75, 800): (1200, 1600),
    }.items():
        smaller = decode(data, height, width)
        assert smaller.shape[:2] == shape
        assert difference(pixels(data, height, width), resize(decode(data), height, width)) < 1
    assert decode(data, height=75).shape == (1200, 1600, 3)


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_large_jpeg_on_its_side_stays_large_enough(orientation: int) -> None:
    stored = Image.fromarray(quarters(200, 800))
    data = save(stored, "JPEG", quality=95, exif=oriented(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    height, width = (200, 50) if orientation >= 5 else (50, 200)
    # Halved for the lying target; the standing one leaves no room for it.
    assert decode(data, height, width).shape == (upright.shape[0] // 2, upright.shape[1] // 2, 3)
    assert decode(data, width, height).shape == upright.shape
    assert difference(pixels(data, height, width), resize(upright, height, width)) < 2


def test_old_opencv_gives_the_same_pixels_of_large_jpegs(monkeypatch: pytest.MonkeyPatch) -> None:
    imdecode = cv2.imdecode

    def full_size_only(data: np.ndarray, flags: int) -> object:
        return imdecode(data, flags & ~0x70)

    for data in (encode(".jpg", photo(600, 800)), encode(".jpg", photo(600, 800)[..., 0])):
        new = decode(data, 60, 60)
        with monkeypatch.context() as old:
            old.setattr(cv2, "__version__", "4.1.1")
            old.setattr(cv2, "imdecode", full_size_only)
            assert np.array_equal(decode(data, 60, 60), new)


# What is not whole


@pytest.mark.parametrize("name", SMALL)
def test_cut_off_anywhere_is_refused(name: str) -> None:
    data = SMALL[name]
    step = max(1, len(data) // 250)
    for end in {*range(0, len(data), step), *range(max(0, len(data) - 30), len(data))}:
        reason = refuse(data[:end])
        assert reason in ("empty file", "not a JPEG, PNG, BMP or WebP file") or (
            reason == "truncated " + read_header(data).format
        )


def test_cut_off_after_a_thumbnail_is_refused() -> None:
    # The thumbnail in the EXIF data has an end marker of its own.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + encode(".jpg", quarters(16, 16))
    data = save(Image.fromarray(quarters()), "JPEG", exif=exif)
    assert np.array_equal(decode(data), decode(save(Image.fromarray(quarters()), "JPEG")))
    assert refuse(data[:-2]) == "truncated JPEG"


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused(data: bytes) -> None:
    for start in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\x40\0\0\0WEBPVP8X"):
        with pytest.raises(PictureError):
            decode(start + data)


@pytest.mark.parametrize("name", SMALL)
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_flipped_bits_raise_nothing_but_picture_error(name: str, data: st.DataObject) -> None:
    damaged = bytearray(SMALL[name])
    # Most draws hit the headers, where a bit matters most.
    last = st.one_of(st.integers(0, 100), st.integers(0, len(damaged) - 1))
    for position in data.draw(st.lists(last, min_size=1, max_size=4)):
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        header = read_header(bytes(damaged))
        picture = decode(bytes(damaged))
        squashed = pixels(bytes(damaged), 8, 6)
    except PictureError:
        return
    assert sorted(picture.shape[:2]) == sorted(header[1:3]) and picture.dtype == np.uint8
    assert squashed.shape == (8, 6, 3)


@pytest.mark.parametrize("name", ["grey PNG", "colour PNG"])
def test_png_with_any_flipped_byte_is_refused(name: str) -> None:
    data = SMALL[name]
    for position in range(0, len(data), 37):
        damaged = data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]
        refuse(damaged)
    turned = bytearray(save(Image.fromarray(quarters()), "PNG", exif=oriented(6)))
    turned[turned.index(b"eXIf") + 20] ^= 1
    assert refuse(bytes(turned)) == "damaged PNG"


def test_png_with_too_few_rows_is_refused() -> None:
    whole = (b"\0" + bytes(range(30))) * 30
    assert decode(png(30, 30, whole)).shape == (30, 30, 3)
    assert refuse(png(30, 30, whole[: len(whole) // 2])) == "cannot be decoded"


@pytest.mark.parametrize(
    "data",
    [
        png(50000, 50000, b"\0"),
        png(50000, 50000, b"\0")[:33],
        b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HHB", 50000, 50000, 3) + b"\xff\xd9",
        b"BM" + struct.pack("<IIIIii", 0, 0, 54, 40, 50000, -50000),
        b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + struct.pack("<I", 49999)[:3] * 2,
    ],
    ids=["PNG", "PNG header", "JPEG", "BMP", "WebP"],
)
def test_too_many_pixels_are_refused_before_decoding(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", fail)
    assert read_header(data)[1:3] == (50000, 50000)
    assert refuse(data) == "50000x50000 pixels are more than 150 million"


def test_size_that_the_decoder_will_not_take_is_refused() -> None:
    assert refuse(png(2_000_000, 1, bytes(2_000_001))) == "cannot be decoded"
    assert refuse(png(0, 5, b"")) == "damaged PNG"


def test_animations_and_rare_kinds_are_refused() -> None:
    first, second = (Image.fromarray(cell) for cell in cells(2))
    several = {"save_all": True, "append_images": [second]}
    assert refuse(save(first, "PNG", **several)) == "animated PNG"
    assert refuse(save(first, "WebP", **several)) == "animated WebP"
    run_length = bytearray(encode(".bmp", cells(1)[0]))
    run_length[30] = 1
    assert refuse(bytes(run_length)) == "compressed BMP"
    frame = SMALL["JPEG"].index(b"\xff\xc0")
    arithmetic = bytearray(SMALL["JPEG"])
    arithmetic[frame + 1] = 0xC9
    assert refuse(bytes(arithmetic)) == "lossless, hierarchical or arithmetic-coded JPEG"
    deep = bytearray(SMALL["JPEG"])
    deep[frame + 4] = 12
    assert refuse(bytes(deep)) == "JPEG of 12 bits"


# Reading files


def reason_of(path: str | Path) -> str:
    with pytest.raises(PictureError) as caught:
        load(path, 8, 8)
    return str(caught.value)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("This is not a picture.")
    (tmp_path / "bm.bmp").write_text("BMX racing, a history")
    os.mkfifo(tmp_path / "fifo.jpg")
    assert reason_of(tmp_path / "empty.jpg") == "empty file"
    assert reason_of(tmp_path / "text.jpg") == "not a JPEG, PNG, BMP or WebP file"
    assert "BMP" in reason_of(tmp_path / "bm.bmp")
    assert reason_of(tmp_path / "fifo.jpg") == "not a regular file"
    assert reason_of("/dev/zero") == "not a regular file"
    assert reason_of(tmp_path) == "Is a directory"
    assert reason_of(tmp_path / "none.jpg") == "No such file or directory"
    assert "null byte" in reason_of("a\0b.jpg")


def test_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(preprocess.MAX_FILE_BYTES + 1)
    assert reason_of(path) == "larger than 256 MiB"


def test_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(SMALL["grey PNG"])
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        assert reason_of(path) == "Permission denied"
    finally:
        os.seteuid(user)
