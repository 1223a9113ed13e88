package network

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/flannel-io/flannel/pkg/ip"

	"qwex.lab/k3s/internal/containerd"
)

func conflist(dataDir string) string {
	return filepath.Join(containerd.NetworkConfig(dataDir), "10-flannel.conflist")
}

// Bridge tells containerd how to connect a pod: to cni0, with an address out of the node's range. The node becomes Ready.
//
// It is what k3s's flannel plugin derives from subnet.env and hands on to the bridge plugin, written down.
func Bridge(dataDir, podRange string, mtu int) error {
	file := conflist(dataDir)
	text, err := json.MarshalIndent(map[string]any{
		"name":       "cbr0",
		"cniVersion": "1.0.0",
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": "cni0", "mtu": mtu, "hairpinMode": true, "forceAddress": true,
				"isGateway": true, "isDefaultGateway": true, "ipMasq": false,
				"ipam": map[string]any{
					"type": "host-local", "ranges": [][]any{{map[string]any{"subnet": podRange}}},
					"dataDir": "/var/lib/cni/networks",
				},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
			map[string]any{"type": "bandwidth", "capabilities": map[string]any{"bandwidth": true}},
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o711); err != nil {
		return err
	}
	draft := file + ".new" // containerd reads *.conf and *.conflist only
	if err := os.WriteFile(draft, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, file)
}

// Prepare forgets the CNI configuration of before a reboot: the kernel's side of it is gone, so no pod may be connected
// until Start has made it anew. After a mere restart of the service it stays, and so do the pods.
func Prepare(dataDir string) error {
	if _, err := os.Stat(subnetFile); err == nil {
		return nil
	}
	err := os.Remove(conflist(dataDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// previous is a range that subnet.env names: flannel replaces its rules when it has changed. Empty if there is none.
func previous(key string) ip.IP4Net {
	var none ip.IP4Net
	file, err := os.Open(subnetFile)
	if err != nil {
		return none
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		value, found := strings.CutPrefix(lines.Text(), key+"=")
		if !found {
			continue
		}
		var range4 ip.IP4Net
		if err := range4.UnmarshalJSON([]byte(fmt.Sprintf("%q", value))); err != nil {
			return none
		}
		return range4
	}
	return none
}
