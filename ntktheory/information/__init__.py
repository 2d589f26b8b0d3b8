"""Information that a mask carries about its data, and what follows from it (No Free Prune)."""
