package config

import (
	"fmt"
	"sort"
	"strings"

	"github.com/spf13/pflag"
)

// A role is what a k3s process is: the flags of one are not all those of the other.
type Role string

const (
	Server Role = "server"
	Agent  Role = "agent"
)

// flags binds every option that does something in the stand-in to its field.
func (c *Config) flags(role Role) *pflag.FlagSet {
	fs := pflag.NewFlagSet("k3s "+string(role), pflag.ContinueOnError)
	fs.SortFlags = false
	text := func(p *string, name, short, usage string) { fs.StringVarP(p, name, short, *p, usage) }
	list := func(p *[]string, name, usage string) { fs.StringArrayVar(p, name, *p, usage) }
	flag := func(p *bool, name, usage string) { fs.BoolVar(p, name, *p, usage) }

	text(&c.File, "config", "c", "(config) load configuration from FILE")
	text(&c.DataDir, "data-dir", "d", "(data) folder to hold state")
	flag(&c.Debug, "debug", "(logging) turn on debug logs")
	text(&c.Token, "token", "t", "(cluster) shared secret used to join a server or agent to a cluster")
	text(&c.TokenFile, "token-file", "", "(cluster) file containing the token")
	text(&c.ServerURL, "server", "s", "(cluster) server to connect to, used to join a cluster")
	text(&c.NodeName, "node-name", "", "(agent/node) node name")
	list(&c.NodeIP, "node-ip", "(agent/networking) IPv4 address to advertise for the node")
	list(&c.NodeExternalIP, "node-external-ip", "(agent/networking) external IPv4 address to advertise for the node")
	list(&c.NodeLabels, "node-label", "(agent/node) registering the kubelet with a set of labels")
	list(&c.NodeTaints, "node-taint", "(agent/node) registering the kubelet with a set of taints")
	list(&c.KubeletArgs, "kubelet-arg", "(agent/flags) customized flag for the kubelet process")
	list(&c.KubeProxyArgs, "kube-proxy-arg", "(agent/flags) customized flag for the kube-proxy process")
	text(&c.FlannelIface, "flannel-iface", "", "(agent/networking) override the default flannel interface")
	text(&c.PrivateRegistry, "private-registry", "", "(agent/runtime) private registry configuration file")
	text(&c.PauseImage, "pause-image", "", "(agent/runtime) customized pause image for containerd")
	text(&c.Snapshotter, "snapshotter", "", "(agent/runtime) containerd snapshotter")
	flag(&c.ProtectKernelDefaults, "protect-kernel-defaults", "(agent/node) error if kernel tunables differ from the kubelet's defaults")
	flag(&c.PreferBundledBin, "prefer-bundled-bin", "(experimental) prefer bundled binaries over the host's")
	flag(&c.SELinux, "selinux", "(agent/node) enable SELinux in containerd")
	if role == Agent {
		return fs
	}
	text(&c.AgentToken, "agent-token", "", "(cluster) shared secret used to join agents to the cluster, but not servers")
	text(&c.AgentTokenFile, "agent-token-file", "", "(cluster) file containing the agent secret")
	flag(&c.ClusterInit, "cluster-init", "(cluster) initialize a new cluster using embedded etcd")
	list(&c.TLSSANs, "tls-san", "(listener) additional hostnames or addresses on the server's certificate")
	text(&c.BindAddress, "bind-address", "", "(listener) k3s bind address")
	text(&c.AdvertiseAddress, "advertise-address", "", "(listener) address that the API server advertises to members of the cluster")
	fs.IntVar(&c.Port, "https-listen-port", c.Port, "(listener) HTTPS listen port")
	text(&c.ClusterCIDR, "cluster-cidr", "", "(networking) network for pod addresses")
	text(&c.ServiceCIDR, "service-cidr", "", "(networking) network for service addresses")
	text(&c.NodePorts, "service-node-port-range", "", "(networking) port range of NodePort services")
	text(&c.ClusterDNS, "cluster-dns", "", "(networking) address of the cluster's DNS service")
	text(&c.ClusterDomain, "cluster-domain", "", "(networking) cluster domain")
	text(&c.FlannelBackend, "flannel-backend", "", "(networking) backend: none, vxlan or host-gw")
	text(&c.EgressSelectorMode, "egress-selector-mode", "", "(networking) agent, cluster, pod or disabled; compared between servers, otherwise without effect here")
	text(&c.Kubeconfig, "write-kubeconfig", "o", "(client) write the admin's kubeconfig to this file")
	text(&c.KubeconfigMode, "write-kubeconfig-mode", "", "(client) write kubeconfig with this mode")
	text(&c.KubeconfigGroup, "write-kubeconfig-group", "", "(client) write kubeconfig with this group")
	list(&c.Disable, "disable", "(components) do not deploy packaged components and delete any deployed ones")
	flag(&c.DisableNetworkPolicy, "disable-network-policy", "(components) disable the network policy controller")
	flag(&c.DisableKubeProxy, "disable-kube-proxy", "(components) disable running kube-proxy")
	flag(&c.DisableAgent, "disable-agent", "(components) do not run a local agent and register a local kubelet")
	flag(&c.SecretsEncryption, "secrets-encryption", "(db) enable secret encryption at rest")
	list(&c.APIServerArgs, "kube-apiserver-arg", "(flags) customized flag for the kube-apiserver")
	list(&c.ControllerArgs, "kube-controller-manager-arg", "(flags) customized flag for the kube-controller-manager process")
	list(&c.SchedulerArgs, "kube-scheduler-arg", "(flags) customized flag for the kube-scheduler process")
	list(&c.EtcdArgs, "etcd-arg", "(flags) customized flag for etcd, such as unsafe-no-fsync=true")
	text(&c.SnapshotDir, "etcd-snapshot-dir", "", "(db) directory to save snapshots to")
	text(&c.LocalStoragePath, "default-local-storage-path", "", "(storage) path for the local storage class")
	return fs
}

// names are the other spellings of options, by environment variable.
var environment = map[string]string{
	"K3S_CONFIG_FILE":       "config",
	"K3S_DATA_DIR":          "data-dir",
	"K3S_TOKEN":             "token",
	"K3S_TOKEN_FILE":        "token-file",
	"K3S_AGENT_TOKEN":       "agent-token",
	"K3S_AGENT_TOKEN_FILE":  "agent-token-file",
	"K3S_URL":               "server",
	"K3S_CLUSTER_INIT":      "cluster-init",
	"K3S_NODE_NAME":         "node-name",
	"K3S_KUBECONFIG_OUTPUT": "write-kubeconfig",
	"K3S_KUBECONFIG_MODE":   "write-kubeconfig-mode",
	"K3S_KUBECONFIG_GROUP":  "write-kubeconfig-group",
	"K3S_SELINUX":           "selinux",
}

// absent are options of the real k3s that this one refuses, because doing without them would not be the same.
var absent = map[string]string{
	"vpn-auth":                   "joining a VPN itself",
	"vpn-auth-file":              "joining a VPN itself",
	"datastore-endpoint":         "any datastore but embedded etcd",
	"embedded-registry":          "the embedded registry mirror",
	"docker":                     "any runtime but containerd",
	"container-runtime-endpoint": "any runtime but its own",
	"rootless":                   "rootless mode",
	"cluster-reset":              "resetting a cluster",
	"cluster-reset-restore-path": "restoring a snapshot",
	"etcd-s3":                    "snapshots in an object store",
}

// idle are options of the real k3s that change nothing here and harm nothing.
var idle = words(`v vmodule log alsologtostderr tls-san-security flannel-ipv6-masq flannel-external-ip servicelb-namespace
	helm-job-image etcd-expose-metrics etcd-disable-snapshots etcd-snapshot-name etcd-snapshot-schedule-cron
	etcd-snapshot-retention etcd-snapshot-compress disable-cloud-controller disable-helm-controller enable-pprof
	resolv-conf lb-server-port disable-apiserver-lb disable-default-registry-endpoint with-node-id
	system-default-registry supervisor-metrics kine-tls multus`)

// switches are those of the two lists above that take no value.
var switches = words(`embedded-registry docker rootless cluster-reset etcd-s3 alsologtostderr tls-san-security
	flannel-ipv6-masq flannel-external-ip etcd-expose-metrics etcd-disable-snapshots etcd-snapshot-compress
	disable-cloud-controller disable-helm-controller enable-pprof disable-apiserver-lb disable-default-registry-endpoint
	with-node-id supervisor-metrics kine-tls multus`)

func words(s string) map[string]bool {
	found := map[string]bool{}
	for _, word := range strings.Fields(s) {
		found[word] = true
	}
	return found
}

// Packaged are the names that `disable` takes.
var Packaged = []string{"coredns", "local-storage", "metrics-server", "runtimes", "servicelb", "traefik"}

func lacks(name string) error {
	if what, ok := absent[name]; ok {
		return fmt.Errorf("--%s: this k3s stands in for the real one and does not have %s", name, what)
	}
	return nil
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
