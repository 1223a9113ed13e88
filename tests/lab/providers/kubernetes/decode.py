"""`kubernetes:yaml:decode`: how ConfigFile and ConfigGroup of the SDK turn manifests into resources."""

import yaml
from tests.lab.providers.kubernetes.api import Cluster, NoMatch, Unreachable
from tests.lab.providers.kubernetes.check import place
from tests.lab.providers.kubernetes.objects import kind_of, manifests
from tests.lab.providers.provider import Refused
from tests.lab.providers.wire import Tree


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a date stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def decode(text: str, namespace: str, cluster: Cluster | None) -> list[Tree]:
    """The objects in a stream of YAML documents, with the namespace where they belong in one and name none.

    A kind that the cluster does not know yet is taken to be namespaced, as there. Raises Refused on broken YAML.
    """
    try:
        found = manifests(yaml.load_all(text, _Loader))
    except yaml.YAMLError as fault:
        raise Refused(f"cannot read the YAML: {fault}") from fault
    return [place(obj, bool(namespace) and is_namespaced(cluster, obj), namespace) for obj in found]


def is_namespaced(cluster: Cluster | None, obj: Tree) -> bool:
    """Does an object of this kind live in a namespace? Yes, when nobody can tell."""
    if cluster is None:
        return True
    try:
        return cluster.resource(kind_of(obj)).namespaced
    except (NoMatch, Unreachable):
        return True
