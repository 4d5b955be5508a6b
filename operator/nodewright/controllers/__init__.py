"""The controllers, one folder each; `registry` lists them."""
