"""Admission webhooks: what they match by default, and how long they may take."""

from __future__ import annotations

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.admissionpolicy import check_conditions, default_matching
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

TIMEOUT_S, TIMEOUT_MAX_S = 10, 30
_SIDE_EFFECTS = ("None", "NoneOnDryRun")


class WebhookConfigurationRules(Rules):
    counts_generations = True
    mutating = False

    def default(self, obj: Object) -> None:
        for hook in obj.get("webhooks") or ():
            hook.setdefault("failurePolicy", "Fail")
            hook.setdefault("timeoutSeconds", TIMEOUT_S)
            if self.mutating:
                hook.setdefault("reinvocationPolicy", "Never")
            default_matching(hook, "rules")
            default_client(hook.get("clientConfig"))

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        taken: set[str] = set()
        for index, hook in enumerate(obj.get("webhooks") or ()):
            path = f"webhooks[{index}]"
            name = hook.get("name") or ""
            causes.each(f"{path}.name", name, names.subdomain(name))
            if name.count(".") < 2:
                causes.invalid(f"{path}.name", name, "should be a domain with at least three segments separated by dots")
            if name in taken:
                causes.duplicate(f"{path}.name", name)
            taken.add(name)
            causes.one_of(f"{path}.sideEffects", hook.get("sideEffects"), _SIDE_EFFECTS)
            causes.one_of(f"{path}.failurePolicy", hook.get("failurePolicy"), ("Fail", "Ignore"))
            if not hook.get("admissionReviewVersions"):
                causes.required(f"{path}.admissionReviewVersions", "must specify one of v1, v1beta1")
            seconds = hook.get("timeoutSeconds", TIMEOUT_S)
            if not 1 <= seconds <= TIMEOUT_MAX_S:
                causes.invalid(f"{path}.timeoutSeconds", seconds, "the timeout value must be between 1 and 30 seconds")
            check_client(hook.get("clientConfig") or {}, f"{path}.clientConfig", causes)
            check_conditions(hook.get("matchConditions"), f"{path}.matchConditions", causes)


def default_client(client: Object | None) -> None:
    service = (client or {}).get("service")
    if service is not None:
        service.setdefault("port", 443)


def check_client(client: ReadOnly, path: str, causes: Causes) -> None:
    """A WebhookClientConfig, of admission and of conversion alike."""
    if ("url" in client) == ("service" in client):
        causes.required(path, "exactly one of url or service is required")


class MutatingWebhookConfigurationRules(WebhookConfigurationRules):
    mutating = True


VALIDATING, MUTATING = WebhookConfigurationRules(), MutatingWebhookConfigurationRules()
