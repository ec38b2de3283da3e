"""What can be searched: recipes, the space they are drawn from, and the starting points, without torch or ray."""
