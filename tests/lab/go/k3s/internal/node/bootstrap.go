package node

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	log "github.com/sirupsen/logrus"

	"qwex.lab/k3s/internal/token"
)

// Cluster is what the server says of the cluster, at /v1-k3s/config.
type Cluster struct {
	ClusterCIDR    string   `json:"clusterCIDR"`
	ServiceCIDR    string   `json:"serviceCIDR"`
	ClusterDNS     string   `json:"clusterDNS"`
	ClusterDomain  string   `json:"clusterDomain"`
	FlannelBackend string   `json:"flannelBackend"`
	Servers        []string `json:"servers"`
}

// retryEvery is how often a node asks a server that is not there, or does not want it.
const retryEvery = 2 * time.Second

const requestPatience = 10 * time.Second

// supervisor is the server, as one node sees it.
type supervisor struct {
	url     string
	node    string
	address string
	word    string // the node's own password
	token   token.Token
	ca      []byte
	client  *http.Client
}

// join fetches the cluster's CA, its settings and the node's certificates. It tries for ever, every two seconds, as k3s
// does: the only error is the context's, or a token that is none.
func join(ctx context.Context, o Options, url string) (*supervisor, Cluster, error) {
	parsed, err := token.Parse(o.Password)
	if err != nil {
		return nil, Cluster{}, err
	}
	word, err := password(o.NodePassword)
	if err != nil {
		return nil, Cluster{}, err
	}
	s := &supervisor{url: url, node: o.NodeName, address: o.NodeIP, token: parsed, word: word}
	for {
		cluster, err := s.attempt(ctx, o)
		if err == nil {
			return s, cluster, nil
		}
		log.Errorf("Failed to validate connection to cluster at %s: %v", o.ServerURL, err)
		select {
		case <-ctx.Done():
			return nil, cluster, ctx.Err()
		case <-time.After(retryEvery):
		}
	}
}

func (s *supervisor) attempt(ctx context.Context, o Options) (Cluster, error) {
	var cluster Cluster
	if err := s.trust(ctx, o.CA); err != nil {
		return cluster, err
	}
	text, err := s.do(ctx, http.MethodGet, "/v1-k3s/config", nil)
	if err != nil {
		return cluster, err
	}
	if err := json.Unmarshal(text, &cluster); err != nil {
		return cluster, fmt.Errorf("/v1-k3s/config: %w", err)
	}
	return cluster, s.certificates(ctx, o.agent())
}

// password binds the node's name to this machine: the server takes the first one it is told, and no other. It outlives an
// uninstall, as the real one does.
func password(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	word := token.Password()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return word, replace(path, []byte(word+"\n"), 0o600)
}

// trust takes the CA as given, or from the server if its hash is the token's.
func (s *supervisor) trust(ctx context.Context, given []byte) error {
	s.ca = given
	if len(s.ca) == 0 {
		// Nothing is known of the server yet; the hash in the token is what it is checked against.
		s.client = client(&tls.Config{InsecureSkipVerify: true})
		ca, err := s.do(ctx, http.MethodGet, "/cacerts", nil)
		if err != nil {
			return fmt.Errorf("failed to get CA certs: %w", err)
		}
		if err := s.token.Verify(ca); err != nil {
			return err
		}
		if s.token.CAHash == "" {
			log.Warn("Cluster CA certificate is not trusted by the token: use the full token from the server's node-token file to enable Cluster CA validation")
		}
		s.ca = ca
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.ca) {
		return errors.New("the cluster's CA is no PEM certificate")
	}
	s.client = client(&tls.Config{RootCAs: roots})
	return nil
}

func client(config *tls.Config) *http.Client {
	return &http.Client{Timeout: requestPatience, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
}

func (s *supervisor) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if path != "/cacerts" { // whoever answers there is not yet trusted with the password
		s.token.Authorize(request, "node")
		request.Header.Set("K3s-Node-Password", s.word)
	}
	request.Header.Set("K3s-Node-Name", s.node)
	request.Header.Set("K3s-Node-IP", s.address)
	answer, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.url+path, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", s.url+path, answer.Status, strings.TrimSpace(string(text)))
	}
	return text, nil
}

// signed are the certificates that a node asks for at each start: file name below agent → what follows /v1-k3s/.
var signed = []string{"client-kubelet", "serving-kubelet", "client-kube-proxy", "client-k3s-controller"}

func (s *supervisor) certificates(ctx context.Context, directory string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"client-ca", "server-ca"} {
		ca, err := s.do(ctx, http.MethodGet, "/v1-k3s/"+name+".crt", nil)
		if err != nil {
			return err
		}
		if err := replace(filepath.Join(directory, name+".crt"), ca, 0o644); err != nil {
			return err
		}
	}
	for _, name := range signed {
		key, err := privateKey(filepath.Join(directory, name+".key"))
		if err != nil {
			return err
		}
		// The server decides on the names; the request only proves the key.
		request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
		if err != nil {
			return err
		}
		body := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})
		certificate, err := s.do(ctx, http.MethodPost, "/v1-k3s/"+name+".crt", body)
		if err != nil {
			return err
		}
		if err := replace(filepath.Join(directory, name+".crt"), certificate, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// privateKey reads a key, or makes one where there is none.
func privateKey(path string) (crypto.Signer, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("%s is no PEM file", path)
		}
		return x509.ParseECPrivateKey(block.Bytes)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, replace(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}), 0o600)
}

// replace writes a file in one step: a power cut leaves the old one or the new one.
func replace(path string, text []byte, mode os.FileMode) error {
	draft := path + ".new"
	if err := os.WriteFile(draft, text, mode); err != nil {
		return err
	}
	return os.Rename(draft, path)
}
