"""A pick of a study as a folder that runs elsewhere; ``edge`` and ``cloud`` have files that are copied as they are."""
