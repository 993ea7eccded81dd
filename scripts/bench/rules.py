"""Time of all rules on 1,000 targets, without a network and without a device.

Run it in the checkout, with the Python that has edgecal: `python scripts/bench/rules.py`. The
targets are every module of the tables with every TensorRT of a JetPack, with and without a DLA,
again and again until there are 1,000; the time is the best of five.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from typing import Final

from edgecal.adapters.tables import load_platforms
from edgecal.core.assumed import assume_target
from edgecal.core.build import BuildOptions
from edgecal.core.cache import Header
from edgecal.core.compat import (
    CACHE_RULES,
    RULES,
    CacheFacts,
    Pairing,
    check_pairing,
    choose_builder,
)
from edgecal.core.manifest import CoverageRecord
from edgecal.core.versions import parse_tensorrt

TARGETS: Final = 1000
RUNS: Final = 5


def make_pairings() -> list[Pairing]:
    """Pair a bundle for 10.3 with everything the tables hold."""
    platforms = load_platforms()
    tensorrt = parse_tensorrt("10.3.0")
    cache = CacheFacts(
        bundle="net",
        tensorrt=tensorrt,
        header=Header(code=100300, algorithm="EntropyCalibration2"),
        header_text="TRT-100300-EntropyCalibration2",
        coverage=CoverageRecord(activations=200, covered=199, constants=0, missing=("conv7",)),
        inputs=("image",),
        dynamic_inputs={"image": (-1, 3, 224, 224)},
    )
    releases = [one for one in platforms.releases if one.tensorrt is not None]
    pairings = []
    for module, release, dla in itertools.product(platforms.modules, releases, (None, 0)):
        target, facts = assume_target(
            platforms, device=module.slug, tensorrt=None, jetpack=release.jetpack, builder=None
        )
        pairings.append(
            Pairing(
                bundle="net",
                bundle_tensorrt=tensorrt,
                target=target,
                facts=facts,
                module=module,
                builder=choose_builder(facts, asked=None, tensorrt=tensorrt),
                options=BuildOptions(dla_core=dla),
                cache=cache,
                release=release,
                model_bytes=100 * 2**20,
                host=platforms.host_gpus[0],
                platforms=platforms,
            )
        )
    return list(itertools.islice(itertools.cycle(pairings), TARGETS))


def main() -> None:
    """Print the time of the fastest run."""
    pairings = make_pairings()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        found = sum(len(check_pairing(pair)) for pair in pairings)
        times.append(time.perf_counter() - began)
    rules = len(RULES) + len(CACHE_RULES)
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    print(f"{1000 * min(times):6.1f} ms  {len(pairings)} targets x {rules} rules, {found} findings")


if __name__ == "__main__":
    main()
