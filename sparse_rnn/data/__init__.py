"""Lightning data modules, one a file."""
