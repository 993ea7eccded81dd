"""The rollout machine: waves, gates and phases in pure code; the clock and the devices come in."""
