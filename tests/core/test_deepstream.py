from __future__ import annotations

import pytest

from edgecal.core.cache import CalibrationCache, Entry, Header
from edgecal.core.deepstream import check_config, check_table, config_lines
from edgecal.errors import IncompatibleError, InputError


def cache(*tensors: str, algorithm: str = "EntropyCalibration2") -> CalibrationCache:
    return CalibrationCache(
        header=Header(code=8502, algorithm=algorithm),
        entries=tuple(Entry(tensor, "3c010a14") for tensor in tensors),
    )


def test_a_network_built_by_the_api_is_refused_with_that_reason() -> None:
    yolo = """
[property]
custom-network-config=yolov3.cfg
model-file=yolov3.weights
int8-calib-file=calib.table
network-mode=1
"""
    with pytest.raises(IncompatibleError, match=r"custom-network-config=yolov3\.cfg.*by the API"):
        check_config(yolo, source="pgie.txt")
    table = cache(*(f"(Unnamed Layer* {n}) [Convolution]_output" for n in range(9)), "data")
    with pytest.raises(IncompatibleError, match="9 of the cache's 10 tensors"):
        check_table(table, where="net")


def test_a_cache_that_nvinfer_would_not_read_is_refused() -> None:
    with pytest.raises(IncompatibleError, match="MinMaxCalibration; nvinfer's calibrator reads"):
        check_table(cache("x", algorithm="MinMaxCalibration"), where="net")


@pytest.mark.parametrize("text", ["", "[property]\n#onnx-file=x\n", "\0\xff", "=\n:\n", "a" * 9999])
def test_a_file_that_names_no_network_is_no_configuration(text: str) -> None:
    with pytest.raises(InputError, match="found no network"):
        check_config(text, source="pgie.txt")


@pytest.mark.parametrize(
    "text",
    [
        "[property]\r\nonnx-file=net.onnx\r\n",
        "property:\n  onnx-file: net.onnx\n  network-mode: 1\n",
        "[property]\ncustom-network-config=y.cfg\nonnx-file = net.onnx\n",
    ],
)
def test_a_network_from_onnx_is_fine_in_both_forms(text: str) -> None:
    check_config(text, source="pgie.txt")


def test_the_two_lines_name_the_table_of_the_active_release() -> None:
    check_table(cache("x", "(Unnamed Layer* 1) [Constant]_output"), where="net")
    lines = config_lines("/home/nvidia/.edgecal/models/net/current").decode().splitlines()
    assert lines[1:] == [
        "int8-calib-file=/home/nvidia/.edgecal/models/net/current/calib.table",
        "network-mode=1",
    ]
