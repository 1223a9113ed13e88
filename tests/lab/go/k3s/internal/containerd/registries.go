package containerd

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"
)

// Registries is /etc/rancher/k3s/registries.yaml.
type Registries struct {
	Mirrors map[string]Mirror   `json:"mirrors"`
	Configs map[string]Registry `json:"configs"`
}

// Mirror is where images of one registry are fetched from instead, in this order; "*" stands for every registry.
type Mirror struct {
	Endpoints []string          `json:"endpoint"`
	Rewrites  map[string]string `json:"rewrite"`
}

// Registry says how one host is spoken to.
type Registry struct {
	Auth *Auth `json:"auth"`
	TLS  *TLS  `json:"tls"`
}

// Auth is a registry's account.
type Auth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identity_token"`
}

// TLS names files of the node.
type TLS struct {
	CAFile             string `json:"ca_file"`
	CertFile           string `json:"cert_file"`
	KeyFile            string `json:"key_file"`
	InsecureSkipVerify bool   `json:"insecure_skip_verify"`
}

// ReadRegistries takes a file that does not exist for an empty one; an unknown key is an error.
func ReadRegistries(path string) (Registries, error) {
	var registries Registries
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return registries, nil
	}
	if err != nil {
		return registries, err
	}
	if err := yaml.UnmarshalStrict(text, &registries); err != nil {
		return registries, fmt.Errorf("%s: %w", path, err)
	}
	return registries, nil
}

// hosts are the registries that need a hosts.toml: name → its mirrors, none for one with only a `configs` entry.
func (r Registries) hosts() map[string]Mirror {
	all := map[string]Mirror{}
	for name, mirror := range r.Mirrors {
		all[name] = mirror
	}
	for name := range r.Configs {
		if _, ok := all[name]; !ok {
			all[name] = Mirror{}
		}
	}
	return all
}

// write replaces directory by one hosts.toml for each registry.
func (r Registries) write(directory string) error {
	if err := os.RemoveAll(directory); err != nil {
		return err
	}
	for name, mirror := range r.hosts() {
		text, err := r.hostsFile(name, mirror)
		if err != nil {
			return fmt.Errorf("registries.yaml: %s: %w", name, err)
		}
		place := filepath.Join(directory, folder(name))
		if err := os.MkdirAll(place, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(place, "hosts.toml"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// folder is how containerd names a registry's directory.
func folder(name string) string {
	if name == "*" {
		return "_default"
	}
	if host, port, found := strings.Cut(name, ":"); found {
		return host + "_" + port + "_"
	}
	return name
}

func (r Registries) hostsFile(name string, mirror Mirror) (string, error) {
	var text strings.Builder
	text.WriteString("# Written by k3s at each start. Changes are lost.\n")
	// No `server`: containerd then knows the registry's own address, and what comes first here is for it.
	if name != "*" {
		r.describe(&text, name, "", nil)
	}
	for _, endpoint := range mirror.Endpoints {
		parsed, err := url.Parse(endpoint)
		if err != nil || parsed.Host == "" {
			return "", fmt.Errorf("%q is no endpoint: it should look like https://registry.example:5000", endpoint)
		}
		if parsed.Path == "" || parsed.Path == "/" {
			parsed.Path = "/v2"
		}
		fmt.Fprintf(&text, "\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", parsed.String())
		r.describe(&text, parsed.Host, fmt.Sprintf("host.%q.", parsed.String()), mirror.Rewrites)
	}
	return text.String(), nil
}

// describe adds what `configs` says of a host. Upstream containerd knows no rewrites, which k3s's own adds; they are kept
// as a comment so that the file shows what was asked for.
func (r Registries) describe(text *strings.Builder, host, table string, rewrites map[string]string) {
	config := r.Configs[host]
	if tls := config.TLS; tls != nil {
		if tls.CAFile != "" {
			fmt.Fprintf(text, "  ca = [%q]\n", tls.CAFile)
		}
		if tls.CertFile != "" && tls.KeyFile != "" {
			fmt.Fprintf(text, "  client = [[%q, %q]]\n", tls.CertFile, tls.KeyFile)
		}
		if tls.InsecureSkipVerify {
			text.WriteString("  skip_verify = true\n")
		}
	}
	patterns := make([]string, 0, len(rewrites))
	for pattern := range rewrites {
		patterns = append(patterns, pattern)
	}
	sort.Strings(patterns)
	for _, pattern := range patterns {
		fmt.Fprintf(text, "  # rewrite %q -> %q: not done by the stand-in\n", pattern, rewrites[pattern])
	}
	if header := config.Auth.header(); header != "" {
		fmt.Fprintf(text, "  [%sheader]\n    Authorization = [%q]\n", table, header)
	}
}

// header is the Authorization header of an account, empty for none.
func (a *Auth) header() string {
	switch {
	case a == nil:
		return ""
	case a.IdentityToken != "":
		return "Bearer " + a.IdentityToken
	case a.Auth != "":
		return "Basic " + a.Auth
	case a.Username != "":
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(a.Username+":"+a.Password))
	}
	return ""
}
