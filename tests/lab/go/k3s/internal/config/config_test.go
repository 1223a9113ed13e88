package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// files writes config.yaml and its drop-ins and returns the former's path.
func files(t *testing.T, main string, drops map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.MkdirAll(path+".d", 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(path, main)
	for name, text := range drops {
		put(filepath.Join(path+".d", name), text)
	}
	return path
}

func load(t *testing.T, role Role, main string, args ...string) (*Config, error) {
	t.Helper()
	for name := range environment {
		t.Setenv(name, "")
	}
	return Load(role, append([]string{"--config", files(t, main, nil), "--node-ip", "192.0.2.1"}, args...))
}

func TestTheLastFileWinsAndPlusAppends(t *testing.T) {
	path := files(t, "token: one\nnode-label: [a=1]\ntls-san: first\n", map[string]string{
		"20.yaml": "token: three\nnode-label+: [c=3]\n", "10.yaml": "token: two\nnode-label+: b=2\n", "ignored.txt": "token: none\n",
	})
	c, err := Load(Server, []string{"--config", path, "--node-ip", "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Token != "three" || !reflect.DeepEqual(c.NodeLabels, []string{"a=1", "b=2", "c=3"}) {
		t.Errorf("token %q, labels %v", c.Token, c.NodeLabels)
	}
}

func TestTheCommandLineWinsOverFilesAndFilesOverTheEnvironment(t *testing.T) {
	path := files(t, "token: file\nnode-label: [a=1]\nnode-name: FROM-FILE\n", nil)
	t.Setenv("K3S_TOKEN", "environment")
	t.Setenv("K3S_NODE_NAME", "environment")
	t.Setenv("K3S_KUBECONFIG_MODE", "644")
	c, err := Load(Server, []string{"--config", path, "--node-ip", "192.0.2.1", "--token", "line", "--node-label", "b=2"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Token != "line" || c.NodeName != "from-file" || c.KubeconfigMode != "644" || !reflect.DeepEqual(c.NodeLabels, []string{"b=2"}) {
		t.Errorf("%q %q %q %v", c.Token, c.NodeName, c.KubeconfigMode, c.NodeLabels)
	}
}

func TestWhatFollowsFromTheNetworks(t *testing.T) {
	c, err := load(t, Server, "service-cidr: 10.96.255.0/24\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.ClusterDNS != "10.96.255.10" || c.APIServerIP().String() != "10.96.255.1" || c.AdvertiseAddress != "192.0.2.1" {
		t.Errorf("%s %s %s", c.ClusterDNS, c.APIServerIP(), c.AdvertiseAddress)
	}
}

func TestRefusals(t *testing.T) {
	for _, each := range []struct {
		role       Role
		text, want string
		args       []string
	}{
		{Agent, "server: https://x:6443\n", "--token is required", nil},
		{Agent, "token: x\n", "--server is required", nil},
		{Agent, "token: x\nserver: y\nnonsense: 1\n", "flag provided but not defined: -nonsense", nil},
		{Agent, "", "unknown flag: --nonsense", []string{"--nonsense"}},
		{Server, "vpn-auth: name=tailscale\n", "stands in for the real one and does not have", nil},
		{Agent, "token: x\nserver: y\n", "--vpn-auth: this k3s stands in", []string{"--vpn-auth", "name=tailscale"}},
		{Server, "", "--docker: this k3s stands in", []string{"--docker", "--token", "x"}},
		{Server, "cluster-dns: 192.0.2.9\n", "is not in service-cidr", nil},
		{Server, "flannel-backend: wireguard-native\n", "has vxlan, host-gw and none", nil},
		{Server, "node-ip: [192.0.2.1, 192.0.2.2]\n", "only one IPv4 address", []string{"--node-ip", "192.0.2.2"}},
		{Server, "write-kubeconfig-mode: rw\n", "write-kubeconfig-mode rw", nil},
		{Server, "node-label: {a: b}\n", "not a mapping", nil},
	} {
		_, err := load(t, each.role, each.text, each.args...)
		if err == nil || !strings.Contains(err.Error(), each.want) {
			t.Errorf("%s %q: %v, not %q", each.role, each.text, err, each.want)
		}
	}
}

func TestAServerSkipsUnknownKeys(t *testing.T) {
	if _, err := load(t, Server, "nonsense: 1\nselinux: true\nservicelb-namespace: x\n"); err != nil {
		t.Error(err)
	}
}

func TestServersMustAgree(t *testing.T) {
	one, err := load(t, Server, "disable: [traefik, servicelb]\n")
	if err != nil {
		t.Fatal(err)
	}
	same, err := load(t, Server, "disable: servicelb,traefik\n")
	if err != nil {
		t.Fatal(err)
	}
	other, err := load(t, Server, "disable: [traefik]\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Critical().Mismatch(same.Critical()); err != nil {
		t.Error(err)
	}
	err = one.Critical().Mismatch(other.Critical())
	if err == nil || !strings.Contains(err.Error(), "disable is servicelb,traefik here and traefik there") {
		t.Error(err)
	}
}
