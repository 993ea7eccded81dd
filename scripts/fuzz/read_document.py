"""Feeds the lenient reader of calibration caches what nobody would write.

Run by hand, in a virtual environment that has edgecal and atheris:

    python scripts/fuzz/read_document.py -max_total_time=60

It starts from caches of every kind of oddity and ends with the first input that is read slower
than a second, gives another exception than CacheFormatError, or breaks what holds of documents.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["edgecal"]):
    from edgecal.core.cache import parse_cache, serialize_cache
    from edgecal.core.cache_diff import diff_caches
    from edgecal.core.document import cache_of, read_document
    from edgecal.core.oddities import explain_header, judge_scales
    from edgecal.errors import CacheFormatError

SEEDS: Final = (
    b"TRT-8502-EntropyCalibration2\nimages: 3c010a14\ninput_1:0: 3caa54fc\na: b: 7f800000\nc: 0\n",
    b"\xef\xbb\xbfTRT-8XXX-EntropyCalibration2 \r\nx: 0x3C010A14 \r\n\r\nx: 0x3C010A14\r\n",
    b"0 3ff0000000000000 3fefffeb074a771d\nx:3c010a14\ny:\t3c010a14\n",
    b"03ff00000000000003feffffde7210be9\n1: 0.5\n2: -1e-5\n3: nan\n4: 3f8020c49ba5e354",
    b"x: 3c010a14\nx: 3c010a15\ny\xff\xe2\x80\xa8: 7fc00000\nz: 3c01",
)


def try_one(data: bytes) -> None:
    """Read an input and check what holds of every document."""
    try:
        strict = parse_cache(data)
    except CacheFormatError:
        strict = None
    try:
        document = read_document(data, source="input")
    except CacheFormatError:
        if strict is not None:
            raise AssertionError("the strict reader takes what the lenient one refuses") from None
        return
    judge_scales(document)
    explain_header(document)
    if document.data != data or not diff_caches(document, document).same:
        raise AssertionError("a document is what was read, and the same as itself")
    try:
        clean = cache_of(document, source="input")
    except CacheFormatError:
        if strict is not None:
            raise AssertionError("a well-formed cache has no error") from None
        return
    if parse_cache(serialize_cache(clean)) != clean or strict not in {None, clean}:
        raise AssertionError("a clean value can be written, and is what the strict reader reads")


def main() -> None:
    """Fuzz until told to stop."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, "-timeout=1", corpus], try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
