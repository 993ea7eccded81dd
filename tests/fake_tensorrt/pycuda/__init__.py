"""A stand-in for pycuda: see README.md beside this folder."""
