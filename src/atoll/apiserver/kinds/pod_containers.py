"""Rules of containers: names, images, ports, environment, mounts, probes, hooks (kubernetes, ValidatePodSpec)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.resources import validate_container_resources

PROTOCOLS = ("SCTP", "TCP", "UDP")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_ENV_RESOURCES = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_SIDECAR_ONLY = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
_NOT_EPHEMERAL = ("ports", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "resizePolicy")

Object = Mapping[str, Any]


def validate_containers(spec: Object, path: str, causes: Causes) -> None:
    """All containers of a pod's spec."""
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    taken: set[str] = set()
    host_ports: set[str] = set()
    for field in ("containers", "initContainers", "ephemeralContainers"):
        if field == "containers" and not spec.get(field):
            causes.required(f"{path}.{field}")
        for index, container in enumerate(spec.get(field) or ()):
            at = f"{path}.{field}[{index}]"
            name = container.get("name") or ""
            if name in taken:
                causes.duplicate(f"{at}.name", name)
            taken.add(name)
            _validate_container(container, at, volumes, causes)
            _validate_host_ports(container, at, spec, host_ports if field == "containers" else set(), causes)
            _validate_place(field, container, at, spec, causes)


def _validate_container(container: Object, path: str, volumes: set[str], causes: Causes) -> None:
    if not container.get("name"):
        causes.required(f"{path}.name")
    else:
        causes.each(f"{path}.name", container["name"], names.label(container["name"]))
    image = container.get("image") or ""
    if not image:
        causes.required(f"{path}.image")
    elif image != image.strip():
        causes.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    causes.one_of(f"{path}.terminationMessagePolicy", container.get("terminationMessagePolicy"), ("FallbackToLogsOnError", "File"))
    if image:
        causes.one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), PULL_POLICIES)
    _validate_ports(container.get("ports") or (), f"{path}.ports", causes)
    for index, variable in enumerate(container.get("env") or ()):
        _validate_variable(variable, f"{path}.env[{index}]", causes)
    for index, source in enumerate(container.get("envFrom") or ()):
        _validate_environment_source(source, f"{path}.envFrom[{index}]", causes)
    _validate_mounts(container, path, volumes, causes)
    validate_container_resources(container.get("resources") or {}, f"{path}.resources", causes)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _validate_probe(container[name], f"{path}.{name}", name, causes)
    for name, hook in (container.get("lifecycle") or {}).items():
        if isinstance(hook, Mapping):
            _validate_handler(hook, f"{path}.lifecycle.{name}", _HOOK_HANDLERS, causes)
    security = container.get("securityContext") or {}
    if security.get("privileged") and security.get("allowPrivilegeEscalation") is False:
        causes.invalid(f"{path}.securityContext", security, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
    for name in ("runAsUser", "runAsGroup"):
        if name in security and security[name] < 0:
            causes.invalid(f"{path}.securityContext.{name}", security[name], "must be between 0 and 2147483647, inclusive")


def _validate_place(field: str, container: Object, path: str, spec: Object, causes: Causes) -> None:
    """What a container may not have for being an init or an ephemeral one."""
    policy = container.get("restartPolicy")
    if field == "initContainers" and policy != "Always":
        for name in _SIDECAR_ONLY:
            if name in container:
                causes.forbidden(f"{path}.{name}", "may not be set for init containers without restartPolicy=Always")
    if field == "ephemeralContainers":
        for name in _NOT_EPHEMERAL:
            if container.get(name):
                causes.forbidden(f"{path}.{name}", "cannot be set for an Ephemeral Container")
        if container.get("resources"):
            causes.forbidden(f"{path}.resources", "cannot be set for an Ephemeral Container")
        target = container.get("targetContainerName")
        if target and target not in {other.get("name") for other in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))}:
            causes.not_found(f"{path}.targetContainerName", target)
    elif policy is not None and policy not in ("Always", "Never", "OnFailure"):
        causes.unsupported(f"{path}.restartPolicy", policy, ("Always", "Never", "OnFailure"))


def _validate_ports(ports: Sequence[Object], path: str, causes: Causes) -> None:
    taken: set[str] = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        name = port.get("name")
        if name:
            causes.each(f"{at}.name", name, names.port_name(name))
            if name in taken:
                causes.duplicate(f"{at}.name", name)
            taken.add(name)
        number = port.get("containerPort")
        if not number:
            causes.required(f"{at}.containerPort")
        else:
            causes.each(f"{at}.containerPort", number, names.port_number(number))
        if port.get("hostPort"):
            causes.each(f"{at}.hostPort", port["hostPort"], names.port_number(port["hostPort"]))
        causes.one_of(f"{at}.protocol", port.get("protocol"), PROTOCOLS)


def _validate_host_ports(container: Object, path: str, spec: Object, taken: set[str], causes: Causes) -> None:
    for index, port in enumerate(container.get("ports") or ()):
        if not port.get("hostPort"):
            continue
        at = f"{path}.ports[{index}]"
        wanted = f"{port.get('protocol')}/{port.get('hostIP') or ''}/{port['hostPort']}"
        if wanted in taken:
            causes.duplicate(f"{at}.hostPort", wanted)
        taken.add(wanted)
        if spec.get("hostNetwork") and port["hostPort"] != port.get("containerPort"):
            causes.invalid(f"{at}.containerPort", port.get("containerPort"), "must match `hostPort` when `hostNetwork` is true")


def _validate_variable(variable: Object, path: str, causes: Causes) -> None:
    if not variable.get("name"):
        causes.required(f"{path}.name")
    else:
        causes.each(f"{path}.name", variable["name"], names.environment(variable["name"]))
    source = variable.get("valueFrom")
    if source is None:
        return
    at = f"{path}.valueFrom"
    given = [name for name in _SOURCES if name in source]
    if not given:
        causes.invalid(at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
    elif variable.get("value"):
        causes.invalid(at, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        causes.invalid(at, "", "may not have more than one field specified at a time")
    if "fieldRef" in source:
        validate_field_reference(source["fieldRef"], f"{at}.fieldRef", _ENV_FIELDS, causes)
    if "resourceFieldRef" in source:
        validate_resource_reference(source["resourceFieldRef"], f"{at}.resourceFieldRef", causes)
    for name in ("configMapKeyRef", "secretKeyRef"):
        if name in source:
            if not source[name].get("name"):
                causes.required(f"{at}.{name}.name")
            _validate_key(source[name], f"{at}.{name}", causes)


def validate_field_reference(reference: Object, path: str, fields: Sequence[str], causes: Causes) -> None:
    """metadata.labels['<key>'] and metadata.annotations['<key>'] are always supported."""
    field = reference.get("fieldPath") or ""
    if not field:
        causes.required(f"{path}.fieldPath")
    elif field.startswith(("metadata.labels['", "metadata.annotations['")) and field.endswith("']"):
        key = field[field.index("['") + 2 : -2]
        causes.each(f"{path}.fieldPath", key, names.qualified_name(key.lower() if "annotations" in field else key))
    elif field not in fields:
        causes.unsupported(f"{path}.fieldPath", field, sorted(fields))


def validate_resource_reference(reference: Object, path: str, causes: Causes) -> None:
    resource = reference.get("resource") or ""
    if not resource:
        causes.required(f"{path}.resource")
    elif resource not in _ENV_RESOURCES and not resource.startswith(("limits.hugepages-", "requests.hugepages-")):
        causes.unsupported(f"{path}.resource", resource, _ENV_RESOURCES)


def _validate_key(selector: Object, path: str, causes: Causes) -> None:
    if not selector.get("key"):
        causes.required(f"{path}.key")
    else:
        causes.each(f"{path}.key", selector["key"], names.config_key(selector["key"]))


def _validate_environment_source(source: Object, path: str, causes: Causes) -> None:
    given = [name for name in ("configMapRef", "secretRef") if name in source]
    if not given:
        causes.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
    elif len(given) > 1:
        causes.invalid(path, "", "may not have more than one field specified at a time")
    for name in given:
        if not source[name].get("name"):
            causes.required(f"{path}.{name}.name")
        else:
            causes.each(f"{path}.{name}.name", source[name]["name"], names.subdomain(source[name]["name"]))


def _validate_mounts(container: Object, path: str, volumes: set[str], causes: Causes) -> None:
    places: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        at = f"{path}.volumeMounts[{index}]"
        if not mount.get("name"):
            causes.required(f"{at}.name")
        elif mount["name"] not in volumes:
            causes.not_found(f"{at}.name", mount["name"])
        place = mount.get("mountPath") or ""
        if not place:
            causes.required(f"{at}.mountPath")
        elif place in places:
            causes.invalid(f"{at}.mountPath", place, "must be unique")
        places.add(place)
        for name in ("subPath", "subPathExpr"):
            if mount.get(name):
                validate_relative_path(mount[name], f"{at}.{name}", causes)
        if mount.get("subPath") and mount.get("subPathExpr"):
            causes.invalid(f"{at}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")


def validate_relative_path(value: str, path: str, causes: Causes) -> None:
    """Relative and never upwards."""
    if value.startswith("/"):
        causes.invalid(path, value, "must be a relative path")
    if ".." in value.split("/"):
        causes.invalid(path, value, "must not contain '..'")


def _validate_probe(probe: Object, path: str, name: str, causes: Causes) -> None:
    _validate_handler(probe, path, _HANDLERS, causes)
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        causes.non_negative(f"{path}.{field}", probe.get(field))
    if name != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        causes.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and name == "readinessProbe":
        causes.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must not be set for readinessProbes")
    elif grace is not None and grace <= 0:
        causes.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0")


def _validate_handler(handler: Object, path: str, kinds: Sequence[str], causes: Causes) -> None:
    given = [kind for kind in kinds if handler.get(kind) is not None]
    if not given:
        causes.required(path, "must specify a handler type")
    for extra in given[1:]:
        causes.forbidden(f"{path}.{extra}", "may not specify more than 1 handler type")
    if given[:1] == ["exec"] and not handler["exec"].get("command"):
        causes.required(f"{path}.exec.command")
    for kind in ("httpGet", "tcpSocket", "grpc"):
        if kind in given:
            _validate_port_reference(handler[kind].get("port"), f"{path}.{kind}.port", causes)
    http = handler.get("httpGet") or {}
    if http.get("scheme", "HTTP") not in ("HTTP", "HTTPS"):
        causes.unsupported(f"{path}.httpGet.scheme", http["scheme"], ("HTTP", "HTTPS"))
    for index, header in enumerate(http.get("httpHeaders") or ()):
        causes.each(f"{path}.httpGet.httpHeaders[{index}].name", header.get("name") or "", names.http_header(header.get("name") or ""))


def _validate_port_reference(port: int | str | None, path: str, causes: Causes) -> None:
    if isinstance(port, str):
        causes.each(path, port, names.port_name(port))
    else:
        causes.each(path, port or 0, names.port_number(port or 0))
