"""A short file per benchmark: names, categories, data layout, citation. What two of them share belongs to the family."""
