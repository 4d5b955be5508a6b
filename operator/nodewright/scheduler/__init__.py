"""The scheduler: a drop-in for kube-scheduler that looks at every node, in arrays.

The way of a Pod:

    watch -> core.on_pod -> queue -> evaluation -> binder -> API server
                                        |             `-> announcer (Scheduled event, later)
                                        `-> diagnosis -> conditions, warnings (FailedScheduling)

- `objects`, `requests`, `pods`: what is read of Pods and Nodes, how much a Pod asks for, facts per Pod template
- `state`: the cluster as arrays, with a journal of what changed
- `plugin`, `plugins/`, `registry`: the plugin contract, the built-in plugins, the table that names them
- `profile`, `profiles`: which plugins decide for a schedulerName; SchedulerProfile objects, followed live
- `cycle`, `evaluation`, `diagnosis`: the steps of a decision, kept from Pod to Pod, and the words when there is no node
- `queue`, `events`: who is next, and what wakes a Pod that could not be placed
- `core`: all of the above in one object without I/O; `service` and `process` are the shell around it
- `explain`: the same plugins, asked for a table instead of a decision
"""
