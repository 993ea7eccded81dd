"""One outside thing each, behind one port."""
