// Package containerd runs the node's container runtime below the service's own directories.
package containerd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// Settings are what a node's containerd depends on.
type Settings struct {
	DataDir     string // k3s's, usually /var/lib/rancher/k3s
	Bin         string // where runc, the shim and the CNI plugins are
	PauseImage  string
	Snapshotter string
	Registries  Registries
}

// Paths below k3s's fixed directories. The socket and the state go with /run at a reboot, the images do not.
const (
	State  = "/run/k3s/containerd"
	Socket = State + "/containerd.sock"
)

func (s Settings) root() string { return filepath.Join(s.DataDir, "agent", "containerd") }
func (s Settings) config() string {
	return filepath.Join(s.DataDir, "agent", "etc", "containerd", "config.toml")
}
func (s Settings) hosts() string {
	return filepath.Join(s.DataDir, "agent", "etc", "containerd", "certs.d")
}
func (s Settings) networks() string  { return NetworkConfig(s.DataDir) }
func (s Settings) logFile() string   { return filepath.Join(s.root(), "containerd.log") }
func (s Settings) crictl() string    { return filepath.Join(s.DataDir, "agent", "etc", "crictl.yaml") }
func (s Settings) directory() string { return filepath.Dir(s.config()) }

// NetworkConfig is the directory where containerd looks for the node's CNI configuration.
func NetworkConfig(dataDir string) string {
	return filepath.Join(dataDir, "agent", "etc", "cni", "net.d")
}

// cgroupfs instead of systemd's driver: it works under cgroup v1 and v2, in a container and on a laptop.
// restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE may not lower the score of a container below its own.
var configuration = template.Must(template.New("config.toml").Funcs(template.FuncMap{"q": quote}).Parse(
	`# Written by k3s at each start. Changes are lost.
version = 3
root = {{q .Root}}
state = {{q .State}}

[grpc]
  address = {{q .Socket}}

[plugins.'io.containerd.internal.v1.opt']
  path = {{q .Root}}

[plugins.'io.containerd.nri.v1.nri']
  disable = true

[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = '127.0.0.1'
  stream_server_port = '10010'

[plugins.'io.containerd.cri.v1.runtime']
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  restrict_oom_score_adj = {{.Restricted}}

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [{{q .Bin}}]
  conf_dir = {{q .Networks}}

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = {{q .Runc}}
  Root = {{q .RuncRoot}}
  SystemdCgroup = false

[plugins.'io.containerd.cri.v1.images']
  snapshotter = {{q .Snapshotter}}

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = {{q .PauseImage}}

[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = {{q .Hosts}}
`))

func quote(s string) (string, error) {
	if strings.ContainsAny(s, "'\n\r") {
		return "", fmt.Errorf("%q cannot stand in containerd's configuration", s)
	}
	return "'" + s + "'", nil
}

// write puts containerd's and crictl's configuration and one hosts.toml for each registry in place.
func (s Settings) write(restricted bool) error {
	for _, directory := range []string{s.root(), State, s.directory(), s.networks()} {
		if err := os.MkdirAll(directory, 0o711); err != nil {
			return err
		}
	}
	var text bytes.Buffer
	err := configuration.Execute(&text, map[string]any{
		"Root": s.root(), "State": State, "Socket": Socket, "Bin": s.Bin, "Networks": s.networks(),
		"Runc": filepath.Join(s.Bin, "runc"), "RuncRoot": filepath.Join(State, "runc"), "Snapshotter": s.Snapshotter, "PauseImage": s.PauseImage,
		"Hosts": s.hosts(), "Restricted": restricted,
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.config(), text.Bytes(), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(s.crictl(), []byte("runtime-endpoint: unix://"+Socket+"\n"), 0o644); err != nil {
		return err
	}
	return s.Registries.write(s.hosts())
}
