"""In-place resize (KEP-1287): what a pod asks for, what it was given, and what its containers have.

*Desired* is the API's spec, *allocated* what the node has granted (the spec in the pod's record, which every other
part works with), *actual* what a run has (its runtime record). ``manager`` allocates, ``plan`` orders the writes,
``actuate`` does them; a killed agent goes on from record and runtime, since each step can be repeated.
"""
