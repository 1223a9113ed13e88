// Package etcd runs the server's own etcd member, in this process, alone or with those of the other servers.
package etcd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"sigs.k8s.io/yaml"

	"qwex.lab/k3s/internal/pki"
)

const (
	clientPort = 2379
	peerPort   = 2380
	retry      = 2 * time.Second
	// Endpoint is where this server's own components reach its member.
	Endpoint = "https://127.0.0.1:2379"
)

// Options say where a member lives and with whom.
type Options struct {
	Dir       string   // server/db/etcd
	TLS       string   // server/tls/etcd
	Name      string   // the node's
	Address   string   // the node's
	Clustered bool     // listen on Address, for other servers
	Args      []string // key=value, as etcd's own flags
}

// Member is the running etcd.
type Member struct {
	o      Options
	name   string
	server *embed.Etcd
	Client *clientv3.Client
}

// Exists says whether there is a database already: then nothing is to be joined.
func Exists(dir string) bool {
	entries, err := os.ReadDir(filepath.Join(dir, "member", "wal"))
	return err == nil && len(entries) > 0
}

// Start runs the member and returns once it answers; for a member of a cluster that means that a majority is there.
// Without a database it begins a new cluster, or joins the one whose client URLs are given.
func Start(ctx context.Context, o Options, join []string) (*Member, error) {
	m := &Member{o: o}
	var err error
	if m.name, err = m.memberName(); err != nil {
		return nil, err
	}
	state, initial := "new", m.name+"="+m.peerURL()
	if !Exists(o.Dir) && len(join) > 0 {
		if initial, err = m.enter(ctx, join); err != nil {
			return nil, err
		}
		state = "existing"
	}
	settings, err := m.settings(state, initial)
	if err != nil {
		return nil, err
	}
	if m.server, err = embed.StartEtcd(settings); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	if m.Client, err = m.dial([]string{Endpoint}); err != nil {
		m.server.Close()
		return nil, err
	}
	if err := m.settle(ctx); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Err tells when the member ends by itself, as when it was removed from the cluster.
func (m *Member) Err() <-chan error { return m.server.Err() }

// Stopped is closed when the member has ended.
func (m *Member) Stopped() <-chan struct{} { return m.server.Server.StopNotify() }

// Close ends the member.
func (m *Member) Close() {
	if m.Client != nil {
		if err := m.Client.Close(); err != nil {
			logrus.Debugf("close etcd client: %v", err)
		}
	}
	m.server.Close()
}

// Name is the member's, as it stands on the Node.
func (m *Member) Name() string { return m.name }

// Leads says whether this member is the cluster's leader.
func (m *Member) Leads() bool { return m.server.Server.Leader() == m.server.Server.MemberID() }

// memberName is the node's name with a suffix that stays: a reinstalled node is another member.
func (m *Member) memberName() (string, error) {
	path := filepath.Join(m.o.Dir, "name")
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	suffix := make([]byte, 4)
	if _, err := rand.Read(suffix); err != nil {
		return "", err
	}
	name := m.o.Name + "-" + hex.EncodeToString(suffix)
	return name, pki.Write(path, []byte(name), 0o600)
}

func (m *Member) host() string {
	if m.o.Clustered {
		return m.o.Address
	}
	return "127.0.0.1"
}

func (m *Member) peerURL() string { return fmt.Sprintf("https://%s:%d", m.host(), peerPort) }

// settings go through a file, so that etcd-arg takes any of etcd's own names and etcd checks them.
func (m *Member) settings(state, initial string) (*embed.Config, error) {
	clients := []string{Endpoint}
	if m.o.Clustered {
		clients = append(clients, fmt.Sprintf("https://%s:%d", m.o.Address, clientPort))
	}
	advertised := clients[len(clients)-1]
	secured := func(cert, ca string) map[string]any {
		return map[string]any{
			"cert-file": filepath.Join(m.o.TLS, cert+".crt"), "key-file": filepath.Join(m.o.TLS, cert+".key"),
			"trusted-ca-file": filepath.Join(m.o.TLS, ca+".crt"), "client-cert-auth": true,
		}
	}
	values := map[string]any{
		"name": m.name, "data-dir": m.o.Dir,
		"listen-client-urls": strings.Join(clients, ","), "advertise-client-urls": advertised,
		"listen-peer-urls": m.peerURL(), "initial-advertise-peer-urls": m.peerURL(),
		"initial-cluster": initial, "initial-cluster-state": state, "initial-cluster-token": "k3s",
		"client-transport-security": secured("server-client", "server-ca"),
		"peer-transport-security":   secured("peer-server-client", "peer-ca"),
		"heartbeat-interval":        500, "election-timeout": 5000, "snapshot-count": 10000,
		"logger": "zap", "log-level": "error", "log-outputs": []string{"stderr"},
		"warning-unary-request-duration": int64(300 * time.Millisecond),
		"auto-compaction-mode":           "periodic", "auto-compaction-retention": "5m",
	}
	for _, argument := range m.o.Args {
		key, value, _ := strings.Cut(strings.TrimLeft(argument, "-"), "=")
		values[key] = plain(value)
	}
	text, err := yaml.Marshal(values)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(m.o.Dir, "config")
	if err := pki.Write(path, text, 0o600); err != nil {
		return nil, err
	}
	settings, err := embed.ConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return settings, nil
}

func plain(value string) any {
	if number, err := strconv.Atoi(value); err == nil {
		return number
	}
	if truth, err := strconv.ParseBool(value); err == nil {
		return truth
	}
	if value == "" {
		return true
	}
	return value
}

func (m *Member) tls() (*tls.Config, error) {
	return transport.TLSInfo{
		CertFile: filepath.Join(m.o.TLS, "client.crt"), KeyFile: filepath.Join(m.o.TLS, "client.key"),
		TrustedCAFile: filepath.Join(m.o.TLS, "server-ca.crt"),
	}.ClientConfig()
}

func (m *Member) dial(endpoints []string) (*clientv3.Client, error) {
	secured, err := m.tls()
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: secured, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: 10 * time.Second,
	})
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(retry):
		return nil
	}
}
