"""Every command there is: name, the module that holds it, and its line in `atoll --help`.

Modules are named, not imported: a verb's module is loaded when the verb is typed. `module:function` gives a `Command`; functions take no
argument.
"""

from __future__ import annotations

CONTAINER = {
    "attach": ("attach:attach", "Attach local standard input, output, and error streams to a running container"),
    "commit": ("images:commit", "Create a new image from a container's changes"),
    "cp": ("copy:copy", "Copy files/folders between a container and the local filesystem"),
    "create": ("create:create", "Create a new container"),
    "diff": ("containers:diff", "Inspect changes to files or directories on a container's filesystem"),
    "exec": ("exec:execute", "Execute a command in a running container"),
    "export": ("images:export", "Export a container's filesystem as a tar archive"),
    "kill": ("lifecycle:kill", "Kill one or more running containers"),
    "logs": ("logs:logs", "Fetch the logs of a container"),
    "pause": ("lifecycle:pause", "Pause all processes within one or more containers"),
    "port": ("containers:port", "List port mappings or a specific mapping for the container"),
    "rename": ("lifecycle:rename", "Rename a container"),
    "restart": ("lifecycle:restart", "Restart one or more containers"),
    "rm": ("lifecycle:remove", "Remove one or more containers"),
    "run": ("create:run", "Create and run a new container from an image"),
    "start": ("attach:start", "Start one or more stopped containers"),
    "stats": ("stats:stats", "Display a live stream of container(s) resource usage statistics"),
    "stop": ("lifecycle:stop", "Stop one or more running containers"),
    "top": ("containers:top", "Display the running processes of a container"),
    "unpause": ("lifecycle:unpause", "Unpause all processes within one or more containers"),
    "update": ("lifecycle:update", "Update configuration of one or more containers"),
    "wait": ("lifecycle:wait", "Block until one or more containers stop, then print their exit codes"),
}
IMAGE = {
    "build": ("build:build", "Build an image from a Dockerfile"),
    "history": ("images:history", "Show the history of an image"),
    "import": ("images:import_", "Import the contents from a tarball to create a filesystem image"),
    "load": ("images:load", "Load an image from a tar archive or STDIN"),
    "pull": ("registry:pull", "Download an image from a registry"),
    "push": ("registry:push", "Upload an image to a registry"),
    "save": ("images:save", "Save one or more images to a tar archive (streamed to STDOUT by default)"),
    "tag": ("images:tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
}
TOP = {
    **CONTAINER,
    **IMAGE,
    "events": ("system:events", "Get real time events from the engine"),
    "images": ("images:listing", "List images"),
    "info": ("system:info", "Display system-wide information"),
    "inspect": ("inspect:inspect", "Return low-level information on Docker objects"),
    "login": ("registry:login", "Authenticate to a registry"),
    "logout": ("registry:logout", "Log out from a registry"),
    "ps": ("containers:listing", "List containers"),
    "rmi": ("images:remove", "Remove one or more images"),
    "search": ("search:search", "Search Docker Hub for images"),
    "version": ("system:version", "Show the version information"),
    # Atoll's own
    "__complete": ("completion:complete", "Print what the last word could become"),
    "completion": ("completion:completion", "Print the completion script of a shell"),
    "compose": ("tools:compose", "Define and run multi-container applications (the genuine docker compose)"),
    "doctor": ("doctor:doctor", "Tell what this machine allows, what is missing, and what to do"),
    "env": ("env:env", "Print the settings that make docker, kubectl and minikube commands use this instance"),
    "kubectl": ("tools:kubectl", "Control the cluster (the genuine kubectl)"),
}
GROUPS = {
    "container": (
        {
            **CONTAINER,
            "inspect": ("inspect:container", "Display detailed information on one or more containers"),
            "ls": ("containers:listing", "List containers"),
            "list": ("containers:listing", "List containers"),
            "ps": ("containers:listing", "List containers"),
            "prune": ("containers:prune", "Remove all stopped containers"),
        },
        "Manage containers",
    ),
    "image": (
        {
            **IMAGE,
            "bootstrap": ("images:bootstrap", "Make a base image from a distribution's own packages"),
            "fsck": ("imagecare:fsck", "Check that all images are on disk and are what their digests say"),
            "inspect": ("inspect:image", "Display detailed information on one or more images"),
            "ls": ("images:listing", "List images"),
            "list": ("images:listing", "List images"),
            "prune": ("images:prune", "Remove unused images"),
            "rm": ("images:remove", "Remove one or more images"),
            "why": ("imagecare:why", "Tell what each instruction of an image added, and what is hidden but still carried"),
        },
        "Manage images",
    ),
    "network": (
        {
            "connect": ("network:connect", "Connect a container to a network"),
            "create": ("network:create", "Create a network"),
            "disconnect": ("network:disconnect", "Disconnect a container from a network"),
            "inspect": ("inspect:network", "Display detailed information on one or more networks"),
            "ls": ("network:listing", "List networks"),
            "prune": ("network:prune", "Remove all unused networks"),
            "rm": ("network:remove", "Remove one or more networks"),
        },
        "Manage networks",
    ),
    "volume": (
        {
            "create": ("volume:create", "Create a volume"),
            "inspect": ("inspect:volume", "Display detailed information on one or more volumes"),
            "ls": ("volume:listing", "List volumes"),
            "prune": ("volume:prune", "Remove unused local volumes"),
            "rm": ("volume:remove", "Remove one or more volumes"),
        },
        "Manage volumes",
    ),
    "context": (
        {
            "create": ("context:create", "Create a context"),
            "export": ("context:export", "Export a context to a tar archive FILE or a tar stream on STDOUT"),
            "import": ("context:import_", "Import a context from a tar file"),
            "inspect": ("context:inspect", "Display detailed information on one or more contexts"),
            "ls": ("context:listing", "List contexts"),
            "list": ("context:listing", "List contexts"),
            "rm": ("context:remove", "Remove one or more contexts"),
            "show": ("context:show", "Print the name of the current context"),
            "update": ("context:update", "Update a context"),
            "use": ("context:use", "Set the current context"),
        },
        "Manage contexts: engines by name",
    ),
    "system": (
        {
            "df": ("disk:disk", "Show disk usage"),
            "dial-stdio": ("dial:dial", "Proxy the stdio stream to the engine's socket: how ssh:// reaches it"),
            "events": ("system:events", "Get real time events from the engine"),
            "info": ("system:info", "Display system-wide information"),
            "prune": ("system:prune", "Remove unused data"),
        },
        "Manage the engine's data",
    ),
    "builder": (
        {"build": ("build:build", "Build an image from a Dockerfile"), "prune": ("build:prune", "Remove build cache")},
        "Manage builds",
    ),
    "registry": (
        {
            "fsck": ("registryserver:fsck", "Check that all of a registry's content is sound"),
            "gc": ("registryserver:gc", "Delete what nothing in a registry refers to"),
            "serve": ("registryserver:serve", "Serve a registry until interrupted"),
        },
        "Manage a registry of your own",
    ),
    "engine": (
        {
            "logs": ("engine:logs", "Show the engine's own log"),
            "restart": ("engine:restart", "Restart the engine; containers run on"),
            "start": ("engine:start", "Start the engine"),
            "status": ("engine:status", "Tell whether the engine runs, and where"),
            "stop": ("engine:stop", "Stop all containers and the engine"),
        },
        "Manage the engine",
    ),
    "cluster": (
        {
            "addon": ("cluster:addon", "Start an add-on of the cluster, or stop it: registry"),
            "dashboard": ("cluster:dashboard", "Open the cluster's web page"),
            "delete": ("cluster:delete", "Delete the cluster and all its data"),
            "ip": ("cluster:ip", "Print the node's address"),
            "restore": ("cluster:restore", "Put a snapshot's objects in the place of the stopped cluster's"),
            "snapshot": ("cluster:snapshot", "Copy the cluster's objects to a file, while it runs"),
            "start": ("cluster:start", "Start a cluster, and make kubectl use it"),
            "status": ("cluster:status", "Tell the state of the cluster's parts"),
            "stop": ("cluster:stop", "Stop the cluster; its data stays"),
        },
        "Manage the Kubernetes cluster",
    ),
}
PASS_THROUGH = frozenset({"compose", "kubectl"})  # every word after these belongs to the genuine program
