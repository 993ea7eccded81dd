from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.cache import serialize_cache
from edgecal.core.document import Document, read_document
from edgecal.core.findings import Finding, Severity
from edgecal.core.oddities import HeaderMeaning, explain_header, judge_scales
from edgecal.core.versions import TensorRTVersion
from edgecal.errors import CacheFormatError
from tests.strategies import caches

HEAD = "TRT-8502-EntropyCalibration2"

USUAL = "3e57d3e0 3c010a14 3e1f2e72 3e8b7d6d 3d27ba18 3c00ead7 3d42f3dd 3bf9da3b 40a07693 3b0130bd"
"""Scales as they stand in a published table of YOLOv5 (TensorRT 8.5.2)."""


def document(*lines: str, head: str = HEAD) -> Document:
    return read_document("".join(f"{one}\n" for one in (head, *lines)).encode(), source="net.cache")


def usual_and(*lines: str) -> Document:
    return document(*(f"t{at}: {bits}" for at, bits in enumerate(USUAL.split())), *lines)


def meaning(head: str) -> HeaderMeaning:
    return explain_header(document("x: 3c010a14", head=head))


def bits_of(scale: float) -> str:
    return f"{struct.unpack('>I', struct.pack('>f', scale))[0]:x}"


def only(findings: tuple[Finding, ...]) -> Finding:
    (finding,) = findings
    return finding


@pytest.mark.parametrize(
    ("line", "severity", "words"),
    [
        ("odd: 7fc00000", Severity.ERROR, "no number"),
        ("odd: bf800000", Severity.ERROR, "below zero"),
        ("odd: ff800000", Severity.ERROR, "below zero"),
        ("odd: 7f800000", Severity.WARNING, "infinite"),
        ("odd: 0", Severity.WARNING, "all zeros"),
        ("odd: 80000000", Severity.WARNING, "all zeros"),
        ("odd: 12", Severity.WARNING, "too small"),
        ("odd: 280de15b", Severity.WARNING, "far from"),
        ("odd: 47c5e54b", Severity.WARNING, "far from"),
        ("(Unnamed Layer* 8) [Constant]_output: 0", Severity.NOTE, "constant"),
        ("ONNXTRT_Broadcast_1855_output: 0", Severity.NOTE, "constant"),
    ],
)
def test_a_suspicious_scale_is_found(line: str, severity: Severity, words: str) -> None:
    finding = only(judge_scales(usual_and(line)))
    assert (finding.rule, finding.severity) == ("scale-suspicious", severity)
    assert finding.subject == line.rpartition(": ")[0]
    assert finding.message.startswith("line 12: ")
    assert words in finding.message
    assert line.rpartition(": ")[2] in finding.message


def test_scales_of_real_networks_are_not_suspicious() -> None:
    # the sum of squares before a root, an input in 0..255, a small logit
    real = usual_and("sum: 42918cbf", "input: 4000890a", "softmax: 39ac99f7")
    assert judge_scales(real) == ()


def test_few_scales_have_no_middle_to_be_far_from() -> None:
    assert judge_scales(document("a: 3c010a14", "b: 280de15b", "c: 47c5e54b")) == ()


def test_of_many_alike_the_first_are_named_and_the_rest_counted() -> None:
    lines = [f"odd{at}: 0" for at in range(500)]
    findings = judge_scales(usual_and(*lines))
    assert [one.subject for one in findings] == [f"odd{at}" for at in range(11)]
    assert "489 more" in findings[-1].message


def test_scales_that_cannot_be_read_are_left_to_the_reader() -> None:
    assert judge_scales(usual_and("odd: 0.0078", "wide: 3c010a14000")) == ()


# six octaves of four deviations each make 36 at the most
@given(
    st.lists(st.floats(-3, 3), min_size=8, max_size=40),
    st.floats(40, 120),
    st.sampled_from([1, -1]),
)
def test_an_outlier_among_usual_scales_is_found_in_either_direction(
    logs: list[float], distance: float, sign: int
) -> None:
    lines = [f"t{at}: {bits_of(2.0**one)}" for at, one in enumerate(logs)]
    odd = bits_of(2.0 ** (sign * distance))
    finding = only(judge_scales(document(*lines, f"odd: {odd}")))
    assert finding.subject == "odd"


def test_names_that_change_with_every_export_are_found_once() -> None:
    finding = only(judge_scales(document("123: 3c010a14", "124: 3c010a14", "x1: 3c010a14")))
    assert (finding.rule, finding.subject) == ("bare-number-name", "123")
    assert finding.message.startswith("2 of 3 tensors")


def test_names_of_quantizers_are_found_once() -> None:
    suffix = ".quantized.dequantized"
    finding = only(judge_scales(document(f"a{suffix}: 3c010a14", f"b{suffix}: 3c010a14")))
    assert (finding.rule, finding.subject) == ("third-party-name", f"a{suffix}")
    assert suffix in finding.message


def test_a_header_of_trtexec_needs_no_finding() -> None:
    found = meaning(HEAD)
    assert found.tensorrt == TensorRTVersion(8, 5, 2)
    assert found.algorithm == "EntropyCalibration2"
    assert found.findings == ()
    assert "8.5 of any patch" in found.sentences[0]
    assert "trtexec" in found.sentences[1]


@pytest.mark.parametrize(
    ("head", "tensorrt", "algorithm", "rules"),
    [
        ("TRT-100300-EntropyCalibration2", "10.3.0", "EntropyCalibration2", []),
        ("TRT-8502-MinMaxCalibration", "8.5.2", "MinMaxCalibration", ["trtexec-reads-entropy2"]),
        (
            "TRT-8502-EntropyCalibration",
            "8.5.2",
            "EntropyCalibration",
            ["cache-not-portable", "trtexec-reads-entropy2"],
        ),
        ("TRT-8502-Percentile", "8.5.2", "Percentile", ["algorithm-header"]),
        (
            "TRT-110000-EntropyCalibration2",
            "11.0.0",
            "EntropyCalibration2",
            ["implicit-int8-removed"],
        ),
        ("TRT-85020-EntropyCalibration2", None, "EntropyCalibration2", ["header-version"]),
        ("TRT-8XXX-EntropyCalibration2 ", None, "EntropyCalibration2", []),
        ("TRT-8502-", None, None, []),
        (
            "0 3ff0000000000000 3fefffeb074a771d",
            None,
            "LegacyCalibration",
            ["cache-not-portable", "trtexec-reads-entropy2"],
        ),
    ],
)
def test_a_header_is_explained(
    head: str, tensorrt: str | None, algorithm: str | None, rules: list[str]
) -> None:
    found = meaning(head)
    assert (None if found.tensorrt is None else str(found.tensorrt)) == tensorrt
    assert found.algorithm == algorithm
    assert [one.rule for one in found.findings] == rules
    assert found.sentences


def test_a_file_without_a_header_promises_nothing() -> None:
    found = explain_header(read_document(b"x: 3c010a14\n", source="net.cache"))
    assert (found.tensorrt, found.algorithm, found.findings) == (None, None, ())
    assert found.sentences == ("the TensorRT it was made for is not known",)


@given(st.one_of(caches().map(serialize_cache), st.binary(max_size=80)))
def test_whatever_can_be_read_can_be_judged(data: bytes) -> None:
    try:
        read = read_document(data, source="net.cache")
    except CacheFormatError:
        return
    names = {entry.tensor for entry in read.entries}
    assert {one.subject for one in judge_scales(read)} <= names
    assert {one.subject for one in explain_header(read).findings} <= {"header"}
