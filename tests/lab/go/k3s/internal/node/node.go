package node

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	log "github.com/sirupsen/logrus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"qwex.lab/k3s/internal/config"
	"qwex.lab/k3s/internal/containerd"
	_ "qwex.lab/k3s/internal/containerd/crictl" // k3s crictl
	"qwex.lab/k3s/internal/images"
	"qwex.lab/k3s/internal/lb"
	"qwex.lab/k3s/internal/network"
	"qwex.lab/k3s/internal/network/policy"
	"qwex.lab/k3s/internal/node/child"
	"qwex.lab/k3s/internal/payload"
)

const (
	proxyMetrics = "127.0.0.1:10249"
	pollEvery    = 200 * time.Millisecond
)

// Run starts the node's parts and blocks until ctx ends (nil) or one of them dies for good (an error).
// It calls ready once: the API is reachable and the node's network is up. Pods go on running when it returns.
func Run(ctx context.Context, o Options, ready func()) error {
	err := run(ctx, o, ready)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func run(parent context.Context, given Options, ready func()) error {
	o, err := given.complete()
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(parent)
	defer end(nil)
	n := &node{Options: o, ctx: ctx, end: end}
	defer n.stop()
	if err := n.start(); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			return cause // what ended the start, rather than what it was at
		}
		return err
	}
	ready()
	<-ctx.Done()
	return context.Cause(ctx)
}

// node is one running node.
type node struct {
	Options
	ctx      context.Context
	end      context.CancelCauseFunc
	children []*child.Child
	cluster  Cluster
	api      string // URL of the API server for this node's components
	balancer *lb.Balancer
	kube     kubernetes.Interface
}

// start is the order of things. Nothing dials a service before kube-proxy has its rules: the CNI configuration, without
// which no pod gets a network, is written last.
func (n *node) start() error {
	steps := []func() error{n.join, n.runtime, n.runKubelet, n.registered, n.runProxy, n.connect}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) join() error {
	n.api = n.ServerURL
	if !n.IsServer {
		parsed, err := url.Parse(n.ServerURL)
		if err != nil || parsed.Host == "" {
			return fmt.Errorf("server %q is no URL like https://host:6443", n.ServerURL)
		}
		server := parsed.Host
		if parsed.Port() == "" {
			server = net.JoinHostPort(parsed.Hostname(), "443")
		}
		list := filepath.Join(n.agent(), "etc", "k3s-agent-load-balancer.json")
		if n.balancer, err = lb.New(lb.Address, server, list); err != nil {
			return err
		}
		n.background("load balancer", n.balancer.Run)
		n.api = "https://" + lb.Address
	}
	server, cluster, err := join(n.ctx, n.Options, n.api)
	if err != nil {
		return err
	}
	n.cluster = cluster.or(n.Options)
	if n.IsServer {
		return nil
	}
	text, err := server.do(n.ctx, http.MethodGet, "/v1-k3s/apiservers", nil)
	if err != nil {
		return err
	}
	var servers []string
	if err := json.Unmarshal(text, &servers); err != nil {
		return fmt.Errorf("/v1-k3s/apiservers: %w", err)
	}
	return n.balancer.Update(servers)
}

func (n *node) runtime() error {
	bin, err := payload.Ensure(n.DataDir)
	if err != nil {
		return err
	}
	if err := network.Prepare(n.DataDir); err != nil {
		return err
	}
	registries, err := containerd.ReadRegistries(n.PrivateRegistry)
	if err != nil {
		return err
	}
	server, err := containerd.Start(n.ctx, containerd.Settings{
		DataDir: n.DataDir, Bin: bin, PauseImage: n.PauseImage, Snapshotter: n.Snapshotter, Registries: registries,
	})
	if err != nil {
		return err
	}
	n.adopt(server.Child)
	log.Info("Containerd is now running")
	store := images.Containerd{Client: server.Client, Snapshotter: n.Snapshotter}
	folder := &images.Folder{Path: filepath.Join(n.agent(), "images"), Store: store}
	if err := folder.Load(n.ctx); err != nil {
		return err
	}
	n.background("image folder", folder.Watch)
	return nil
}

func (n *node) runKubelet() error {
	for name, certificate := range map[string]string{
		"kubelet": "client-kubelet", "kubeproxy": "client-kube-proxy", "k3scontroller": "client-k3s-controller",
	} {
		if err := kubeconfig(filepath.Join(n.agent(), name+".kubeconfig"), n.api, n.agent(), certificate); err != nil {
			return err
		}
	}
	client, err := clientcmd.BuildConfigFromFlags("", filepath.Join(n.agent(), "k3scontroller.kubeconfig"))
	if err != nil {
		return err
	}
	if n.kube, err = kubernetes.NewForConfig(client); err != nil {
		return err
	}
	line, err := n.kubelet(n.cluster)
	if err != nil {
		return err
	}
	return n.component(line)
}

// registered waits for the node to be known to the API, and for its range of pod addresses.
func (n *node) registered() error {
	if err := describe(n.ctx, n.kube, n.Options); err != nil {
		return err
	}
	if n.balancer != nil {
		if err := follow(n.ctx, n.kube, n.balancer); err != nil {
			return err
		}
	}
	said := ""
	return n.until(func() (bool, error) {
		found, err := n.kube.CoreV1().Nodes().Get(n.ctx, n.NodeName, meta.GetOptions{})
		state := "its pod range"
		if err != nil {
			state = "its registration"
			if !apierrors.IsNotFound(err) {
				state = fmt.Sprintf("the API: %v", err)
			}
		}
		if state != said {
			log.Infof("Node %s waits for %s", n.NodeName, state)
			said = state
		}
		return err == nil && (found.Spec.PodCIDR != "" || !n.WithFlannel), nil
	})
}

func (n *node) runProxy() error {
	if !n.WithProxy {
		return nil
	}
	return n.component(n.proxy(n.cluster))
}

func (n *node) connect() error {
	if n.WithNetworkPolicy { // before any pod has a network
		if err := policy.Run(n.ctx, n.kube, n.NodeName); err != nil {
			return err
		}
	}
	if !n.WithFlannel || n.cluster.FlannelBackend == "none" {
		return n.proxied(n.ctx)
	}
	return network.Start(n.ctx, network.Settings{
		DataDir: n.DataDir, NodeName: n.NodeName, Kubeconfig: filepath.Join(n.agent(), "k3scontroller.kubeconfig"),
		Backend: n.cluster.FlannelBackend, ClusterCIDR: n.cluster.ClusterCIDR, Interface: n.FlannelIface, NodeIP: n.NodeIP,
	}, n.proxied)
}

// proxied waits until kube-proxy has written its rules. Its health page says well before the first time, too.
func (n *node) proxied(ctx context.Context) error {
	if !n.WithProxy {
		return nil
	}
	http := http.Client{Timeout: 2 * time.Second}
	return n.until(func() (bool, error) {
		request, err := newRequest(ctx, "http://"+proxyMetrics+"/metrics")
		if err != nil {
			return false, err
		}
		answer, err := http.Do(request)
		if err != nil {
			return false, nil // it does not listen yet
		}
		defer answer.Body.Close()
		lines := bufio.NewScanner(answer.Body)
		for lines.Scan() {
			line := lines.Text()
			if strings.HasPrefix(line, "kubeproxy_sync_proxy_rules_last_timestamp_seconds") && !strings.HasSuffix(line, " 0") {
				return true, nil
			}
		}
		return false, nil
	})
}

func newRequest(ctx context.Context, url string) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
}

// until polls: there is no deadline, since a node waits for its cluster as long as it takes.
func (n *node) until(done func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-n.ctx.Done():
			return context.Cause(n.ctx)
		case <-tick.C:
		}
	}
}

// component starts this program once more as one of Kubernetes' own.
func (n *node) component(line []string) error {
	self, err := child.Self()
	if err != nil {
		return err
	}
	log.Infof("Running %s", strings.Join(line, " "))
	process, err := child.Start(line[0], append([]string{self}, line...), nil, os.Stderr)
	if err != nil {
		return err
	}
	n.adopt(process)
	return nil
}

// adopt ends the node when a part of it dies.
func (n *node) adopt(process *child.Child) {
	n.children = append(n.children, process)
	go func() {
		<-process.Done()
		if n.ctx.Err() == nil {
			n.end(process.Wait(context.Background()))
		}
	}()
}

func (n *node) background(what string, work func(context.Context) error) {
	go func() {
		if err := work(n.ctx); err != nil {
			n.end(fmt.Errorf("%s: %w", what, err))
		}
	}()
}

// stop ends the parts, those first that were started last.
func (n *node) stop() {
	n.end(nil)
	for i := len(n.children) - 1; i >= 0; i-- {
		n.children[i].Stop()
	}
}

// or takes the node's own settings where the server says nothing.
func (c Cluster) or(o Options) Cluster {
	c.ClusterCIDR = cmp.Or(c.ClusterCIDR, o.ClusterCIDR)
	c.ClusterDNS = cmp.Or(c.ClusterDNS, o.ClusterDNS)
	c.ClusterDomain = cmp.Or(c.ClusterDomain, o.ClusterDomain)
	c.FlannelBackend = cmp.Or(c.FlannelBackend, o.FlannelBackend)
	return c
}

// agent is the directory of all that a node keeps.
func (o Options) agent() string { return filepath.Join(o.DataDir, "agent") }

// complete fills in what was left out.
func (o Options) complete() (Options, error) {
	if o.DataDir == "" {
		o.DataDir = "/var/lib/rancher/k3s"
	}
	if o.Snapshotter == "" {
		o.Snapshotter = "overlayfs"
	}
	if o.PauseImage == "" {
		o.PauseImage = "rancher/mirrored-pause:3.6"
	}
	if o.PrivateRegistry == "" {
		o.PrivateRegistry = "/etc/rancher/k3s/registries.yaml"
	}
	if o.NodePassword == "" {
		o.NodePassword = "/etc/rancher/node/password"
	}
	if o.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return o, err
		}
		o.NodeName = name
	}
	o.NodeName = strings.ToLower(o.NodeName)
	if o.NodeIP == "" {
		address, err := config.Address(o.FlannelIface)
		if err != nil {
			return o, err
		}
		o.NodeIP = address
	}
	return o, nil
}
