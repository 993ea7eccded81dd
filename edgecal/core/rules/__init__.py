"""Every compatibility rule: one rule, one pure function, one source."""
