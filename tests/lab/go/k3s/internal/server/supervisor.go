package server

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/kubernetes"

	"qwex.lab/k3s/internal/config"
	"qwex.lab/k3s/internal/etcd"
	"qwex.lab/k3s/internal/pki"
	"qwex.lab/k3s/internal/token"
)

// supervisor answers on the server's port from the very start: the cluster's CA, the nodes' certificates, what joining
// servers need; and everything else, once it is there, is the Kubernetes API.
type supervisor struct {
	c    *config.Config
	keys *credentials
	api  atomic.Pointer[http.Handler]
	kube atomic.Pointer[kubernetes.Clientset]
	etcd atomic.Pointer[etcd.Member]
	own  atomic.Pointer[string] // the password of the node that this server is, until it can be recorded
}

// serve listens and answers until ctx ends.
func (s *supervisor) serve(ctx context.Context, failed func(error)) error {
	listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", s.c.BindAddress, s.c.Port))
	if err != nil {
		return err
	}
	certificate, err := tls.LoadX509KeyPair(s.keys.path("tls/serving-kube-apiserver.crt"), s.keys.path("tls/serving-kube-apiserver.key"))
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: s.routes(),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12,
			ClientAuth: tls.RequestClientCert, // who it is, the API server finds out
			NextProtos: []string{"h2", "http/1.1"},
		},
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(logrus.StandardLogger().WriterLevel(logrus.DebugLevel), "", 0),
	}
	go func() {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			failed(err)
		}
	}()
	go func() {
		<-ctx.Done()
		if err := server.Close(); err != nil {
			logrus.Debugf("close the listener: %v", err)
		}
	}()
	return nil
}

func (s *supervisor) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cacerts", func(w http.ResponseWriter, _ *http.Request) { text(w, s.keys.server.PEM) })
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { text(w, []byte("pong")) })
	node := func(pattern string, handle http.HandlerFunc) { mux.Handle(pattern, s.nodes(handle)) }
	node("GET /v1-k3s/server-ca.crt", func(w http.ResponseWriter, _ *http.Request) { text(w, s.keys.server.PEM) })
	node("GET /v1-k3s/client-ca.crt", func(w http.ResponseWriter, _ *http.Request) { text(w, s.keys.client.PEM) })
	node("GET /v1-k3s/config", s.config)
	node("GET /v1-k3s/readyz", s.ready)
	node("GET /v1-k3s/apiservers", s.apiservers)
	node("POST /v1-k3s/client-kubelet.crt", s.owners(s.sign(s.keys.client, func(name, _ string) pki.Request {
		return pki.Request{Name: "system:node:" + name, Groups: []string{"system:nodes"}}
	})))
	node("POST /v1-k3s/serving-kubelet.crt", s.owners(s.sign(s.keys.server, func(name, address string) pki.Request {
		return pki.Request{Name: name, Server: true, SANs: []string{name, "localhost", "127.0.0.1", address}}
	})))
	node("POST /v1-k3s/client-kube-proxy.crt", s.sign(s.keys.client, func(string, string) pki.Request {
		return pki.Request{Name: "system:kube-proxy"}
	}))
	node("POST /v1-k3s/client-k3s-controller.crt", s.sign(s.keys.client, func(string, string) pki.Request {
		return pki.Request{Name: "system:k3s-controller"}
	}))
	server := func(pattern string, handle http.HandlerFunc) { mux.Handle(pattern, s.servers(handle)) }
	server("GET /v1-k3s/server-bootstrap", s.bootstrap)
	server("POST /v1-k3s/snapshots", s.snapshot)
	mux.HandleFunc("/", s.kubernetes)
	return mux
}

func (s *supervisor) kubernetes(w http.ResponseWriter, r *http.Request) {
	if api := s.api.Load(); api != nil {
		(*api).ServeHTTP(w, r)
		return
	}
	http.Error(w, "starting", http.StatusServiceUnavailable)
}

// nodes lets in who has the agents' password, the servers', or a bootstrap token.
func (s *supervisor) nodes(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		known := (user == "node" || user == "server") && (same(password, s.keys.agentPassword) || same(password, s.keys.password))
		if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			valid, err := s.bootstrapToken(r.Context(), bearer)
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			known = valid
		}
		if !known {
			http.Error(w, "not authorized", http.StatusUnauthorized)
			return
		}
		next(w, r)
	})
}

// servers lets in who has the servers' password.
func (s *supervisor) servers(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "server" || !same(password, s.keys.password) {
			http.Error(w, "not authorized", http.StatusUnauthorized)
			return
		}
		next(w, r)
	})
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func (s *supervisor) sign(authority *pki.Authority, name func(node, address string) pki.Request) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		node, address := r.Header.Get("K3s-Node-Name"), r.Header.Get("K3s-Node-IP")
		if node == "" || net.ParseIP(address) == nil {
			http.Error(w, "node name or address not set", http.StatusBadRequest)
			return
		}
		csr, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		certificate, err := authority.SignRequest(csr, name(node, address))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		text(w, certificate)
	}
}

func (s *supervisor) config(w http.ResponseWriter, r *http.Request) {
	c := s.c
	reply(w, map[string]any{
		"clusterCIDR": c.ClusterCIDR, "serviceCIDR": c.ServiceCIDR, "clusterDNS": c.ClusterDNS, "clusterDomain": c.ClusterDomain,
		"flannelBackend": c.FlannelBackend, "servers": s.addresses(r.Context()),
	})
}

func (s *supervisor) ready(w http.ResponseWriter, _ *http.Request) {
	if s.kube.Load() == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	text(w, []byte("ok"))
}

func (s *supervisor) apiservers(w http.ResponseWriter, r *http.Request) {
	reply(w, s.addresses(r.Context()))
}

// snapshot saves etcd's database on this server under the name asked for.
func (s *supervisor) snapshot(w http.ResponseWriter, r *http.Request) {
	member := s.etcd.Load()
	if member == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	path, err := snapshotPath(s.c, r.FormValue("name"))
	if err == nil {
		err = member.Snapshot(r.Context(), path)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	text(w, []byte(path))
}

// bootstrap hands a joining server the shared files, sealed with the password, and the cluster's critical settings.
func (s *supervisor) bootstrap(w http.ResponseWriter, _ *http.Request) {
	if !s.c.Clustered() {
		http.Error(w, "this server has no etcd cluster to join: start it with cluster-init", http.StatusBadRequest)
		return
	}
	member := s.etcd.Load()
	if member == nil {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	answer := Bootstrap{Critical: s.c.Critical(), Etcd: member.ClientURLs(), Files: map[string][]byte{}}
	for _, name := range shared {
		content, err := os.ReadFile(s.keys.path(name))
		if errors.Is(err, os.ErrNotExist) {
			continue // encryption and an agents' own password are optional
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer.Files[name] = content
	}
	plain, err := json.Marshal(answer)
	if err == nil {
		plain, err = token.Seal(s.keys.password, plain)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	text(w, plain)
}

func text(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "text/plain")
	if _, err := w.Write(body); err != nil {
		logrus.Debugf("answer: %v", err)
	}
}

func reply(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		logrus.Debugf("answer: %v", err)
	}
}
