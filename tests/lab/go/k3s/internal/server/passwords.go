package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// errRejected is k3s's answer to a machine that comes with another's name, or with its own after it was made anew.
var errRejected = errors.New("Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' " +
	"may not match server node-passwd entry, try enabling a unique node name with the --with-node-id flag")

// passwordSecret is what holds a node's password, from its first certificate until its Node is deleted.
func passwordSecret(node string) string { return node + ".node-password.k3s" }

// claim records a node's password, or compares it with the one on record.
func claim(ctx context.Context, kube *kubernetes.Clientset, node, password string) error {
	sum := sha256.Sum256([]byte(password)) // of a long random word: nothing to guess at
	hash := hex.EncodeToString(sum[:])
	secrets := kube.CoreV1().Secrets(metav1.NamespaceSystem)
	found, err := secrets.Get(ctx, passwordSecret(node), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: passwordSecret(node)}, Data: map[string][]byte{"hash": []byte(hash)},
		}, metav1.CreateOptions{})
		return err
	}
	if err == nil && !same(hash, string(found.Data["hash"])) {
		return errRejected
	}
	return err
}

// disclaim forgets the password of a node whose Node object is gone.
func disclaim(ctx context.Context, kube *kubernetes.Clientset, node string) error {
	err := kube.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, passwordSecret(node), metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// owners lets in only the machine that a node's name belongs to. A server's own node comes before there is an API to
// record it in: its password is recorded by claimOwn.
func (s *supervisor) owners(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		node, password := r.Header.Get("K3s-Node-Name"), r.Header.Get("K3s-Node-Password")
		if node == "" || password == "" {
			http.Error(w, "node name or password not set", http.StatusBadRequest)
			return
		}
		kube := s.kube.Load()
		if kube == nil && node == s.c.NodeName {
			s.own.Store(&password)
			next(w, r)
			return
		}
		if kube == nil {
			http.Error(w, "runtime core not ready", http.StatusServiceUnavailable)
			return
		}
		if err := claim(r.Context(), kube, node, password); errors.Is(err, errRejected) {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		} else if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		next(w, r)
	}
}

// claimOwn records this server's own node once the API is there; what stands in the way is logged, and tried again.
func (s *supervisor) claimOwn(ctx context.Context, kube *kubernetes.Clientset) {
	for password := s.own.Load(); password != nil; {
		err := claim(ctx, kube, s.c.NodeName, *password)
		if err == nil || ctx.Err() != nil {
			return
		}
		logrus.Errorf("Failed to record this node's password: %v", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}
