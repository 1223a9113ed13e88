// Package network sets up a node's pod network: flannel between the nodes, a bridge on the node.
package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw" // a backend by this name
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"  // a backend by this name
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/iptables"
	log "github.com/sirupsen/logrus"
)

const (
	subnetFile = "/run/flannel/subnet.env" // where flannel's users look for it, k3s or not
	annotation = "flannel.alpha.coreos.com"
	resync     = 60 // seconds between two looks at the iptables rules
)

// Settings are what flannel and the bridge depend on.
type Settings struct {
	DataDir     string
	NodeName    string
	Kubeconfig  string // may list and watch nodes and patch this one
	Backend     string // vxlan or host-gw
	ClusterCIDR string
	Interface   string // empty: the one that holds NodeIP
	NodeIP      string
	PublicIP    string // what other nodes send to; empty: the interface's address
}

// Start brings flannel up and writes the CNI configuration; the node must have its pod range by now. It returns once
// pods can be connected.
//
// Flannel then runs as long as the process: its rules and devices stay when the service stops, as the pods do. When the
// interface it was started on is deleted and made anew, flannel.1 is gone until the service restarts: so does the k3s of
// this version.
func Start(ctx context.Context, s Settings, ready func(context.Context) error) error {
	link, err := s.link()
	if err != nil {
		return fmt.Errorf("flannel: %w", err)
	}
	file, err := s.write()
	if err != nil {
		return fmt.Errorf("flannel: %w", err)
	}
	// Flannel's own clean-up takes its rules away when its context ends; running pods need them.
	forever := context.WithoutCancel(ctx)
	if err := os.Setenv("NODE_NAME", s.NodeName); err != nil {
		return err
	}
	manager, err := kube.NewSubnetManager(forever, "", s.Kubeconfig, annotation, file, false)
	if err != nil {
		return fmt.Errorf("flannel: %w", err)
	}
	config, err := manager.GetNetworkConfig(forever)
	if err != nil {
		return fmt.Errorf("flannel: %w", err)
	}
	kind, err := backend.NewManager(forever, manager, link).GetBackend(config.BackendType)
	if err != nil {
		return fmt.Errorf("flannel: %w", err)
	}
	var running sync.WaitGroup
	net, err := kind.RegisterNetwork(forever, &running, config)
	if err != nil {
		return fmt.Errorf("flannel: %w", err)
	}
	previousNetwork, previousSubnet := previous("FLANNEL_NETWORK"), previous("FLANNEL_SUBNET")
	rules := &iptables.IPTablesManager{}
	if err := rules.Init(forever, &running); err != nil {
		return fmt.Errorf("flannel: %w", err)
	}
	lease := net.Lease()
	err = rules.SetupAndEnsureMasqRules(forever, config.Network, previousSubnet, previousNetwork,
		ip.IP6Net{}, ip.IP6Net{}, ip.IP6Net{}, lease, resync)
	if err != nil {
		return fmt.Errorf("flannel: %w", err)
	}
	rules.SetupAndEnsureForwardRules(forever, config.Network, ip.IP6Net{}, resync)
	if err := manager.HandleSubnetFile(subnetFile, config, true, lease.Subnet, lease.IPv6Subnet, net.MTU()); err != nil {
		return fmt.Errorf("flannel: %s: %w", subnetFile, err)
	}
	go net.Run(forever)
	log.Infof("Flannel runs: backend %s on %s, pods of this node %s, MTU %d", s.Backend, link.Iface.Name, lease.Subnet, net.MTU())
	if err := ready(ctx); err != nil {
		return err
	}
	return Bridge(s.DataDir, lease.Subnet.String(), net.MTU())
}

// link is the interface that carries the traffic between nodes.
func (s Settings) link() (*backend.ExternalInterface, error) {
	name := s.Interface
	if name == "" {
		name = s.NodeIP
	}
	const ipv4 = 0 // what ipmatch.GetIPFamily answers for it
	link, err := ipmatch.LookupExtIface(name, "", "", ipv4, ipmatch.PublicIPOpts{PublicIP: s.PublicIP})
	if err != nil {
		return nil, fmt.Errorf("interface for %s: %w", name, err)
	}
	// Several addresses on the interface: the node's own, where it is among them, and not the first that comes.
	if s.Interface != "" && s.PublicIP == "" && holds(link.Iface, s.NodeIP) {
		link.IfaceAddr, link.ExtAddr = net.ParseIP(s.NodeIP), net.ParseIP(s.NodeIP)
	}
	return link, nil
}

func holds(device *net.Interface, address string) bool {
	addresses, err := device.Addrs()
	if err != nil {
		return false
	}
	for _, each := range addresses {
		if network, ok := each.(*net.IPNet); ok && network.IP.Equal(net.ParseIP(address)) {
			return true
		}
	}
	return false
}

// write puts flannel's own configuration where k3s has it.
func (s Settings) write() (string, error) {
	kind := map[string]any{"Type": s.Backend}
	if s.Backend == "vxlan" {
		kind["VNI"], kind["Port"] = 1, 8472
	}
	text, err := json.MarshalIndent(map[string]any{
		"Network": s.ClusterCIDR, "EnableIPv4": true, "EnableIPv6": false, "Backend": kind,
	}, "", "  ")
	if err != nil {
		return "", err
	}
	file := filepath.Join(s.DataDir, "agent", "etc", "flannel", "net-conf.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", err
	}
	return file, os.WriteFile(file, text, 0o600)
}
