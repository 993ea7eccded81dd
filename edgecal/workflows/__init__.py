"""Use cases over core and ports; no adapter, no terminal."""
