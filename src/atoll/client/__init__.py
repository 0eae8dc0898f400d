"""Being a client of the Kubernetes API: the `Client` protocol, resources, informers, work queues, leader election, events.

Import from the modules; this page only names them:

- `protocol`: `Client`, and the questions asked of its errors
- `resources`: `Resource` and a constant for every built-in one; `objects`: reading metadata; `selectors`: label selectors
- `http`: `HttpClient`, the protocol over TLS; `kubeconfig`: where the server is and who we are
- `informer`, `factory`: local indexed copies kept by watch; `workqueue`: keys with backoff
- `recorder`: events; `leaderelection`: one active among many, by a Lease
"""
