package node

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"

	"qwex.lab/k3s/internal/containerd"
)

// kubeconfig writes one for a component with the certificate of that name.
func kubeconfig(path, server, agent, certificate string) error {
	const form = `apiVersion: v1
kind: Config
clusters:
- name: local
  cluster: {server: {{.Server}}, certificate-authority: {{.Agent}}/server-ca.crt}
users:
- name: user
  user: {client-certificate: {{.Agent}}/{{.Name}}.crt, client-key: {{.Agent}}/{{.Name}}.key}
contexts:
- name: Default
  context: {cluster: local, user: user}
current-context: Default
`
	var text strings.Builder
	err := template.Must(template.New("").Parse(form)).Execute(&text, map[string]string{
		"Server": server, "Agent": agent, "Name": certificate,
	})
	if err != nil {
		return err
	}
	return replace(path, []byte(text.String()), 0o600)
}

// kubelet writes the kubelet's settings and returns its command line.
//
// Settings are a file and the operator's arguments are flags: a flag wins over a file. Of the flags that k3s sets
// itself, one that the operator gives too is left out.
func (o Options) kubelet(c Cluster) ([]string, error) {
	agent := o.agent()
	resolv, err := resolvConf(filepath.Join(agent, "etc", "resolv.conf"))
	if err != nil {
		return nil, err
	}
	settings := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address":      "0.0.0.0",
		"readOnlyPort": 0,
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true},
			"x509": map[string]any{"clientCAFile": filepath.Join(agent, "client-ca.crt")},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"tlsCertFile":              filepath.Join(agent, "serving-kubelet.crt"),
		"tlsPrivateKeyFile":        filepath.Join(agent, "serving-kubelet.key"),
		"containerRuntimeEndpoint": "unix://" + containerd.Socket,
		"cgroupDriver":             "cgroupfs",
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"clusterDNS":               []string{c.ClusterDNS},
		"clusterDomain":            c.ClusterDomain,
		"resolvConf":               resolv,
		"providerID":               "k3s://" + o.NodeName,
		"staticPodPath":            filepath.Join(agent, "pod-manifests"),
		"volumePluginDir":          "/var/lib/kubelet/volumeplugins",
		"healthzBindAddress":       "127.0.0.1",
		"serializeImagePulls":      false,
		// A test machine's disk is the host's, and that may be nearly full: only a really full one counts.
		"evictionHard": map[string]string{
			"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%",
			"nodefs.inodesFree": "1%", "imagefs.inodesFree": "1%",
		},
		"evictionMinimumReclaim":      map[string]string{"nodefs.available": "1%", "imagefs.available": "1%"},
		"imageGCHighThresholdPercent": 99,
		"imageGCLowThresholdPercent":  98,
	}
	text, err := yaml.Marshal(settings)
	if err != nil {
		return nil, err
	}
	drop := filepath.Join(agent, "etc", "kubelet.conf.d")
	for _, directory := range []string{drop, filepath.Join(agent, "pod-manifests")} {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return nil, err
		}
	}
	if err := replace(filepath.Join(drop, "00-k3s-defaults.conf"), text, 0o600); err != nil {
		return nil, err
	}
	flags := []string{
		"config-dir=" + drop,
		"kubeconfig=" + filepath.Join(agent, "kubelet.kubeconfig"),
		"hostname-override=" + o.NodeName,
		"node-ip=" + o.NodeIP,
		"cloud-provider=external", // so that the addresses that address() sets are the node's
		"v=1",
	}
	if len(o.Labels) > 0 {
		flags = append(flags, "node-labels="+strings.Join(o.Labels, ","))
	}
	if len(o.Taints) > 0 {
		flags = append(flags, "register-with-taints="+strings.Join(o.Taints, ","))
	}
	return arguments("kubelet", flags, o.KubeletArgs), nil
}

// arguments puts the operator's after k3s's own, and leaves out those of the latter that he gives himself.
func arguments(component string, own, given []string) []string {
	named := map[string]bool{}
	for _, argument := range given {
		name, _, _ := strings.Cut(strings.TrimLeft(argument, "-"), "=")
		named[name] = true
	}
	line := []string{component}
	for _, argument := range own {
		if name, _, _ := strings.Cut(argument, "="); !named[name] {
			line = append(line, "--"+argument)
		}
	}
	for _, argument := range given {
		line = append(line, "--"+strings.TrimLeft(argument, "-"))
	}
	return line
}

// proxy is kube-proxy's command line. Connection tracking stays as the machine has it, as with k3s: a container may not
// set it.
func (o Options) proxy(c Cluster) []string {
	return arguments("kube-proxy", []string{
		"kubeconfig=" + filepath.Join(o.agent(), "kubeproxy.kubeconfig"),
		"cluster-cidr=" + c.ClusterCIDR,
		"proxy-mode=iptables",
		"hostname-override=" + o.NodeName,
		"healthz-bind-address=127.0.0.1",
		"metrics-bind-address=" + proxyMetrics,
		"conntrack-max-per-core=0",
		"conntrack-tcp-timeout-established=0s",
		"conntrack-tcp-timeout-close-wait=0s",
	}, o.KubeProxyArgs)
}

// nowhere is an address that is nobody's (RFC 5737): names outside the cluster are not looked up rather than asked of a
// name server that nobody chose. The real k3s writes a public one here.
const nowhere = "192.0.2.53"

// resolvConf is a file with name servers that a pod can reach: not those on loopback. Where there is none, one is written.
func resolvConf(own string) (string, error) {
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		if reachable(path) {
			return path, nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		return "", err
	}
	return own, replace(own, []byte(fmt.Sprintf("nameserver %s\n", nowhere)), 0o644)
}

func reachable(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	found := false
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		address := net.ParseIP(fields[1])
		if address == nil || !address.IsGlobalUnicast() {
			return false
		}
		found = true
	}
	return found && lines.Err() == nil
}
