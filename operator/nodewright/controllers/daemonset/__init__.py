"""The DaemonSet controller: one pod per eligible node.

The rules are pure modules: `eligibility` (which nodes), `template` (the pod for a node), `manage` (create and
delete), `rollout` (replace old pods), `revisions` (history), `status`, `claims` (whose pods). `controller` reads
the caches, asks them, and lets `actions` and `history` do what they say. `kinds` names the API kinds it serves: our
own custom resource, and apps/v1 (`apps`), which differs in three constants. `caches` has what both look at.
"""
