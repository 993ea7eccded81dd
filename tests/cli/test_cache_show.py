"""`edgecal cache show` and `edgecal cache diff`, through the one door."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.cli import app
from edgecal.cli.cache.rows import json_rows
from edgecal.cli.printable import printable
from tests.bundles import make_bundles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeAlias

    Run: TypeAlias = Callable[..., tuple[int, str, str]]

TABLE = (
    b"TRT-8502-EntropyCalibration2\n"
    b"images: 3c010a14\n"
    b"/m/Conv_output_0: 40000000\n"
    b"(Unnamed Layer* 8) [Constant]_output: 0\n"
    b"mask: 7f800000\n"
    b"decimal: 0.0078\n"
    b"b\xff\x1b[31m: 3f000000\n"
)
ODD_NAME = "b\udcff\x1b[31m"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "net.cache", TABLE)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `edgecal cache ...`; gives the exit code, stdout and stderr."""

    def run_cache(*words: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            app.main(["cache", *map(str, words)])
        heard = capsys.readouterr()
        code = end.value.code
        return (code if isinstance(code, int) else 0), heard.out, heard.err

    return run_cache


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def rows(out: str) -> list[str]:
    """Names in a table for people, in order."""
    lines = out.splitlines()
    start = next(at for at, line in enumerate(lines) if line.endswith("  tensor"))
    column = lines[start].index("tensor")
    return [line[column:] for line in lines[start + 1 : -1]]


# what fails


@pytest.mark.parametrize("command", ["show", "diff"])
@pytest.mark.parametrize("data", [b"", b"\x08\x01ONNX\n" * 5000, b'{"scale": 1}\n'])
def test_what_is_no_cache_is_exit_2_with_its_line(
    run: Run, tmp_path: Path, table: Path, command: str, data: bytes
) -> None:
    junk = write(tmp_path / "junk.bin", data)
    code, out, err = run(command, junk, *([table] if command == "diff" else []), "--json")
    error = json.loads(out)["error"]
    assert code == 2
    assert error["code"] == "cache-format"
    assert error["where"].startswith(f"{junk}:")
    assert "no calibration cache" in err


def test_a_missing_file_is_exit_2(run: Run, table: Path) -> None:
    assert run("show", "nowhere.cache")[0] == 2
    assert run("diff", table, "nowhere.cache")[0] == 2


@pytest.mark.parametrize("ratio", ["0.9", "-1", "nan"])
def test_a_ratio_below_one_is_exit_2(run: Run, table: Path, ratio: str) -> None:
    code, out, err = run("diff", table, table, "--fail-above", ratio)
    assert (code, out) == (2, "")
    assert "--fail-above" in err


# show


def test_the_document_of_show_has_every_tensor_as_it_stands(run: Run, table: Path) -> None:
    code, out, err = run("show", table, "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert list(document) == ["schema", "header", "tensorrt", "algorithm", "tensors", "findings"]
    assert document["schema"] == "edgecal.cache/1"
    assert document["header"] == "TRT-8502-EntropyCalibration2"
    assert document["tensorrt"] == "8.5.2"
    assert document["algorithm"] == "EntropyCalibration2"
    assert document["tensors"] == [
        {
            "name": "images",
            "bits": "3c010a14",
            "scale": 0.007875937968492508,
            "dynamic_range": 0.007875937968492508 * 127,
        },
        {"name": "/m/Conv_output_0", "bits": "40000000", "scale": 2.0, "dynamic_range": 254.0},
        {
            "name": "(Unnamed Layer* 8) [Constant]_output",
            "bits": "0",
            "scale": 0.0,
            "dynamic_range": 0.0,
        },
        {"name": "mask", "bits": "7f800000", "scale": None, "dynamic_range": None},
        {"name": "decimal", "bits": "0.0078", "scale": None, "dynamic_range": None},
        {"name": ODD_NAME, "bits": "3f000000", "scale": 0.5, "dynamic_range": 63.5},
    ]
    assert [(one["rule"], one["subject"]) for one in document["findings"]] == [
        ("decimal-scale", "decimal"),
        ("scale-suspicious", "(Unnamed Layer* 8) [Constant]_output"),
        ("scale-suspicious", "mask"),
    ]


def test_a_file_without_a_header_has_none_in_its_document(run: Run, tmp_path: Path) -> None:
    document = json.loads(run("show", write(tmp_path / "x", b"x: 1\n"), "--json")[1])
    assert document["header"] is document["tensorrt"] is document["algorithm"] is None


def test_people_see_header_scales_and_below_them_findings(run: Run, table: Path) -> None:
    code, out, err = run("show", table)
    assert code == 0
    assert out.startswith("TRT-8502-EntropyCalibration2\n")
    assert "made for TensorRT 8.5.2" in out
    assert "6 tensors\n" in out
    assert rows(out)[-1] == r"b\udcff\x1b[31m"
    (line,) = (one for one in out.splitlines() if one.endswith("images"))
    assert line.split()[:3] == ["3c010a14", "0.0078759", "1.0002"]
    assert "error decimal-scale (decimal): line 6: " in err
    assert "warning scale-suspicious (mask)" in err
    assert "constant of zeros" not in err
    assert "constant of zeros" in run("show", table, "-v")[2]
    assert run("show", table, "-q") == (0, out, "")


def test_bars_grow_with_the_logarithm_of_scales(run: Run, tmp_path: Path) -> None:
    lines = b"".join(b"t%d: %x\n" % (at, 0x3C000000 + (at << 23)) for at in range(13))
    out = run("show", write(tmp_path / "x", TABLE[:29] + lines + b"zero: 0\n"))[1]
    lengths = [sum(one in "▏▎▍▌▋▊▉█" for one in line) for line in out.splitlines()]
    # the smallest scale keeps a sliver, the largest has all; without a logarithm there is none
    assert lengths[-15:] == [1, *range(1, 13), 0, 0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "c a N d b"),
        (["--reverse"], "b d N a c"),
        (["--sort", "name"], "N a b c d"),
        (["--sort", "scale"], "d b a c N"),
        (["--sort", "scale", "--reverse"], "N c a b d"),
        (["--filter", "[a-c]"], "c a b"),
        (["--filter", "?", "--sort", "name", "--reverse"], "d c b a N"),
        (["--filter", "A"], ""),
    ],
)
def test_tensors_are_sorted_and_chosen_alike_for_people_and_programs(
    run: Run, tmp_path: Path, words: list[str], expected: str
) -> None:
    data = TABLE[:29] + b"c: 7f800000\na: 3f800000\nN: 7fc00000\nd: bf800000\nb: 0\n"
    file = write(tmp_path / "x", data)
    assert rows(run("show", file, *words)[1]) == expected.split()
    document = json.loads(run("show", file, *words, "--json")[1])
    assert [one["name"] for one in document["tensors"]] == expected.split()


def test_a_bundle_shows_its_cache(run: Run, tmp_path: Path) -> None:
    (bundle,) = make_bundles(tmp_path, "8.5.2")
    document = json.loads(run("show", bundle.path, "--json")[1])
    assert document["tensorrt"] == "8.5.2"
    assert document["tensors"]
    assert run("diff", bundle.path, bundle.path / "calibration.cache", "--fail-above", "1")[0] == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_terminal_can_show_every_name(table: Path, encoding: str) -> None:
    write(table, TABLE + "été ☃ \u202e: 3c010a14\n".encode())
    program = (
        "import sys, pathlib, typer\n"
        "from edgecal.cli.cache.diff import diff\n"
        "from edgecal.cli.cache.show import show\n"
        "show(pathlib.Path(sys.argv[1]))\n"
        "diff(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
    )
    other = write(table.with_name("other"), TABLE[:29] + "ö: 3c010a14\n".encode())
    done = subprocess.run(
        [sys.executable, "-c", program, table, other],
        env={"PYTHONIOENCODING": encoding, "PYTHONPATH": ":".join(sys.path), "TERM": "xterm"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    out = done.stdout.decode(encoding)
    assert r"b\udcff\x1b[31m" in out
    assert r"\u202e" in out
    assert ("été ☃ " in out) == (encoding == "utf-8")
    assert "\x1b" not in out


# diff


def test_the_document_of_diff_says_what_lies_between(run: Run, table: Path) -> None:
    other = write(
        table.with_name("other"),
        TABLE.replace(b"8502", b"8503").replace(b"40000000", b"3f800000").replace(b"mask", b"new"),
    )
    code, out, err = run("diff", table, other, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "schema": "edgecal.cache-diff/1",
        "only_left": ["mask"],
        "only_right": ["new"],
        "changed": [{"name": "/m/Conv_output_0", "left": 2.0, "right": 1.0, "ratio": 0.5}],
        "headers_differ": True,
    }


def test_people_see_the_largest_change_first(run: Run, tmp_path: Path) -> None:
    head = TABLE[:29]
    left = write(
        tmp_path / "a", head + b"small: 3f800000\nbig: 3f800000\ninf: 3f800000\n" + b"x: 1\n"
    )
    right = write(
        tmp_path / "b", head + b"small: 3f8ccccd\nbig: 3d000000\ninf: 7f800000\n" + b"y: 1\n"
    )
    out = run("diff", left, right)[1]
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "! 1 -> not finite inf",
        "↓ /32 1 -> 0.03125 big",
        "↑ +10.00% 1 -> 1.1 small",
        "only in A: x",
        "only in B: y",
        "3 changed, 0 alike, 1 only in A, 1 only in B",
    ]


def test_two_of_a_kind_are_said_to_be(run: Run, table: Path) -> None:
    code, out, err = run("diff", table, write(table.with_name("x"), TABLE.replace(b"\n", b"\r\n")))
    assert (code, out) == (0, "identical: the same header, and the same scales of 6 tensors\n")
    assert "1 line" in err  # the decimal, on both sides
    assert run("diff", table, table, "-q")[2] == ""


@pytest.mark.parametrize(
    ("changed", "ratio", "code"),
    [
        (TABLE, "1", 0),
        (TABLE.replace(b"40000000", b"3f800000"), "2", 0),
        (TABLE.replace(b"40000000", b"3f800000"), "1.99", 3),
        (TABLE.replace(b"40000000", b"40800000"), "1.99", 3),
        (TABLE.replace(b"40000000", b"7fc00000"), "1e30", 3),
        (TABLE.replace(b"8502", b"100300"), "1", 0),
        (TABLE + b"more: 1\n", "1e30", 3),
        (TABLE.replace(b"mask: 7f800000\n", b""), "1e30", 3),
    ],
)
def test_more_change_than_allowed_is_exit_3(
    run: Run, table: Path, changed: bytes, ratio: str, code: int
) -> None:
    other = write(table.with_name("other"), changed)
    assert run("diff", table, other, "--fail-above", ratio)[0] == code
    assert run("diff", table, other, "--fail-above", ratio, "--json")[0] == code
    assert run("diff", table, other)[0] == 0


# what both stand on


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(
            st.none(),
            st.booleans(),
            st.text(max_size=5),
            st.lists(st.one_of(st.text(), st.dictionaries(st.text(), st.floats(allow_nan=False)))),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_rows_are_the_document(document: dict[str, Any]) -> None:
    try:
        text = json_rows(document)
    except ValueError:  # infinite numbers are no JSON
        assert "inf" in repr(document)
        return
    assert json.loads(text) == document
    assert text.count("\n") == text.rstrip("\n").count("\n") + 1


@given(st.text(st.characters()), st.sampled_from(["ascii", "latin-1", "utf-8"]))
def test_what_is_printable_can_be_written_on_one_line(text: str, encoding: str) -> None:
    shown = printable(text, encoding)
    assert shown.isprintable()
    io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict").write(shown)
    if text.isprintable() and text.isascii():
        assert shown == text
