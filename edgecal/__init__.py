"""Calibrate INT8 networks on a host; let each target build, prove and activate its own engine."""

__version__ = "0.1.0"
