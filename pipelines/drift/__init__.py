"""Statistics of every feature, day by day, and what changed between the days."""
