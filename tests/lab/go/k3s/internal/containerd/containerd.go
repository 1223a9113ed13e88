package containerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/client"

	"qwex.lab/k3s/internal/node/child"
)

// Patience is how long containerd may take from its start to its first answer.
const Patience = 60 * time.Second

// Namespace is where the kubelet's containers and images are.
const Namespace = "k8s.io"

// Server is a running containerd. Pods outlive it: their shims are no children of it.
type Server struct {
	*child.Child
	Client *client.Client
}

// Start writes the configuration, runs containerd and returns when it answers. Its log is agent/containerd/containerd.log.
func Start(ctx context.Context, s Settings) (*Server, error) {
	if err := s.write(restricted()); err != nil {
		return nil, fmt.Errorf("configure containerd: %w", err)
	}
	log, err := os.OpenFile(s.logFile(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	env := []string{"PATH=" + s.Bin + ":" + os.Getenv("PATH")}
	process, err := child.Start("containerd", []string{filepath.Join(s.Bin, "containerd"), "-c", s.config()}, env, log)
	if err != nil {
		return nil, err
	}
	connection, err := connect(ctx, process)
	if err != nil {
		process.Stop()
		return nil, fmt.Errorf("containerd does not answer, its log is %s: %w", s.logFile(), err)
	}
	return &Server{process, connection}, nil
}

func connect(ctx context.Context, process *child.Child) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		connection, err := client.New(Socket, client.WithDefaultNamespace(Namespace), client.WithTimeout(2*time.Second))
		if err == nil {
			if serving, refused := connection.IsServing(ctx); serving && refused == nil {
				return connection, nil
			}
			err = connection.Close()
		}
		select {
		case <-process.Done():
			return nil, process.Wait(context.Background())
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (last answer: %v)", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// restricted says whether this process may not lower its OOM score, so that its containers may not either.
func restricted() bool {
	const path = "/proc/self/oom_score_adj"
	before, err := os.ReadFile(path)
	if err != nil {
		return true
	}
	if err := os.WriteFile(path, []byte("-999"), 0o644); err != nil {
		return true
	}
	return os.WriteFile(path, before, 0o644) != nil
}
