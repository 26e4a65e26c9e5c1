"""A short file per benchmark: names, categories, data layout, citation. What two share belongs to the family."""
