"""What the bundled tiny model is made of, and how it learns: see ``scripts/train_tiny_model.py``."""
