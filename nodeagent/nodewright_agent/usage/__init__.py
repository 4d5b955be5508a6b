"""What the node, its Pods and their containers use: read from cgroups, /proc and file systems.

``model`` are the values, ``collect`` reads them, ``disk`` counts files with a time budget, and keeps the counts.
"""
