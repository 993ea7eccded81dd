"""The composition root: the only place that picks adapters, each imported when it is needed."""
