// Package cmd is k3s's command line.
package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register" // component flag --logging-format=json
	"k8s.io/component-base/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"qwex.lab/k3s/internal/config"
	_ "qwex.lab/k3s/internal/containerd/crictl" // registers itself as a program of the payload
	"qwex.lab/k3s/internal/payload"
)

// Commit is what the real k3s prints in brackets; the linker may set it.
var Commit = "00000000"

const notice = "This k3s stands in for the real one in the lab: upstream Kubernetes behind k3s's command line and files."

type command struct {
	name, usage string
	run         func(args []string) int
}

func commands() []command {
	return []command{
		{"server", "Run management server", runServer},
		{"agent", "Run node agent", runAgent},
		{"kubectl", "Run kubectl", runKubectl},
		{"crictl", "Run crictl", packed("crictl")},
		{"ctr", "Run ctr", packed("ctr")},
		{"check-config", "Run config check", checked(checkConfig)},
		{"token", "Manage tokens", checked(manageTokens)},
		{"etcd-snapshot", "Manage etcd snapshots", checked(manageSnapshots)},
		{"secrets-encrypt", "Control secrets encryption", checked(manageEncryption)},
	}
}

// components are what server and agent start as their children.
var components = map[string]func() *cobra.Command{
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-proxy":              proxy.NewProxyCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

// Main runs what argv asks for and returns the exit status. A link named after a command runs that command.
func Main(argv []string) int {
	args := argv[1:]
	switch called := filepath.Base(argv[0]); called {
	case "kubectl", "crictl", "ctr":
		args = append([]string{called}, args...)
	}
	if len(args) == 0 {
		usage(os.Stdout)
		return 0
	}
	name, rest := args[0], args[1:]
	switch name {
	case "--version", "-v":
		fmt.Printf("k3s version %s (%s)\ngo version %s\n%s\n", version.Get().GitVersion, Commit, runtime.Version(), notice)
		return 0
	case "--help", "-h", "help":
		usage(os.Stdout)
		return 0
	}
	if component, ok := components[name]; ok {
		os.Args = args
		return cli.Run(component())
	}
	for _, each := range commands() {
		if each.name == name {
			return each.run(rest)
		}
	}
	fmt.Fprintf(os.Stderr, "No help topic for '%s'\n", name)
	usage(os.Stderr)
	return 3
}

func usage(out *os.File) {
	fmt.Fprintf(out, "NAME:\n   k3s - Kubernetes, but small and simple\n   %s\n\nUSAGE:\n   k3s [global options] command [command options]\n\n"+
		"VERSION:\n   %s (%s)\n\nCOMMANDS:\n", notice, version.Get().GitVersion, Commit)
	for _, each := range commands() {
		fmt.Fprintf(out, "   %-16s %s\n", each.name, each.usage)
	}
	fmt.Fprint(out, "\nGLOBAL OPTIONS:\n   --help, -h       show help\n   --version, -v    print the version\n")
}

// checked prints an error as k3s does.
func checked(run func(args []string) error) func([]string) int {
	return func(args []string) int {
		if err := run(args); err != nil && !errors.Is(err, pflag.ErrHelp) {
			logrus.Error(err)
			return 1
		}
		return 0
	}
}

func runKubectl(args []string) int {
	if os.Getenv("KUBECONFIG") == "" && !named(args, "--kubeconfig") {
		if err := os.Setenv("KUBECONFIG", defaultKubeconfig()); err != nil {
			logrus.Error(err)
			return 1
		}
	}
	os.Args = append([]string{"kubectl"}, args...)
	return cli.Run(kubectl.NewDefaultKubectlCommand())
}

// defaultKubeconfig is the one that this machine's server writes; elsewhere, the user's own.
func defaultKubeconfig() string {
	path := "/etc/rancher/k3s/k3s.yaml"
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, ".kube", "config")
		}
	}
	return path
}

func named(args []string, flag string) bool {
	for _, arg := range args {
		if arg == flag || strings.HasPrefix(arg, flag+"=") {
			return true
		}
	}
	return false
}

func packed(name string) func([]string) int {
	return func(args []string) int {
		err := payload.Exec(dataDir(), name, args, toolEnvironment())
		logrus.Error(err)
		return 1
	}
}

func dataDir() string {
	if directory := os.Getenv("K3S_DATA_DIR"); directory != "" {
		return directory
	}
	return config.DefaultDataDir
}

// toolEnvironment points ctr and crictl at k3s's own containerd.
func toolEnvironment() []string {
	all := os.Environ()
	for name, value := range map[string]string{
		"CONTAINERD_ADDRESS":         "/run/k3s/containerd/containerd.sock",
		"CONTAINERD_NAMESPACE":       "k8s.io",
		"CONTAINER_RUNTIME_ENDPOINT": "unix:///run/k3s/containerd/containerd.sock",
		"IMAGE_SERVICE_ENDPOINT":     "unix:///run/k3s/containerd/containerd.sock",
	} {
		if os.Getenv(name) == "" {
			all = append(all, name+"="+value)
		}
	}
	return all
}

func signals() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
}
