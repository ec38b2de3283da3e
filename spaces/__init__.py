"""What can be searched: recipes, the space they are drawn from, and the starting points. Imports neither torch nor ray."""
