"""The parts of a recipe, one file a field; parts that exclude one another are types of one union."""
