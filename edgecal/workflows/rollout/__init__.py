"""Rollouts: the plan, the driver that obeys the machine, and the work on one device."""
