package node

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"qwex.lab/k3s/internal/token"
)

func TestTheOperatorsArgumentsWin(t *testing.T) {
	got := arguments("kubelet", []string{"node-ip=10.0.0.1", "v=1"}, []string{"v=4", "--max-pods=5", "max-pods=6"})
	want := []string{"kubelet", "--node-ip=10.0.0.1", "--v=4", "--max-pods=5", "--max-pods=6"}
	if !slices.Equal(got, want) {
		t.Fatal(got)
	}
}

func TestTheKubeletsSettings(t *testing.T) {
	o := Options{DataDir: t.TempDir(), NodeName: "n1", NodeIP: "10.0.0.1", Labels: []string{"a=b", "c=d"}, Taints: []string{"x=y:NoSchedule"}}
	line, err := o.kubelet(Cluster{ClusterDNS: "10.43.0.10", ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--node-labels=a=b,c=d", "--register-with-taints=x=y:NoSchedule", "--node-ip=10.0.0.1"} {
		if !slices.Contains(line, flag) {
			t.Errorf("%v lacks %s", line, flag)
		}
	}
	text, err := os.ReadFile(filepath.Join(o.agent(), "etc", "kubelet.conf.d", "00-k3s-defaults.conf"))
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	if err := yaml.Unmarshal(text, &settings); err != nil {
		t.Fatal(err)
	}
	if settings["providerID"] != "k3s://n1" || settings["failCgroupV1"] != false || settings["cgroupDriver"] != "cgroupfs" {
		t.Fatalf("%s", text)
	}
}

func TestNameServersOnLoopbackAreOfNoUse(t *testing.T) {
	for text, want := range map[string]bool{
		"nameserver 10.0.0.1\n": true, "nameserver 127.0.0.11\n": false, "nameserver ::1\nnameserver 10.0.0.1\n": false, "search lab\n": false,
	} {
		file := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := reachable(file); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestAPIServersOfSlices(t *testing.T) {
	port := int32(6443)
	got := apiServers([]*discovery.EndpointSlice{{
		Ports:     []discovery.EndpointPort{{Port: &port}},
		Endpoints: []discovery.Endpoint{{Addresses: []string{"10.0.0.1"}}, {Addresses: []string{"fd00::1"}}},
	}})
	if !slices.Equal(got, []string{"10.0.0.1:6443", "[fd00::1]:6443"}) {
		t.Fatal(got)
	}
}

func TestANodeGetsItsAddressesAndLosesTheTaint(t *testing.T) {
	own := core.Taint{Key: "mine", Effect: core.TaintEffectNoSchedule}
	kube := fake.NewClientset(&core.Node{
		ObjectMeta: meta.ObjectMeta{Name: "n1", Labels: map[string]string{"kept": "yes"}},
		Spec:       core.NodeSpec{Taints: []core.Taint{{Key: uninitialized}, own}},
		Status:     core.NodeStatus{Addresses: []core.NodeAddress{{Type: core.NodeInternalIP, Address: "10.0.0.9"}}},
	})
	o := Options{NodeName: "n1", NodeIP: "10.0.0.1", NodeExternalIP: "198.51.100.1"}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := describe(ctx, kube, o); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		node, err := kube.CoreV1().Nodes().Get(ctx, "n1", meta.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		done := slices.Equal(node.Spec.Taints, []core.Taint{own}) && slices.Equal(node.Status.Addresses, o.addresses()) &&
			node.Labels["kept"] == "yes" && node.Labels[core.LabelInstanceTypeStable] == "k3s" &&
			node.Annotations["k3s.io/external-ip"] == "198.51.100.1"
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v %+v", node.Spec, node.Status)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// standIn answers as a server does, once it is up.
func standIn(t *testing.T, up *atomic.Bool, password string) *httptest.Server {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, given, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/cacerts":
			if user != "" {
				t.Error("the password was shown to an unknown server")
			}
		case user != "node" || given != password:
			http.Error(w, "not authorized", http.StatusUnauthorized)
			return
		case !up.Load():
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		switch {
		case r.URL.Path == "/v1-k3s/config":
			if err := json.NewEncoder(w).Encode(Cluster{ClusterCIDR: "10.42.0.0/16"}); err != nil {
				t.Error(err)
			}
		default:
			_, _ = w.Write([]byte(r.Header.Get("K3s-Node-Name") + r.Header.Get("K3s-Node-IP")))
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestJoining(t *testing.T) {
	var up atomic.Bool
	server := standIn(t, &up, "secret")
	o := Options{DataDir: t.TempDir(), NodeName: "n1", NodeIP: "10.0.0.1", Password: "secret", ServerURL: server.URL, CA: certificate(server)}
	o.NodePassword = filepath.Join(t.TempDir(), "node", "password")
	time.AfterFunc(100*time.Millisecond, func() { up.Store(true) })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, cluster, err := join(ctx, o, server.URL)
	if word, err := password(o.NodePassword); err != nil || len(word) != 32 {
		t.Fatal(word, err)
	}
	if err != nil || cluster.ClusterCIDR != "10.42.0.0/16" {
		t.Fatal(cluster, err)
	}
	text, err := os.ReadFile(filepath.Join(o.agent(), "client-kubelet.crt"))
	if err != nil || string(text) != "n110.0.0.1" {
		t.Fatalf("%s %v", text, err)
	}
	info, err := os.Stat(filepath.Join(o.agent(), "client-kubelet.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
}

func TestABadTokenIsTriedForEver(t *testing.T) {
	var up atomic.Bool
	up.Store(true)
	server := standIn(t, &up, "secret")
	for _, password := range []string{"wrong", token.Format([]byte("another CA"), "node", "secret")} {
		o := Options{DataDir: t.TempDir(), NodeName: "n1", NodeIP: "10.0.0.1", Password: password, ServerURL: server.URL}
		o.NodePassword = filepath.Join(t.TempDir(), "password")
		if !strings.HasPrefix(password, "K10") {
			o.CA = certificate(server)
		}
		ctx, cancel := context.WithTimeout(context.Background(), retryEvery+retryEvery/2)
		_, _, err := join(ctx, o, server.URL)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s: %v", password, err)
		}
	}
}

func certificate(server *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}
