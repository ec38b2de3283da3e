"""A pick of a study as a folder that runs elsewhere; ``edge`` has the files that are copied into it as they are."""
