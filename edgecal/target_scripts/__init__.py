"""What runs on a target: sh, and Python of the reference builder."""
