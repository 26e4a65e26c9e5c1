"""Model backends: a file each. Heavy libraries are imported inside the class that needs them."""
