"""Nodes that stop answering: `lifecycle` notices and taints, `eviction` moves pods away from taints, `podgc` clears what is left behind."""
