"""Files that are copied into exports as they are. Each finds its task in the manifest beside it."""
