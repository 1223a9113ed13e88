package cmd

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime/debug"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
	"k8s.io/component-base/version"

	"qwex.lab/k3s/internal/config"
	"qwex.lab/k3s/internal/node"
	"qwex.lab/k3s/internal/server"
)

// garbage is collected a little more eagerly than Go does by itself: a lab has many of these processes.
const garbage = 60

func runServer(args []string) int {
	return role(config.Server, args, server.Run)
}

func runAgent(args []string) int {
	return role(config.Agent, args, func(ctx context.Context, c *config.Config, ready func()) error {
		return node.Run(ctx, node.Options{
			DataDir: c.DataDir, NodeName: c.NodeName, NodeIP: c.NodeIP[0], NodeExternalIP: external(c),
			FlannelIface: c.FlannelIface, ServerURL: c.ServerURL, Password: c.Token, Labels: c.NodeLabels, Taints: c.NodeTaints,
			KubeletArgs: c.KubeletArgs, KubeProxyArgs: c.KubeProxyArgs, PauseImage: c.PauseImage,
			PrivateRegistry: c.PrivateRegistry, Snapshotter: c.Snapshotter,
			WithProxy: true, WithFlannel: true, WithNetworkPolicy: true,
		}, ready)
	})
}

func external(c *config.Config) string {
	if len(c.NodeExternalIP) == 0 {
		return ""
	}
	return c.NodeExternalIP[0]
}

func role(role config.Role, args []string, run func(context.Context, *config.Config, func()) error) int {
	c, err := config.Load(role, args)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		logrus.Fatalf("Error: %v", err)
	}
	if c.Debug {
		logrus.SetLevel(logrus.DebugLevel)
	}
	if os.Geteuid() != 0 {
		logrus.Fatalf("must run as root")
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	// Children must not tell systemd anything in this service's name.
	socket := os.Getenv("NOTIFY_SOCKET")
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		logrus.Fatal(err)
	}
	logrus.Infof("Starting k3s %s %s (%s)", role, version.Get().GitVersion, Commit)
	logrus.Info(notice)
	ctx, stop := signals()
	defer stop()
	if err := run(ctx, c, func() { notify(socket) }); err != nil {
		logrus.Errorf("k3s %s: %v", role, err)
		return 1
	}
	logrus.Info("Shutdown completed")
	return 0
}

// notify tells systemd that the service is ready.
func notify(socket string) {
	if socket == "" {
		return
	}
	connection, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err == nil {
		defer connection.Close()
		_, err = connection.Write([]byte(daemon.SdNotifyReady))
	}
	if err != nil {
		logrus.Errorf("Cannot tell systemd that the service is ready: %v", err)
	}
}
