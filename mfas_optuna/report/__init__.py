"""Tables and verdict of a study, from its database alone."""
