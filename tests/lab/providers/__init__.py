"""Stand-ins for the Pulumi plugins `pulumi-resource-kubernetes` and `pulumi-resource-command`.

They are gRPC servers that the Pulumi engine attaches to by PULUMI_DEBUG_PROVIDERS, and they do for real what the plugins
do: against the cluster of the kubeconfig, on this machine, over SSH. What they leave out they refuse by name. They differ
knowingly in one thing: a Job is not waited for.
"""
