"""The command line. `main` knows the commands; each has a file of its own."""
