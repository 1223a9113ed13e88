"""The stand-in for pulumi-resource-command."""
