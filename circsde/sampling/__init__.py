"""From the horizon back to data, for angles and images alike: reverse solves, start laws, editing, diagnosis."""
