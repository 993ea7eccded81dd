"""Rollouts on the command line: one Python module per command, or per few that are alike."""
