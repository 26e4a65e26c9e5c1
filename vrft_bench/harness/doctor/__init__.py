"""What ``vrft-bench doctor`` looks at: the environment, whether the model loads, and which coordinates it speaks."""
