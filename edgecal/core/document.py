"""The lenient, lossless reader of calibration caches: whatever the file holds, with its oddities.

`parse_cache` takes what may be shipped; this reads what people have: files that went through
editors, mails and other tools. Every byte is kept, every oddity is a finding with its line.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Final

from edgecal.core.cache import CalibrationCache, Entry, Header
from edgecal.core.findings import Finding, Severity
from edgecal.errors import CacheFormatError

_MOST_ODDITIES: Final = 1000
"""So many, and it is another kind of file: go on and 100 MB of junk take minutes."""

_QUOTED: Final = 60
_LONGEST_VALUE: Final = 64
_LONGEST_HEADER: Final = 4096
_DIGITS: Final = 8  # of a float32 in hex
_HEADER_REMEDY: Final = (
    "write the TensorRT that made the scales in line 1: 8502 is 8.5.2, 100300 is 10.3.0"
)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_STRICT_BITS = re.compile(rb"[0-9a-f]{1,8}")
_LENIENT_BITS = re.compile(r"(?:0[xX])?(?P<digits>[0-9a-fA-F]{1,8})")
_HEX = re.compile(rb"(?P<prefix>0[xX])?(?P<digits>[0-9a-fA-F]+)")
_DECIMAL = re.compile(
    rb"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE
)
_HEADER = re.compile(rb"TRT-(?P<code>[1-9][0-9]{3,5})-(?P<algorithm>[A-Za-z0-9]+)")
_LEGACY = re.compile(
    rb"[0-9](?P<blank> ?)(?P<quantile>[0-9a-f]{16})(?P=blank)(?P<cutoff>[0-9a-f]{16})"
)


@dataclass(frozen=True, slots=True)
class LegacyHeader:
    """The first line of a Legacy calibrator's table, which names no TensorRT.

    Seen as `0 3ff0000000000000 3fefffeb074a771d` (TensorRT 7) and, run together, as
    `03ff00000000000003feffffde7210be9` (a table shipped with 6.0.1): doubles, big-endian.
    """

    text: str
    quantile: float
    cutoff: float


@dataclass(frozen=True, slots=True)
class DocumentEntry:
    """A line that names a tensor, however oddly its scale is spelled."""

    tensor: str
    bits: str  # exactly as in the file: "3c010a14", "0x3C010A14", "0.0078"
    line: int

    @property
    def scale(self) -> float | None:
        """Real units per INT8 step; `None` where the file holds no float32 in hex."""
        match = _LENIENT_BITS.fullmatch(self.bits)
        if match is None:
            return None
        value: float = struct.unpack(">f", int(match["digits"], 16).to_bytes(4, "big"))[0]
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """Something in the file that TensorRT would not have written, and the line where it begins.

    Errors stand for what nobody can tell the meaning of; warnings for what `cache_of` sets right.
    """

    line: int
    rule: str
    severity: Severity
    subject: str
    what: str
    remedy: str

    @property
    def finding(self) -> Finding:
        """The oddity as a finding, which tells its line in words."""
        return Finding(
            rule=self.rule,
            severity=self.severity,
            subject=self.subject,
            message=f"line {self.line}: {self.what}",
            remedy=self.remedy,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A calibration cache as it lies on disk, duplicates and oddities included."""

    data: bytes
    header: Header | LegacyHeader | None
    """`None` where there is none, or none that can be read."""
    header_text: str
    """The first line as in the file, without its line end; empty if an entry stands there."""
    entries: tuple[DocumentEntry, ...]
    oddities: tuple[Oddity, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is odd about the file, by line."""
        return tuple(oddity.finding for oddity in self.oddities)


def read_document(data: bytes, *, source: str) -> Document:
    """Read a calibration cache as it is.

    Raises
    ------
    CacheFormatError
        If this is no calibration cache at all: a thousand oddities, or no header and fewer entries
        than other lines.
    """
    reader = _Reader(data, source)
    reader.read()
    return Document(
        data=data,
        header=reader.header,
        header_text=reader.header_text,
        entries=tuple(reader.entries),
        oddities=reader.all_oddities(),
    )


def cache_of(document: Document, *, source: str) -> CalibrationCache:
    """Give the strict value of a document, setting right what has only one meaning.

    Raises
    ------
    CacheFormatError
        If a line has no meaning or contradicts another, or no line says which TensorRT it is for.
    """
    if isinstance(document.header, LegacyHeader):
        raise CacheFormatError(
            f"a Legacy calibrator's table does not say its TensorRT: {document.header.text!r}",
            where=f"{source}:1",
            remedy="recalibrate with entropy2: a Legacy table fits only the device it was made on",
        )
    entries = entries_of(document, source=source)
    if document.header is None:
        raise AssertionError("a document without a header has an error that says so")
    return CalibrationCache(header=document.header, entries=entries)


def entries_of(document: Document, *, source: str) -> tuple[Entry, ...]:
    """Give the entries of a document of either header, setting right what has only one meaning.

    That is: line ends and blanks, blank lines, `0x` and upper case, a tensor named twice with the
    same scale, a missing newline after a whole entry.

    Raises
    ------
    CacheFormatError
        If a line has no meaning or contradicts another.
    """
    for oddity in document.oddities:
        if oddity.severity is Severity.ERROR:
            raise CacheFormatError(
                oddity.what, where=f"{source}:{oddity.line}", remedy=oddity.remedy
            )
    entries: dict[str, Entry] = {}
    for entry in document.entries:
        match = _LENIENT_BITS.fullmatch(entry.bits)
        if match is None:
            raise AssertionError("an entry without a scale has an error that says so")
        entries.setdefault(entry.tensor, Entry(entry.tensor, match["digits"].lower()))
    return tuple(entries.values())


@dataclass(slots=True)
class _Count:
    """An oddity that may hit every line, and is told once."""

    what: str
    remedy: str
    first: int = 0
    lines: int = 0

    def meet(self, line: int) -> None:
        self.first = self.first or line
        self.lines += 1

    def oddity(self, rule: str) -> Oddity:
        more = self.lines - 1
        others = f"; so {'do' if more > 1 else 'does'} {more} more" if more else ""
        return Oddity(
            line=self.first,
            rule=rule,
            severity=Severity.WARNING,
            subject=f"line {self.first}",
            what=self.what + others,
            remedy=self.remedy,
        )


def _counts() -> dict[str, _Count]:
    return {
        "crlf": _Count(
            "ends in CR LF, as editors on Windows write it",
            "end lines with LF, and copy the file as binary",
        ),
        "trailing-blank": _Count("ends in a blank", "take the blanks off the end of lines"),
        "blank-line": _Count("holds nothing", "take the blank lines out"),
        "hex-prefix": _Count(
            "writes 0x before the hex digits", "write the digits alone: '3c010a14'"
        ),
        "upper-case-hex": _Count(
            "writes hex digits in upper case", "write them in lower case, as TensorRT does"
        ),
        "colon-blank": _Count(
            "separates tensor and scale by something else than a colon and one blank",
            "write 'tensor: 3c010a14', with one blank after the colon",
        ),
    }


@dataclass(slots=True)
class _Reader:
    """One pass over the bytes, without a list of lines: junk may hold millions of them."""

    data: bytes
    source: str
    header: Header | LegacyHeader | None = None
    header_text: str = ""
    entries: list[DocumentEntry] = field(default_factory=list)
    oddities: list[Oddity] = field(default_factory=list)
    counts: dict[str, _Count] = field(default_factory=_counts)
    seen: dict[str, DocumentEntry] = field(default_factory=dict)
    begun: bool = False
    headed: bool = False
    spent: int = 0
    strange: int = 0
    first_strange: tuple[int, str] = (1, "")

    def read(self) -> None:
        data, seen, entries = self.data, self.seen, self.entries
        start = number = 0
        if data.startswith(_BYTE_ORDER_MARK):
            start = len(_BYTE_ORDER_MARK)
            self._odd(
                1,
                "byte-order-mark",
                "begins with a byte order mark, as editors on Windows write it",
                severity=Severity.WARNING,
                remedy="save it as UTF-8 without a byte order mark",
            )
        size = len(data)
        while start < size:
            number += 1
            # split at "\n" only: names hold form feeds, carriage returns and U+2028
            end = data.find(b"\n", start)
            if end < 0:
                end = size
            colon = data.rfind(b": ", start, end)  # names may hold ": ", the last one counts
            if self.begun and colon > start and _STRICT_BITS.fullmatch(data, colon + 2, end):
                # the way of nearly every line
                tensor = data[start:colon].decode("utf-8", "surrogateescape")
                entry = DocumentEntry(tensor, data[colon + 2 : end].decode("ascii"), number)
                entries.append(entry)
                if seen.setdefault(tensor, entry) is not entry:
                    self._duplicate(entry)
            else:
                self._line(data[start:end], number)
            start = end + 1
        self._end(number)

    def all_oddities(self) -> tuple[Oddity, ...]:
        counted = [one.oddity(rule) for rule, one in self.counts.items() if one.lines]
        return tuple(sorted((*self.oddities, *counted), key=lambda one: one.line))

    def _line(self, raw: bytes, number: int) -> None:
        """Read a line that is not in the form TensorRT writes, or is the first."""
        line = raw.rstrip(b" \t\r")
        if not line:
            self._spend(number)
            self.counts["blank-line"].meet(number)
            return
        blanks = raw[len(line) :]
        if blanks.endswith(b"\r"):
            self.counts["crlf"].meet(number)
            blanks = blanks[:-1]
        first, self.begun = not self.begun, True
        if first and self._head(line, line + blanks, number):
            return
        if self._entry(line, number):
            if blanks:
                self.counts["trailing-blank"].meet(number)
            return
        self._strange(number, line)
        self._odd(
            number,
            "unreadable-line",
            f"expected a tensor and its scale in hex, found {_quote(line + blanks)}",
            remedy="recalibrate; a truncated or hand-edited cache is not worth saving",
        )

    def _head(self, line: bytes, whole: bytes, number: int) -> bool:
        """Read the first line, if it is no entry; `whole` has the blanks at its end."""
        text = whole[:_LONGEST_HEADER].decode("utf-8", "surrogateescape")
        if match := _HEADER.fullmatch(line):
            self.header = Header(int(match["code"]), match["algorithm"].decode("ascii"))
        elif match := _LEGACY.fullmatch(line):
            doubles = bytes.fromhex((match["quantile"] + match["cutoff"]).decode("ascii"))
            self.header = LegacyHeader(text, *struct.unpack(">dd", doubles))
        elif _split(line) is not None:
            self._odd(
                number,
                "header-missing",
                f"expected a header like 'TRT-8502-EntropyCalibration2', found {_quote(line)}",
                remedy=_HEADER_REMEDY,
            )
            return False
        elif len(whole) > _LONGEST_HEADER:
            raise self._refusal(number, f"found {_quote(line)}")
        self.header_text = text
        self.headed = self.header is not None or line.startswith(b"TRT-")
        if not self.headed:
            self._strange(number, line)
        if self.header is None or line != whole:
            self._odd(
                number,
                "header-form",
                f"expected a header like 'TRT-8502-EntropyCalibration2', found {_quote(whole)}",
                severity=Severity.ERROR if self.header is None else Severity.WARNING,
                remedy=_HEADER_REMEDY
                if self.header is None
                else "take the blanks off the end of the header",
            )
        return True

    def _entry(self, line: bytes, number: int) -> bool:
        """Read an entry in any spelling."""
        parts = _split(line)
        if parts is None:
            return False
        name, value, usual = parts
        entry = DocumentEntry(
            name.decode("utf-8", "surrogateescape"), value.decode("ascii"), number
        )
        self.entries.append(entry)
        if match := _HEX.fullmatch(value):
            if not usual:
                self.counts["colon-blank"].meet(number)
            if match["prefix"]:
                self.counts["hex-prefix"].meet(number)
            if len(match["digits"]) > _DIGITS:
                self._odd(
                    number,
                    "wide-hex",
                    f"expected at most 8 hex digits, found {_quote(value)}",
                    subject=entry.tensor,
                    remedy="write the scale as a float32; 16 digits may be a float64",
                )
            elif match["digits"] != match["digits"].lower():
                self.counts["upper-case-hex"].meet(number)
        else:
            self._odd(
                number,
                "decimal-scale",
                f"expected the scale's float32 bits in hex, found the decimal {_quote(value)}",
                subject=entry.tensor,
                remedy="recalibrate, or read the file as what it is: 'edgecal cache convert' takes "
                "dynamic-range text",
            )
        if self.seen.setdefault(entry.tensor, entry) is not entry:
            self._duplicate(entry)
        return True

    def _duplicate(self, entry: DocumentEntry) -> None:
        first = self.seen[entry.tensor]
        same = _number(first.bits) == _number(entry.bits)
        self._odd(
            entry.line,
            "duplicate-tensor",
            f"names {_quote(entry.tensor)} again, with {entry.bits!r}; line {first.line} has "
            + ("the same" if same else repr(first.bits)),
            subject=entry.tensor,
            severity=Severity.WARNING if same else Severity.ERROR,
            remedy="take one of the two lines out"
            if same
            else "recalibrate: nothing tells which of the two scales is meant",
        )

    def _end(self, number: int) -> None:
        """Judge whether it was a cache, and how it ends."""
        if not self.headed and self.strange >= len(self.entries):
            line, found = self.first_strange
            raise self._refusal(line, f"found {found}" if found else "it is empty")
        self.spent = 0  # it was one: what its end lacks is told in any case
        if not self.entries:
            self._odd(
                number,
                "no-tensors",
                "the file ends after its header, without a single tensor",
                severity=Severity.WARNING,
                remedy="copy the file again, or recalibrate",
            )
        if self.data.endswith(b"\n"):
            return
        last = self.entries[-1] if self.entries else None
        # a usable scale has eight digits (fewer: under 1e-28), a zero is "0": less was cut off
        if last is not None and last.line == number and _cut(last.bits):
            self._odd(
                number,
                "cut-off",
                f"the file ends within a scale, after {last.bits!r}",
                subject=last.tensor,
                remedy="copy the file again, or recalibrate",
            )
        else:
            self._odd(
                number,
                "missing-newline",
                "the file ends without a newline; lines may be missing",
                severity=Severity.WARNING,
                remedy="compare with the original; copy it again if it is shorter",
            )

    def _strange(self, number: int, line: bytes) -> None:
        if not self.strange:
            self.first_strange = number, _quote(line)
        self.strange += 1

    def _odd(
        self,
        line: int,
        rule: str,
        what: str,
        *,
        remedy: str,
        subject: str = "",
        severity: Severity = Severity.ERROR,
    ) -> None:
        self._spend(line)
        self.oddities.append(
            Oddity(
                line=line,
                rule=rule,
                severity=severity,
                subject=subject or f"line {line}",
                what=what,
                remedy=remedy,
            )
        )

    def _spend(self, line: int) -> None:
        self.spent += 1
        if self.spent >= _MOST_ODDITIES:
            first = f", the first: {self.oddities[0].what}" if self.oddities else ""
            raise self._refusal(line, f"{self.spent} oddities up to this line{first}")

    def _refusal(self, line: int, why: str) -> CacheFormatError:
        return CacheFormatError(
            f"this is no calibration cache: {why}",
            where=f"{self.source}:{line}",
            remedy="pass the calibration cache, not the engine or the ONNX model",
        )


def _split(line: bytes) -> tuple[bytes, bytes, bool] | None:
    """Take name and value apart; the truth is whether a colon and one blank stand between them.

    Without any blank only what no name ends in is a value: in `input_1:0` the colon may belong to
    the name.
    """
    name, _, value = line.rpartition(b": ")
    if name and _is_value(value):
        return name, value, True
    name, _, rest = line.rpartition(b":")
    value = rest.lstrip(b" \t")
    if name and _is_value(value) and (value != rest or b"." in value or len(value) >= _DIGITS):
        return name, value, False
    return None


def _is_value(value: bytes) -> bool:
    return len(value) <= _LONGEST_VALUE and bool(_HEX.fullmatch(value) or _DECIMAL.fullmatch(value))


def _number(bits: str) -> int | str:
    match = _LENIENT_BITS.fullmatch(bits)
    return bits if match is None else int(match["digits"], 16)


def _cut(bits: str) -> bool:
    match = _LENIENT_BITS.fullmatch(bits)
    return match is not None and len(match["digits"]) < _DIGITS and match["digits"] != "0"


def _quote(text: bytes | str) -> str:
    if isinstance(text, bytes):
        # a character has at most four bytes: do not decode 100 MB to quote 60 characters
        text = text[: 4 * _QUOTED].decode("utf-8", "surrogateescape")
    return repr(text[:_QUOTED])
