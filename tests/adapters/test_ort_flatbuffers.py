"""Tables of ONNX Runtime: read what the installed one writes, write what it reads."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.adapters.ort_flatbuffers import parse_ort_flatbuffers, write_ort_flatbuffers
from edgecal.core.cache import Entry, entry_of_scale
from edgecal.core.formats.ort_tables import parse_ort_json, parse_ort_text, write_ort_json
from edgecal.core.formats.registry import recognise
from edgecal.errors import CacheFormatError
from tests.networks import conv_net, floats, save
from tests.strategies import tensor_names

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES: Final = (Entry("a: b", "3c000000"), Entry("images", "3e800000"), Entry("é\udcff", "0"))
TABLE: Final = write_ort_flatbuffers(ENTRIES)


class Batches:
    """What ONNX Runtime's calibrators ask for data."""

    def __init__(self) -> None:
        self._left = [{"image": floats(2, 3, 8, 8, seed=seed)} for seed in range(3)]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None


def calibrated(folder: Path, method: str) -> dict[str, tuple[float, float]]:
    """Let ONNX Runtime calibrate a network, and write its three tables."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator
    from onnxruntime.quantization.quant_utils import write_calibration_table

    calibrator = create_calibrator(
        save(conv_net(), folder / "net.onnx"),
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=CalibrationMethod[method],
    )
    calibrator.collect_data(Batches())
    data = calibrator.compute_data()
    write_calibration_table(data, str(folder))
    ends = {name: data[name].range_value for name in data}
    return {name: (float(low.item()), float(high.item())) for name, (low, high) in ends.items()}


def altered(position: int, value: int) -> bytes:
    return TABLE[:position] + struct.pack("<I", value) + TABLE[position + 4 :]


@pytest.mark.parametrize("length", range(len(TABLE.rstrip(b"\0")) + 1))
def test_a_table_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(CacheFormatError, match="expected"):
        parse_ort_flatbuffers(TABLE[:length], source="table")


@pytest.mark.parametrize("value", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("position", range(0, len(TABLE) - 3, 4))
def test_an_altered_word_gives_entries_or_a_format_error(position: int, value: int) -> None:
    try:
        entries = parse_ort_flatbuffers(altered(position, value), source="table")
    except CacheFormatError:
        return
    assert len(entries) <= len(ENTRIES)


@given(st.binary(max_size=120))
def test_arbitrary_bytes_give_entries_or_a_format_error(data: bytes) -> None:
    try:
        entries = parse_ort_flatbuffers(data, source="table")
    except CacheFormatError:
        return
    assert sum(len(one.tensor) for one in entries) <= len(data)


def test_a_small_file_cannot_claim_much() -> None:
    # a million elements are one and the same, whose name has a million bytes
    count = size = 1_000_000
    layout = struct.pack("<HHHH", 8, 12, 4, 8)
    root = struct.pack("<IHHHHiI", 12, 6, 8, 4, 0, 8, 4)
    offsets = b"".join(struct.pack("<I", 4 * (count - index) + 8) for index in range(count))
    element = struct.pack("<iII", 8, 8, 8 + size + 4) + struct.pack("<I", size) + b"n" * size
    table = root + struct.pack("<I", count) + offsets + layout + element
    table += bytes(4) + struct.pack("<I", 1) + b"1" + bytes(3)
    started = time.monotonic()
    with pytest.raises(CacheFormatError, match="on top of each other"):
        parse_ort_flatbuffers(table, source="table")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("value", "complaint"),
    [(b"-0.25", "calibration.json"), (b"3c010", "correct the line"), (b"1e+99", "correct")],
)
def test_a_value_that_is_no_magnitude_is_refused(value: bytes, complaint: str) -> None:
    table = write_ort_flatbuffers([Entry("a", "3a83126f")])  # 0.127000...
    text = repr(Entry("a", "3a83126f").scale * 127).encode()
    size = struct.pack("<I", len(text))
    assert size + text in table
    changed = table.replace(
        size + text, struct.pack("<I", len(value)) + value.ljust(len(text), b"\0")
    )
    with pytest.raises(CacheFormatError) as caught:
        parse_ort_flatbuffers(changed, source="table")
    assert complaint in caught.value.remedy


@given(st.dictionaries(tensor_names(), st.integers(0, 0x7F7FFFFF), max_size=6))
def test_what_is_written_is_read_again_bit_for_bit(table: dict[str, int]) -> None:
    entries = [Entry(name, f"{bits:x}") for name, bits in sorted(table.items())]
    data = write_ort_flatbuffers(entries)
    assert parse_ort_flatbuffers(data, source="table") == tuple(entries)
    assert recognise(data, name="table") == "ort-flatbuffers"


def test_onnx_runtimes_own_classes_read_what_is_written() -> None:
    from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable

    table = TrtTable.GetRootAs(TABLE, 0)
    read = [(table.Dict(index).Key(), table.Dict(index).Value()) for index in range(3)]
    assert table.DictLength() == 3
    assert read == [
        (b"a: b", b"0.9921875"),
        (b"images", b"31.75"),
        ("é\udcff".encode("utf-8", "surrogateescape"), b"0.0"),
    ]


@pytest.mark.parametrize("method", ["MinMax", "Entropy", "Percentile"])
def test_the_json_that_onnx_runtime_writes_is_read_as_it_means_it(
    tmp_path: Path, method: str
) -> None:
    data = calibrated(tmp_path, method)
    file = (tmp_path / "calibration.json").read_bytes()
    assert recognise(file, name="file") == "ort-json"
    entries = parse_ort_json(file, source="calibration.json")
    expected = {
        name: entry_of_scale(name, max(-low, high) / 127).bits for name, (low, high) in data.items()
    }
    assert {one.tensor: one.bits for one in entries} == expected
    assert {"image", "conv", "scores"} <= set(expected)


def test_the_other_two_tables_that_onnx_runtime_writes_agree_with_each_other(
    tmp_path: Path,
) -> None:
    data = calibrated(tmp_path, "MinMax")
    text = (tmp_path / "calibration.cache").read_bytes()
    table = (tmp_path / "calibration.flatbuffers").read_bytes()
    assert recognise(text, name="file") == "ort-text"
    assert recognise(table, name="file") == "ort-flatbuffers"
    entries = parse_ort_text(text, source="calibration.cache")
    binary = parse_ort_flatbuffers(table, source="calibration.flatbuffers")
    assert set(binary) == set(entries)
    for entry in entries:
        assert entry == entry_of_scale(entry.tensor, data[entry.tensor][1] / 127)


def test_onnx_runtime_reads_the_json_that_is_written(tmp_path: Path) -> None:
    from onnxruntime.quantization.calibrate import load_tensors_data

    file = tmp_path / "calibration.json"
    file.write_bytes(write_ort_json(ENTRIES))
    data = load_tensors_data(file)
    assert list(data.keys()) == [one.tensor for one in ENTRIES]
    low, high = data["images"].range_value
    assert (low, high) == (np.float32(-31.75), np.float32(31.75))


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        ("[-127, 3]", "3f800000"),
        ("[[-127], [[3]]]", "3f800000"),
        ('{"lowest": -127, "highest": 3, "CLS": "TensorData"}', "3f800000"),
        ('{"lowest": {"data": [-127], "CLS": "numpy.array"}, "highest": 3}', "3f800000"),
        ("[NaN, 1]", "7fc00000"),
    ],
)
def test_every_form_of_onnx_runtimes_json_is_read(value: str, bits: str) -> None:
    data = f'{{"a": {value}}}'.encode()
    assert parse_ort_json(data, source="file") == (Entry("a", bits),)
    whole = f'{{"CLS": "TensorsData", "data": {{"a": {value}}}}}'.encode()
    assert parse_ort_json(whole, source="file") == (Entry("a", bits),)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("1", "expected the lowest and the highest value of tensor 'a', found 1.0"),
        ("[1, 2, 3]", "found a list of 3"),
        ('{"avg": 1, "std": 2, "CLS": "TensorData"}', "found an object of 3"),
        ('{"lowest": [1, 2], "highest": [3, 4]}', "expected a number for tensor 'a'"),
        ('{"lowest": {"data": 1}, "highest": 1}', "expected a number"),
        ("[null, 1]", "found nothing"),
    ],
)
def test_json_without_one_range_a_tensor_is_refused(value: str, complaint: str) -> None:
    with pytest.raises(CacheFormatError, match=complaint):
        parse_ort_json(f'{{"a": {value}}}'.encode(), source="file")
