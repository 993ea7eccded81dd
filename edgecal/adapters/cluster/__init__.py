"""Dask distributed: what reaches a cluster of it, and what a worker of edgecal's is."""
