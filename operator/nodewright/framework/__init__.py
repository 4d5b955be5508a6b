"""The operator framework: what a controller needs besides its own rules.

Names, each explained once (docs/writing-a-controller.md has an example):

- *cache*: `nodewright.kube.cache.WatchCache`, a list+watch copy of one resource. Handlers of caches only compute keys.
- *queue* (`queue.WorkQueue`): keys waiting for work; a key is there once, and is never worked on twice at the same
  time.
- *controller* (`controller.Controller`): caches + queue + `reconcile(key)`, which looks at everything as it is now
  and acts.
- *guard* (`consistency.ConsistencyGuard`): holds a key back until the caches show the controller's own last writes.
- *elector* (`leader.LeaderElector`): one active process per Lease.
- *process* (`process.run`): kopf's operator around all of it: start, credentials, custom resources, stop.
"""
