"""Static Pods: run from files of the host, and shown in the API by mirror Pods (upstream's pkg/kubelet/config).

* ``defaults`` and ``manifest`` are the pure part: a file's bytes to a Pod, as the API server would default it.
* ``folder`` reads and watches the files.
* ``manager`` has the node run exactly what the files say.
* ``mirrors`` keeps the Pods in the API that stand for them.
"""
