"""What is seen of a study while it runs: in the terminal, on a local page, in a file, and in other people's tools."""
