// Package server is `k3s server`: the supervisor's port, etcd, the Kubernetes control plane, the packaged components, and
// the node that a server is as well.
package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"qwex.lab/k3s/internal/addons"
	"qwex.lab/k3s/internal/apiserver"
	"qwex.lab/k3s/internal/config"
	"qwex.lab/k3s/internal/etcd"
	"qwex.lab/k3s/internal/node"
	"qwex.lab/k3s/internal/token"
)

var everything = labels.Everything()

// Run blocks until ctx ends (nil) or the server cannot go on. It calls ready once all that systemd waits for is there.
func Run(ctx context.Context, c *config.Config, ready func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel(nil)
	start := func(name string, run func() error) {
		parts.Go(func() {
			if err := run(); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}

	keys, members, err := prepare(ctx, c)
	if err != nil {
		return final(ctx, err)
	}
	s := &supervisor{c: c, keys: keys}
	if err := s.serve(ctx, func(err error) { cancel(err) }); err != nil {
		return err
	}
	logrus.Infof("To join server node to cluster: k3s server -s https://%s:%d -t ${SERVER_NODE_TOKEN}", c.AdvertiseAddress, c.Port)
	logrus.Infof("To join agent node to cluster: k3s agent -s https://%s:%d -t ${AGENT_NODE_TOKEN}", c.AdvertiseAddress, c.Port)
	logrus.Infof("Wrote kubeconfig %s", c.Kubeconfig)

	joined := make(chan struct{})
	if c.DisableAgent {
		close(joined)
	} else {
		start("node", func() error {
			return node.Run(ctx, options(c, keys), sync.OnceFunc(func() { close(joined) }))
		})
	}

	member, err := etcd.Start(ctx, etcd.Options{
		Dir: c.Dir("server/db/etcd"), TLS: c.Dir("server/tls/etcd"), Name: c.NodeName, Address: c.NodeIP[0],
		Clustered: c.Clustered(), Args: c.EtcdArgs,
	}, members)
	if err != nil {
		return final(ctx, err)
	}
	defer member.Close()
	defer parts.Wait() // the API server ends before its database does
	defer cancel(nil)
	s.etcd.Store(member)
	start("etcd", func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-member.Stopped():
			return errors.New("this member was removed from the cluster, or cannot run")
		case err := <-member.Err():
			return err
		}
	})
	api, err := apiserver.New(ctx, c)
	if err != nil {
		return final(ctx, err)
	}
	start("kube-apiserver", func() error { return api.Run(ctx) })
	s.api.Store(&api.Handler)

	settings, kube, err := clients(c)
	if err != nil {
		return err
	}
	if err := wait(ctx, kube); err != nil {
		return final(ctx, err)
	}
	logrus.Info("Kube API server is now running")
	s.kube.Store(kube)
	start("node password", func() error { s.claimOwn(ctx, kube); return nil })
	start("components", func() error { apiserver.Components(ctx, c); return nil })
	start("nodes", func() error { return nodes(ctx, kube, c, member) })
	start("addons", func() error { return addons.Run(ctx, c, settings) })

	select {
	case <-joined:
		logrus.Info("k3s is up and running")
		ready()
	case <-ctx.Done():
	}
	<-ctx.Done()
	return final(ctx, nil)
}

// final is the reason why all ends: a failed part's, the caller's own, or none when it was asked to.
func final(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.Canceled) {
			return nil
		}
		return cause
	}
	return err
}

// prepare settles keys, tokens and certificates, with the cluster's if there is one to join; then it returns the client
// URLs of its etcd members.
func prepare(ctx context.Context, c *config.Config) (*credentials, []string, error) {
	if err := os.MkdirAll(c.Dir("server"), 0o700); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(c.LocalStoragePath, 0o701); err != nil {
		return nil, nil, err
	}
	keys := &credentials{c: c}
	var members []string
	if c.ServerURL != "" && !etcd.Exists(c.Dir("server/db/etcd")) {
		found, err := keys.join(ctx)
		if err != nil {
			return nil, nil, err
		}
		members = found.Etcd
	} else if c.ServerURL != "" {
		if err := keys.compare(ctx); err != nil {
			return nil, nil, err
		}
	}
	for _, step := range []func() error{keys.ensureShared, keys.ensurePasswords, keys.writeTokens, keys.ensureLeaves} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	return keys, members, nil
}

// compare refuses settings that differ from those of the server that was joined once; that it is away now is no matter.
func (k *credentials) compare(ctx context.Context) error {
	secret, err := token.Parse(k.c.Token)
	if err != nil {
		return err
	}
	found, err := fetch(ctx, k.c.ServerURL, secret)
	if err != nil {
		logrus.Warnf("Settings are not compared with those of %s: %v", k.c.ServerURL, err)
		return nil
	}
	return k.c.Critical().Mismatch(found.Critical)
}

func options(c *config.Config, keys *credentials) node.Options {
	return node.Options{
		DataDir: c.DataDir, NodeName: c.NodeName, NodeIP: c.NodeIP[0], NodeExternalIP: first(c.NodeExternalIP),
		FlannelIface: c.FlannelIface, FlannelBackend: c.FlannelBackend,
		ServerURL: fmt.Sprintf("https://127.0.0.1:%d", c.Port), CA: keys.server.PEM,
		Password: token.Format(keys.server.PEM, "server", keys.password),
		Labels:   c.NodeLabels, Taints: c.NodeTaints, KubeletArgs: c.KubeletArgs, KubeProxyArgs: c.KubeProxyArgs,
		ClusterCIDR: c.ClusterCIDR, ClusterDNS: c.ClusterDNS, ClusterDomain: c.ClusterDomain, PauseImage: c.PauseImage,
		PrivateRegistry: c.PrivateRegistry, WithProxy: !c.DisableKubeProxy, WithFlannel: c.FlannelBackend != "none",
		WithNetworkPolicy: !c.DisableNetworkPolicy, Snapshotter: c.Snapshotter, IsServer: true,
	}
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

func clients(c *config.Config) (*rest.Config, *kubernetes.Clientset, error) {
	settings, err := clientcmd.BuildConfigFromFlags("", c.Dir("server/cred/supervisor.kubeconfig"))
	if err != nil {
		return nil, nil, err
	}
	settings.QPS, settings.Burst = 50, 100
	kube, err := kubernetes.NewForConfig(settings)
	return settings, kube, err
}

// wait returns when the API server says that it is ready, its start-up hooks included.
func wait(ctx context.Context, kube *kubernetes.Clientset) error {
	for {
		_, err := kube.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err == nil {
			return nil
		}
		logrus.Debugf("Waiting for API server to become available: %v", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
