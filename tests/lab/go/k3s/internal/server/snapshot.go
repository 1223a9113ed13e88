package server

import (
	"fmt"
	"path/filepath"
	"time"

	"qwex.lab/k3s/internal/config"
)

// snapshotPath names a snapshot as k3s does: <name>-<node>-<seconds since 1970>.
func snapshotPath(c *config.Config, name string) (string, error) {
	if name == "" {
		name = "on-demand"
	}
	if filepath.Base(name) != name {
		return "", fmt.Errorf("%s is not a plain file name", name)
	}
	return filepath.Join(c.SnapshotDir, fmt.Sprintf("%s-%s-%d", name, c.NodeName, time.Now().Unix())), nil
}
