"""What runs a split model: as a folder of its own it needs no more of this project."""
