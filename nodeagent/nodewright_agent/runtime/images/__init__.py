"""Container images: names, registries, archives, and a store of unpacked layers that agents on one machine share.

`store.ImageStore` is the entry point. Nothing is imported here: the command line starts faster, and the confined
unpacking process must not load a registry client.
"""
