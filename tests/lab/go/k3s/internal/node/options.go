// Package node runs what every k3s node runs: containerd, the kubelet, kube-proxy, flannel and the agent's load balancer.
package node

// Options say what one node is. A server and an agent differ in them, not in the code.
//
// The server answers the node under ServerURL, with basic auth `node:<password>`:
//
//	GET  /cacerts                               the cluster's CA, PEM; no auth
//	GET  /v1-k3s/client-ca.crt, server-ca.crt   PEM
//	GET  /v1-k3s/config                         JSON, see bootstrap.Cluster
//	GET  /v1-k3s/apiservers                     JSON list of "host:port"
//	POST /v1-k3s/client-kubelet.crt             system:node:<name>, group system:nodes
//	POST /v1-k3s/serving-kubelet.crt            system:node:<name>, SANs: localhost, 127.0.0.1, the name, K3s-Node-IP
//	POST /v1-k3s/client-kube-proxy.crt          system:kube-proxy
//	POST /v1-k3s/client-k3s-controller.crt      system:k3s-controller: flannel, node addresses and network policy
//
// A POST carries a PEM certificate request and the headers K3s-Node-Name and K3s-Node-IP; the answer is the PEM chain.
// system:k3s-controller may get, list, watch and patch nodes and nodes/status, and get, list and watch pods, namespaces,
// services, endpoints, endpointslices and networkpolicies.
type Options struct {
	DataDir  string // default /var/lib/rancher/k3s
	NodeName string // default: the host's name, in lower case
	NodeIP   string // default: the address on the default route's interface
	// NodeExternalIP becomes an ExternalIP address of the node; empty for none.
	NodeExternalIP string
	FlannelIface   string // default: the interface that holds NodeIP
	FlannelBackend string // vxlan, host-gw or none; an agent takes the server's
	ServerURL      string // https://host:port of the server to join; a server passes its own, on loopback
	CA             []byte // PEM that the server's certificate must chain to; empty: /cacerts, pinned by the token's hash
	Password       string // the full token, K10<hash>::<user>:<password>, or its short form
	NodePassword   string // file with this machine's own, default /etc/rancher/node/password; made if it is not there
	Labels, Taints []string
	KubeletArgs    []string // key=value, handed to the kubelet after all others: the last wins
	KubeProxyArgs  []string // the same for kube-proxy
	// What the cluster agrees on; an agent takes the server's.
	ClusterCIDR, ClusterDNS, ClusterDomain    string
	PauseImage                                string
	PrivateRegistry                           string // default /etc/rancher/k3s/registries.yaml; need not exist
	WithProxy, WithFlannel, WithNetworkPolicy bool
	Snapshotter                               string // default overlayfs
	IsServer                                  bool
}
