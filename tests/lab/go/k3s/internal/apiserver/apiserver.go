// Package apiserver runs the Kubernetes API server in this process, and its controller manager and scheduler as children.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/grpc/grpclog"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"qwex.lab/k3s/internal/config"
	"qwex.lab/k3s/internal/etcd"
)

// LocalPort is the API server's own, on loopback; the world comes through the supervisor's port.
const LocalPort = 6444

// Server is an API server that is set up but does not run yet.
type Server struct {
	Handler http.Handler
	run     func(context.Context) error
}

// Run blocks until ctx ends.
func (s *Server) Run(ctx context.Context) error { return s.run(ctx) }

func init() {
	// The many short-lived connections to etcd that Kubernetes makes and drops at the start are nothing to warn of.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
}

// New sets up the API server; etcd must answer. It works once in a process: Kubernetes keeps global state.
func New(ctx context.Context, c *config.Config) (*Server, error) {
	o := options.NewServerRunOptions()
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, set := range o.Flags().FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(arguments(apiServerArguments(c), c.APIServerArgs)); err != nil {
		return nil, fmt.Errorf("kube-apiserver-arg: %w", err)
	}
	if err := o.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, err
	}
	gates := o.GenericServerRunOptions.ComponentGlobalsRegistry.FeatureGateFor("kube")
	if err := logsapi.ValidateAndApply(o.Logs, gates); err != nil {
		return nil, err
	}
	completed, err := o.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	settings, err := app.NewConfig(completed)
	if err != nil {
		return nil, err
	}
	// The service `kubernetes` leads to the port that the listener names: the supervisor's.
	serving := settings.KubeAPIs.ControlPlane.Generic.SecureServing
	serving.Listener = advertised{serving.Listener, &net.TCPAddr{IP: net.IPv4zero, Port: c.Port}}
	ready, err := settings.Complete()
	if err != nil {
		return nil, err
	}
	chain, err := app.CreateServerChain(ready)
	if err != nil {
		return nil, err
	}
	prepared, err := chain.PrepareRun()
	if err != nil {
		return nil, err
	}
	return &Server{Handler: chain.GenericAPIServer.Handler, run: func(ctx context.Context) error {
		if err := prepared.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("kube-apiserver: %w", err)
		}
		return nil
	}}, nil
}

// advertised is a listener that claims another address.
type advertised struct {
	net.Listener
	address net.Addr
}

func (l advertised) Addr() net.Addr { return l.address }

func apiServerArguments(c *config.Config) []string {
	tls := func(name string) string { return c.Dir("server/tls", name) }
	all := []string{
		"advertise-address=" + c.AdvertiseAddress,
		"allow-privileged=true",
		"anonymous-auth=false",
		"api-audiences=https://kubernetes.default.svc." + c.ClusterDomain + ",k3s",
		"authorization-mode=Node,RBAC",
		"bind-address=127.0.0.1",
		fmt.Sprintf("secure-port=%d", LocalPort),
		"cert-dir=" + c.Dir("server/tls/temporary-certs"),
		"client-ca-file=" + tls("client-ca.crt"),
		"enable-admission-plugins=NodeRestriction",
		"enable-aggregator-routing=true", // straight to the pods: nothing is sent to a service before kube-proxy has it
		"enable-bootstrap-token-auth=true",
		"etcd-servers=" + etcd.Endpoint,
		"etcd-cafile=" + tls("etcd/server-ca.crt"),
		"etcd-certfile=" + tls("etcd/client.crt"),
		"etcd-keyfile=" + tls("etcd/client.key"),
		"kubelet-certificate-authority=" + tls("server-ca.crt"),
		"kubelet-client-certificate=" + tls("client-kube-apiserver.crt"),
		"kubelet-client-key=" + tls("client-kube-apiserver.key"),
		"kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		"profiling=false",
		"proxy-client-cert-file=" + tls("client-auth-proxy.crt"),
		"proxy-client-key-file=" + tls("client-auth-proxy.key"),
		"requestheader-allowed-names=system:auth-proxy",
		"requestheader-client-ca-file=" + tls("request-header-ca.crt"),
		"requestheader-extra-headers-prefix=X-Remote-Extra-",
		"requestheader-group-headers=X-Remote-Group",
		"requestheader-username-headers=X-Remote-User",
		"service-account-issuer=https://kubernetes.default.svc." + c.ClusterDomain,
		"service-account-key-file=" + tls("service.key"),
		"service-account-signing-key-file=" + tls("service.key"),
		"service-cluster-ip-range=" + c.ServiceCIDR,
		"service-node-port-range=" + c.NodePorts,
		"storage-backend=etcd3",
		"tls-cert-file=" + tls("serving-kube-apiserver.crt"),
		"tls-private-key-file=" + tls("serving-kube-apiserver.key"),
	}
	if c.SecretsEncryption {
		all = append(all, "encryption-provider-config="+c.Dir("server/cred/encryption-config.json"))
	}
	return all
}

// arguments puts the operator's behind k3s's own, of which one that the operator names too is left out.
func arguments(own, given []string) []string {
	name := func(argument string) string {
		before, _, _ := strings.Cut(strings.TrimLeft(argument, "-"), "=")
		return before
	}
	named := map[string]bool{}
	for _, argument := range given {
		named[name(argument)] = true
	}
	var all []string
	for _, argument := range own {
		if !named[name(argument)] {
			all = append(all, "--"+argument)
		}
	}
	for _, argument := range given {
		all = append(all, "--"+strings.TrimLeft(argument, "-"))
	}
	return all
}
