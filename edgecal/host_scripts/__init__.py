"""What runs on a host beside edgecal, in another Python: single files, Python 3.6 and later."""
