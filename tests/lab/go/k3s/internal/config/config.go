// Package config reads what k3s reads: flags, then the configuration file with its drop-ins, then the environment.
package config

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
)

// DefaultFile is where an operator writes.
const DefaultFile = "/etc/rancher/k3s/config.yaml"

// DefaultDataDir is where everything lies that lasts.
const DefaultDataDir = "/var/lib/rancher/k3s"

// Config is one role's settings, complete and checked. Server-only fields keep their defaults on an agent.
type Config struct {
	Role                                                                    Role
	File, DataDir                                                           string
	Debug                                                                   bool
	Token, TokenFile, ServerURL                                             string
	NodeName                                                                string
	NodeIP, NodeExternalIP                                                  []string
	NodeLabels, NodeTaints, KubeletArgs, KubeProxyArgs                      []string
	FlannelIface, PrivateRegistry, PauseImage, Snapshotter                  string
	ProtectKernelDefaults, PreferBundledBin, SELinux                        bool
	AgentToken, AgentTokenFile                                              string
	ClusterInit                                                             bool
	TLSSANs                                                                 []string
	BindAddress, AdvertiseAddress                                           string
	Port                                                                    int
	ClusterCIDR, ServiceCIDR, NodePorts, ClusterDNS, ClusterDomain          string
	FlannelBackend, EgressSelectorMode                                      string
	Kubeconfig, KubeconfigMode, KubeconfigGroup                             string
	Disable                                                                 []string
	DisableNetworkPolicy, DisableKubeProxy, DisableAgent, SecretsEncryption bool
	APIServerArgs, ControllerArgs, SchedulerArgs, EtcdArgs                  []string
	SnapshotDir, LocalStoragePath                                           string
}

// Critical is what all servers of a cluster must agree on.
type Critical struct {
	ClusterCIDR, ServiceCIDR, ClusterDNS, ClusterDomain, FlannelBackend, EgressSelectorMode string
	SecretsEncryption                                                                       bool
	Disable                                                                                 []string
}

// Load reads a role's settings from the command line after the role's name, the files and the environment.
func Load(role Role, args []string) (*Config, error) {
	c := defaults(role)
	flags := c.flags(role)
	for _, name := range append(sorted(absent), sorted(idle)...) {
		flags.StringArray(name, nil, "")
		flags.Lookup(name).Hidden = true
		if switches[name] {
			flags.Lookup(name).NoOptDefVal = "true"
		}
	}
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("k3s %s takes no arguments: %s", role, strings.Join(flags.Args(), " "))
	}
	asked := flags.Changed("config")
	if file := os.Getenv("K3S_CONFIG_FILE"); file != "" {
		c.File, asked = file, true
	}
	values, err := readFiles(c.File, asked)
	if err != nil {
		return nil, err
	}
	if err := apply(flags, role, values); err != nil {
		return nil, err
	}
	for _, variable := range sorted(environment) {
		flag := flags.Lookup(environment[variable])
		value := os.Getenv(variable)
		if flag == nil || flag.Changed || value == "" {
			continue
		}
		if err := flags.Set(flag.Name, value); err != nil {
			return nil, fmt.Errorf("%s: %w", variable, err)
		}
	}
	var refused error
	flags.Visit(func(flag *pflag.Flag) {
		if err := lacks(flag.Name); err != nil && refused == nil {
			refused = err
		}
		if idle[flag.Name] {
			logrus.Infof("--%s is accepted and changes nothing: this k3s stands in for the real one", flag.Name)
		}
	})
	if refused != nil {
		return nil, refused
	}
	return c, c.complete()
}

// apply takes from the files what the command line did not say. A server skips keys it does not know with a warning, an
// agent refuses them: both as the real k3s does.
func apply(flags *pflag.FlagSet, role Role, values map[string][]string) error {
	given := map[string]bool{}
	flags.Visit(func(flag *pflag.Flag) { given[flag.Name] = true })
	for _, key := range sorted(values) {
		flag := flags.Lookup(key)
		if len(key) == 1 {
			flag = flags.ShorthandLookup(key)
		}
		if flag == nil {
			if role == Agent {
				return fmt.Errorf("flag provided but not defined: -%s", key)
			}
			logrus.Warnf("Unknown flag --%s found in config.yaml, skipping", key)
			continue
		}
		if given[flag.Name] {
			continue
		}
		for _, value := range values[key] {
			if err := flags.Set(flag.Name, value); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	return nil
}

func defaults(role Role) *Config {
	return &Config{
		Role: role, File: DefaultFile, DataDir: DefaultDataDir, Port: 6443,
		ClusterCIDR: "10.42.0.0/16", ServiceCIDR: "10.43.0.0/16", NodePorts: "30000-32767", ClusterDomain: "cluster.local",
		FlannelBackend: "vxlan", EgressSelectorMode: "agent", Kubeconfig: "/etc/rancher/k3s/k3s.yaml", KubeconfigMode: "600",
		PrivateRegistry: "/etc/rancher/k3s/registries.yaml", Snapshotter: "overlayfs",
	}
}

// complete fills what follows from the rest and refuses what cannot be.
func (c *Config) complete() error {
	for _, p := range []*[]string{&c.NodeIP, &c.NodeExternalIP, &c.TLSSANs, &c.Disable} {
		*p = split(*p)
	}
	if len(c.NodeIP) > 1 {
		return fmt.Errorf("node-ip %s: only one IPv4 address is possible here", strings.Join(c.NodeIP, ","))
	}
	for _, address := range slices.Concat(c.NodeIP, c.NodeExternalIP) {
		if net.ParseIP(address) == nil {
			return fmt.Errorf("invalid ip format '%s'", address)
		}
	}
	if len(c.NodeIP) == 0 {
		address, err := Address(c.FlannelIface)
		if err != nil {
			return err
		}
		c.NodeIP = []string{address}
	}
	if c.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return err
		}
		c.NodeName = name
	}
	c.NodeName = strings.ToLower(c.NodeName)
	if c.ProtectKernelDefaults {
		c.KubeletArgs = append(c.KubeletArgs, "protect-kernel-defaults=true")
	}
	for _, secret := range []struct{ value, file *string }{{&c.Token, &c.TokenFile}, {&c.AgentToken, &c.AgentTokenFile}} {
		if *secret.value == "" && *secret.file != "" {
			data, err := os.ReadFile(*secret.file)
			if err != nil {
				return err
			}
			*secret.value = strings.TrimSpace(string(data))
		}
		*secret.value = strings.TrimSpace(*secret.value)
	}
	if c.Role == Agent {
		if c.Token == "" {
			return fmt.Errorf("--token is required")
		}
		if c.ServerURL == "" {
			return fmt.Errorf("--server is required")
		}
		return nil
	}
	return c.completeServer()
}

func (c *Config) completeServer() error {
	_, services, err := net.ParseCIDR(c.ServiceCIDR)
	if err != nil {
		return fmt.Errorf("service-cidr: %w", err)
	}
	if _, _, err := net.ParseCIDR(c.ClusterCIDR); err != nil {
		return fmt.Errorf("cluster-cidr: %w", err)
	}
	if c.ClusterDNS == "" {
		c.ClusterDNS = nth(services, 10).String()
	}
	if ip := net.ParseIP(c.ClusterDNS); ip == nil || !services.Contains(ip) {
		return fmt.Errorf("cluster-dns %s is not in service-cidr %s", c.ClusterDNS, c.ServiceCIDR)
	}
	if !slices.Contains([]string{"vxlan", "host-gw", "none"}, c.FlannelBackend) {
		return fmt.Errorf("flannel-backend %s: this k3s stands in for the real one and has vxlan, host-gw and none", c.FlannelBackend)
	}
	for _, name := range c.Disable {
		if !slices.Contains(Packaged, name) {
			logrus.Infof("disable %s: no packaged component has this name", name)
		}
	}
	slices.Sort(c.Disable)
	c.Disable = slices.Compact(c.Disable)
	if _, err := c.Mode(); err != nil {
		return err
	}
	if c.AdvertiseAddress == "" {
		c.AdvertiseAddress = c.NodeIP[0]
		if len(c.NodeExternalIP) > 0 {
			c.AdvertiseAddress = c.NodeExternalIP[0]
		}
	}
	if c.SnapshotDir == "" {
		c.SnapshotDir = c.Dir("server/db/snapshots")
	}
	if c.LocalStoragePath == "" {
		c.LocalStoragePath = c.Dir("storage")
	}
	return nil
}

// Dir is a path under the data directory.
func (c *Config) Dir(parts ...string) string {
	return filepath.Join(append([]string{c.DataDir}, parts...)...)
}

// Clustered says whether etcd talks to other servers.
func (c *Config) Clustered() bool { return c.ClusterInit || c.ServerURL != "" }

// Mode is the kubeconfig's file mode, given in octal.
func (c *Config) Mode() (os.FileMode, error) {
	mode, err := strconv.ParseUint(c.KubeconfigMode, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("write-kubeconfig-mode %s: %w", c.KubeconfigMode, err)
	}
	return os.FileMode(mode), nil
}

// APIServerIP is the first address of the service network: that of the `kubernetes` service.
func (c *Config) APIServerIP() net.IP {
	_, services, err := net.ParseCIDR(c.ServiceCIDR)
	if err != nil {
		panic(err) // completeServer parsed it
	}
	return nth(services, 1)
}

// Critical values of this server.
func (c *Config) Critical() Critical {
	return Critical{
		ClusterCIDR: c.ClusterCIDR, ServiceCIDR: c.ServiceCIDR, ClusterDNS: c.ClusterDNS, ClusterDomain: c.ClusterDomain,
		FlannelBackend: c.FlannelBackend, EgressSelectorMode: c.EgressSelectorMode, SecretsEncryption: c.SecretsEncryption,
		Disable: append([]string{}, c.Disable...),
	}
}

// Mismatch names the first value that two servers disagree on, or is nil.
func (c Critical) Mismatch(other Critical) error {
	values := []struct {
		name        string
		mine, their any
	}{
		{"cluster-cidr", c.ClusterCIDR, other.ClusterCIDR},
		{"service-cidr", c.ServiceCIDR, other.ServiceCIDR},
		{"cluster-dns", c.ClusterDNS, other.ClusterDNS},
		{"cluster-domain", c.ClusterDomain, other.ClusterDomain},
		{"flannel-backend", c.FlannelBackend, other.FlannelBackend},
		{"egress-selector-mode", c.EgressSelectorMode, other.EgressSelectorMode},
		{"secrets-encryption", c.SecretsEncryption, other.SecretsEncryption},
		{"disable", strings.Join(c.Disable, ","), strings.Join(other.Disable, ",")},
	}
	for _, value := range values {
		if value.mine != value.their {
			return fmt.Errorf("failed to validate server configuration: critical configuration value mismatch between servers: "+
				"%s is %v here and %v there", value.name, value.mine, value.their)
		}
	}
	return nil
}

func split(values []string) []string {
	var all []string
	for _, value := range values {
		for _, part := range strings.Split(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
	}
	return all
}

func nth(network *net.IPNet, n byte) net.IP {
	ip := slices.Clone(network.IP.To4())
	for i := len(ip) - 1; n > 0 && i >= 0; i-- {
		sum := int(ip[i]) + int(n)
		ip[i], n = byte(sum), byte(sum>>8)
	}
	return ip
}
