package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"qwex.lab/k3s/internal/config"
	"qwex.lab/k3s/internal/pki"
	"qwex.lab/k3s/internal/token"
)

const retry = 2 * time.Second

// Bootstrap is what a server gets from the one that it joins.
type Bootstrap struct {
	Critical config.Critical
	Etcd     []string          // client URLs of the members
	Files    map[string][]byte // the shared ones
}

// join fetches the cluster's shared files and puts them in place. It tries every two seconds until ctx ends, as an agent
// does; only a critical setting that differs is final.
func (k *credentials) join(ctx context.Context) (Bootstrap, error) {
	if k.c.Token == "" {
		return Bootstrap{}, errors.New("--token is required to join a cluster")
	}
	secret, err := token.Parse(k.c.Token)
	if err != nil {
		return Bootstrap{}, err
	}
	for {
		found, err := fetch(ctx, k.c.ServerURL, secret)
		if err == nil {
			if err := k.c.Critical().Mismatch(found.Critical); err != nil {
				return found, err // no waiting makes two configurations agree
			}
			return found, k.place(found.Files)
		}
		logrus.Errorf("Failed to validate connection to cluster at %s: %v", k.c.ServerURL, err)
		select {
		case <-ctx.Done():
			return found, ctx.Err()
		case <-time.After(retry):
		}
	}
}

func (k *credentials) place(files map[string][]byte) error {
	for name, content := range files {
		if !slices.Contains(shared, name) {
			return fmt.Errorf("the other server sends %s, which is none of the shared files", name)
		}
		if err := pki.Write(k.path(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func fetch(ctx context.Context, url string, secret token.Token) (Bootstrap, error) {
	var found Bootstrap
	ca, err := get(ctx, client(nil), url+"/cacerts", nil)
	if err != nil {
		return found, fmt.Errorf("failed to get CA certs: %w", err)
	}
	if err := secret.Verify(ca); err != nil {
		return found, err
	}
	sealed, err := get(ctx, client(ca), url+"/v1-k3s/server-bootstrap", &secret)
	if err != nil {
		return found, err
	}
	plain, err := token.Open(secret.Password, sealed)
	if err != nil {
		return found, fmt.Errorf("bootstrap data: %w", err)
	}
	return found, json.Unmarshal(plain, &found)
}

// client trusts one CA; with none given any, for the one request whose answer the token's hash vouches for.
func client(ca []byte) *http.Client {
	trust := &tls.Config{InsecureSkipVerify: ca == nil, MinVersion: tls.VersionTLS12}
	if ca != nil {
		trust.RootCAs = x509.NewCertPool()
		trust.RootCAs.AppendCertsFromPEM(ca)
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true}}
}

func get(ctx context.Context, client *http.Client, url string, secret *token.Token) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if secret != nil {
		secret.Authorize(request, "server")
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", url, answer.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// Local is a client of this machine's own server, with the password that its files hold.
func Local(c *config.Config) (*http.Client, token.Token, error) {
	ca, err := os.ReadFile(c.Dir("server/tls/server-ca.crt"))
	if err != nil {
		return nil, token.Token{}, err
	}
	text, err := os.ReadFile(c.Dir("server/token"))
	if err != nil {
		return nil, token.Token{}, err
	}
	secret, err := token.Parse(strings.TrimSpace(string(text)))
	return client(ca), secret, err
}
