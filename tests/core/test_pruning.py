"""What goes and what stays, whatever the history."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgecal.core.activations import Activation, previous_release
from edgecal.core.pruning import choose_doomed

RELEASES = [f"{number:016x}" for number in range(6)]


def line(action: str, release: str) -> Activation:
    return Activation(action=action, release=release, time="", by="", target_time_s=0)


histories = st.lists(
    st.builds(
        line,
        st.sampled_from(["activate", "rollback", "confirm", "deactivate"]),
        st.sampled_from(RELEASES),
    ),
    max_size=12,
)


@given(
    histories,
    st.none() | st.sampled_from(RELEASES),
    st.sets(st.sampled_from(RELEASES)),
    st.dictionaries(st.sampled_from(RELEASES), st.text("0123456789", min_size=1)),
    st.integers(0, 7),
)
def test_neither_the_active_release_nor_that_of_a_rollback_ever_goes(
    history: list[Activation],
    current: str | None,
    releases: set[str],
    built: dict[str, str],
    keep: int,
) -> None:
    doomed = {
        one.release
        for one in choose_doomed(
            name="net",
            current=current,
            releases=sorted(releases),
            built=built,
            activations=history,
            idle_jobs=[],
            keep=keep,
        )
    }
    assert doomed <= releases
    assert current not in doomed
    assert previous_release(history, current) not in doomed
    assert len(releases - doomed) >= min(keep, len(releases))


def test_the_newest_by_their_records_stay_and_those_without_one_go_first() -> None:
    chosen = choose_doomed(
        name="net",
        current=None,
        releases=RELEASES[:4],
        built={RELEASES[0]: "2026-03-01T", RELEASES[1]: "2026-01-01T", RELEASES[2]: "2026-02-01T"},
        activations=[],
        idle_jobs=[RELEASES[5]],
        keep=2,
    )
    assert [(one.kind, one.release) for one in chosen] == [
        ("releases", RELEASES[1]),
        ("releases", RELEASES[3]),
        ("jobs", RELEASES[5]),
    ]
