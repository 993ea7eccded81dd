"""Commands on calibration caches as files: one module each, put together in `group`."""
