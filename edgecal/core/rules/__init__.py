"""Every rule about targets, bundles and their pairing: one rule, one pure function, one source."""
