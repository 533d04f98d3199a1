"""Files of angles: a reader for each kind, and what they say of units, columns and missing values."""
