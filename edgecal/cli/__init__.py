"""The command line: typer in, exit code out."""
