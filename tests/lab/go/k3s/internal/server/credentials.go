package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"crypto/rand"

	"qwex.lab/k3s/internal/config"
	"qwex.lab/k3s/internal/pki"
	"qwex.lab/k3s/internal/token"
)

// shared are the files below server/ that all servers of a cluster have alike: the first makes them, the others fetch
// them (/v1-k3s/server-bootstrap).
var shared = []string{
	"tls/server-ca.crt", "tls/server-ca.key", "tls/client-ca.crt", "tls/client-ca.key",
	"tls/request-header-ca.crt", "tls/request-header-ca.key",
	"tls/etcd/server-ca.crt", "tls/etcd/server-ca.key", "tls/etcd/peer-ca.crt", "tls/etcd/peer-ca.key",
	"tls/service.key", "cred/encryption-config.json", "cred/agent-password",
}

// credentials are a server's authorities and passwords.
type credentials struct {
	c                                            *config.Config
	server, client, header, etcdServer, etcdPeer *pki.Authority
	password, agentPassword                      string
}

func (k *credentials) path(parts ...string) string {
	return k.c.Dir(append([]string{"server"}, parts...)...)
}

// ensureShared makes what is missing of the shared files; a joining server has put the cluster's there before.
func (k *credentials) ensureShared() error {
	for _, each := range []struct {
		to         **pki.Authority
		file, name string
	}{
		{&k.server, "tls/server-ca", "k3s-server-ca"},
		{&k.client, "tls/client-ca", "k3s-client-ca"},
		{&k.header, "tls/request-header-ca", "k3s-request-header-ca"},
		{&k.etcdServer, "tls/etcd/server-ca", "etcd-server-ca"},
		{&k.etcdPeer, "tls/etcd/peer-ca", "etcd-peer-ca"},
	} {
		authority, err := pki.EnsureAuthority(k.path(each.file), each.name)
		if err != nil {
			return err
		}
		*each.to = authority
	}
	if err := pki.EnsureSigningKey(k.path("tls/service.key")); err != nil {
		return err
	}
	return k.ensureEncryption()
}

func (k *credentials) ensureEncryption() error {
	path := k.path("cred/encryption-config.json")
	if _, err := os.Stat(path); err == nil || !k.c.SecretsEncryption {
		return nil
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	return pki.Write(path, fmt.Appendf(nil, `{"kind":"EncryptionConfiguration","apiVersion":"apiserver.config.k8s.io/v1","resources":`+
		`[{"resources":["secrets"],"providers":[{"aescbc":{"keys":[{"name":"aescbckey","secret":%q}]}},{"identity":{}}]}]}`,
		base64.StdEncoding.EncodeToString(key)), 0o600)
}

// ensurePasswords settles the server's password: the configured one, else the one on disk, else a new one.
func (k *credentials) ensurePasswords() error {
	stored, err := readToken(k.path("token"))
	if err != nil {
		return err
	}
	if k.c.Token != "" {
		given, err := token.Parse(k.c.Token)
		if err != nil {
			return err
		}
		if given.Bootstrap != "" {
			return errors.New("a bootstrap token joins agents; a server needs the server token")
		}
		if err := given.Verify(k.server.PEM); err != nil {
			return err
		}
		if stored != "" && stored != given.Password {
			return errors.New("bootstrap data already found and encrypted with different token")
		}
		stored = given.Password
	}
	if stored == "" {
		stored = token.Password()
	}
	k.password = stored
	return k.ensureAgentPassword()
}

func (k *credentials) ensureAgentPassword() error {
	k.agentPassword = k.password
	if k.c.AgentToken != "" {
		given, err := token.Parse(k.c.AgentToken)
		if err != nil {
			return fmt.Errorf("agent-token: %w", err)
		}
		k.agentPassword = given.Password
	} else if fetched, err := os.ReadFile(k.path("cred/agent-password")); err == nil {
		k.agentPassword = string(fetched)
	}
	if k.agentPassword == k.password {
		return nil
	}
	return pki.Write(k.path("cred/agent-password"), []byte(k.agentPassword), 0o600)
}

// writeTokens writes the token files: `token` is real, `node-token` leads to it, `agent-token` leads to it unless agents
// have their own.
func (k *credentials) writeTokens() error {
	full := token.Format(k.server.PEM, "server", k.password) + "\n"
	if err := pki.Write(k.path("token"), []byte(full), 0o600); err != nil {
		return err
	}
	if err := link("token", k.path("node-token")); err != nil {
		return err
	}
	passwd := fmt.Sprintf("%s,node,node,k3s:agent\n%s,server,server,k3s:server\n", k.agentPassword, k.password)
	if err := pki.Write(k.path("cred/passwd"), []byte(passwd), 0o600); err != nil {
		return err
	}
	if k.agentPassword == k.password {
		return link("token", k.path("agent-token"))
	}
	agent := token.Format(k.server.PEM, "node", k.agentPassword) + "\n"
	if err := os.Remove(k.path("agent-token")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return pki.Write(k.path("agent-token"), []byte(agent), 0o600)
}

func readToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	parsed, err := token.Parse(strings.TrimSpace(string(text)))
	return parsed.Password, err
}

func link(target, path string) error {
	if found, err := os.Readlink(path); err == nil && found == target {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}

// ensureLeaves makes this server's certificates and its components' kubeconfigs.
func (k *credentials) ensureLeaves() error {
	c := k.c
	admin := pki.Request{Name: "system:admin", Groups: []string{"system:masters"}}
	clients := map[string]pki.Request{
		"client-admin":          admin,
		"client-controller":     {Name: "system:kube-controller-manager"},
		"client-scheduler":      {Name: "system:kube-scheduler"},
		"client-supervisor":     {Name: "system:k3s-supervisor", Groups: []string{"system:masters"}},
		"client-kube-apiserver": {Name: "system:apiserver", Groups: []string{"system:masters"}},
	}
	for name, request := range clients {
		if err := k.client.EnsureLeaf(k.path("tls", name), request); err != nil {
			return err
		}
	}
	if err := k.header.EnsureLeaf(k.path("tls/client-auth-proxy"), pki.Request{Name: "system:auth-proxy"}); err != nil {
		return err
	}
	if err := k.server.EnsureLeaf(k.path("tls/serving-kube-apiserver"), pki.Request{Name: "k3s", Server: true, SANs: k.names()}); err != nil {
		return err
	}
	local := []string{"127.0.0.1", "localhost", c.NodeIP[0], c.NodeName}
	if err := k.etcdServer.EnsureLeaf(k.path("tls/etcd/server-client"), pki.Request{Name: "etcd-server", Server: true, SANs: local}); err != nil {
		return err
	}
	if err := k.etcdServer.EnsureLeaf(k.path("tls/etcd/client"), pki.Request{Name: "etcd-client"}); err != nil {
		return err
	}
	if err := k.etcdPeer.EnsureLeaf(k.path("tls/etcd/peer-server-client"), pki.Request{Name: "etcd-peer", Server: true, SANs: local}); err != nil {
		return err
	}
	local6443 := fmt.Sprintf("https://127.0.0.1:%d", c.Port)
	for name, certificate := range map[string]string{
		"admin": "client-admin", "controller": "client-controller", "scheduler": "client-scheduler", "supervisor": "client-supervisor",
	} {
		text, err := k.kubeconfig(local6443, certificate)
		if err != nil {
			return err
		}
		if err := pki.Write(k.path("cred", name+".kubeconfig"), text, 0o600); err != nil {
			return err
		}
	}
	return k.writeKubeconfig(local6443)
}

// names are all that the API server's certificate is good for.
func (k *credentials) names() []string {
	c := k.c
	all := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + c.ClusterDomain,
		"localhost", "127.0.0.1", c.APIServerIP().String(), c.NodeName, c.NodeIP[0], c.AdvertiseAddress,
	}
	all = append(append(all, c.NodeExternalIP...), c.TLSSANs...)
	seen := map[string]bool{}
	var once []string
	for _, name := range all {
		if !seen[name] {
			seen[name] = true
			once = append(once, name)
		}
	}
	return once
}

func (k *credentials) kubeconfig(url, certificate string) ([]byte, error) {
	cert, err := os.ReadFile(k.path("tls", certificate+".crt"))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(k.path("tls", certificate+".key"))
	if err != nil {
		return nil, err
	}
	encode := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: %s
    server: %s
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
preferences: {}
users:
- name: default
  user:
    client-certificate-data: %s
    client-key-data: %s
`, encode(k.server.PEM), url, encode(cert), encode(key)), nil
}

// writeKubeconfig writes the operator's.
func (k *credentials) writeKubeconfig(url string) error {
	text, err := k.kubeconfig(url, "client-admin")
	if err != nil {
		return err
	}
	mode, err := k.c.Mode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(k.c.Kubeconfig), 0o755); err != nil {
		return err
	}
	if err := pki.Write(k.c.Kubeconfig, text, mode); err != nil || k.c.KubeconfigGroup == "" {
		return err
	}
	group, err := user.LookupGroup(k.c.KubeconfigGroup)
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(group.Gid)
	if err != nil {
		return err
	}
	return os.Chown(k.c.Kubeconfig, -1, id)
}
