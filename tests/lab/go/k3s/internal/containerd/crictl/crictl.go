// Package crictl is the part of crictl that people use to look at a node: pods, containers, images, logs, exec.
//
// The real one is no module that could be had; names, flags and the columns of its tables are its own.
package crictl

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"qwex.lab/k3s/internal/containerd"
	"qwex.lab/k3s/internal/payload"
)

func init() {
	payload.Linked["crictl"] = func(args []string) error {
		command := Command()
		command.SetArgs(args)
		return command.Execute()
	}
}

// tool is one call's connection and common flags.
type tool struct {
	endpoint, config, output string
	timeout                  time.Duration
	quiet                    bool
	runtime                  cri.RuntimeServiceClient
	images                   cri.ImageServiceClient
}

// Command is `crictl`, with its own flags and subcommands.
func Command() *cobra.Command {
	t := &tool{}
	root := &cobra.Command{
		Use: "crictl", Short: "client for CRI (the part of it that this k3s stand-in has)",
		SilenceUsage:      true,
		SilenceErrors:     true, // who calls prints them
		PersistentPreRunE: func(*cobra.Command, []string) error { return t.connect() },
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&t.endpoint, "runtime-endpoint", "r", os.Getenv("CONTAINER_RUNTIME_ENDPOINT"), "endpoint of the CRI")
	flags.StringVarP(&t.config, "config", "c", os.Getenv("CRI_CONFIG_FILE"), "file with the endpoint")
	flags.DurationVarP(&t.timeout, "timeout", "t", 10*time.Second, "how long to wait for an answer")
	root.AddCommand(t.ps(), t.pods(), t.listImages(), t.info(), t.version(), t.logs(), t.exec(), t.pull(),
		t.inspect("inspect", "CONTAINER", t.container), t.inspect("inspectp", "POD", t.pod), t.inspect("inspecti", "IMAGE", t.image),
		t.each("stop", "CONTAINER", t.stop), t.each("rm", "CONTAINER", t.remove),
		t.each("stopp", "POD", t.stopPod), t.each("rmp", "POD", t.removePod), t.rmi())
	return root
}

func (t *tool) connect() error {
	if t.endpoint == "" && t.config != "" {
		text, err := os.ReadFile(t.config)
		if err != nil {
			return err
		}
		var file struct {
			Endpoint string `json:"runtime-endpoint"`
		}
		if err := yaml.Unmarshal(text, &file); err != nil {
			return fmt.Errorf("%s: %w", t.config, err)
		}
		t.endpoint = file.Endpoint
	}
	if t.endpoint == "" {
		t.endpoint = "unix://" + containerd.Socket
	}
	if strings.HasPrefix(t.endpoint, "/") {
		t.endpoint = "unix://" + t.endpoint
	}
	connection, err := grpc.NewClient(t.endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return err
	}
	t.runtime, t.images = cri.NewRuntimeServiceClient(connection), cri.NewImageServiceClient(connection)
	return nil
}

func (t *tool) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), t.timeout)
}

// listing adds the flags of every list.
func (t *tool) listing(command *cobra.Command) *cobra.Command {
	command.Flags().BoolVarP(&t.quiet, "quiet", "q", false, "identifiers only")
	command.Flags().StringVarP(&t.output, "output", "o", "table", "table, json or yaml")
	return command
}

// each applies one call to every argument, and goes on after one that fails.
func (t *tool) each(name, what string, apply func(context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: fmt.Sprintf("%s %s...", name, what), Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			failed := 0
			for _, id := range args {
				ctx, cancel := t.context()
				err := apply(ctx, id)
				cancel()
				if err != nil {
					fmt.Fprintf(os.Stderr, "%s %s: %v\n", name, id, err)
					failed++
					continue
				}
				fmt.Println(id)
			}
			if failed > 0 {
				return fmt.Errorf("%d of %d failed", failed, len(args))
			}
			return nil
		},
	}
}

func (t *tool) stop(ctx context.Context, id string) error {
	_, err := t.runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id})
	return err
}

func (t *tool) remove(ctx context.Context, id string) error {
	_, err := t.runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id})
	return err
}

func (t *tool) stopPod(ctx context.Context, id string) error {
	_, err := t.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
	return err
}

func (t *tool) removePod(ctx context.Context, id string) error {
	_, err := t.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	return err
}

func (t *tool) removeImage(ctx context.Context, name string) error {
	_, err := t.images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: name}})
	return err
}

func (t *tool) rmi() *cobra.Command {
	command := t.each("rmi", "IMAGE", t.removeImage)
	apply := command.RunE
	prune := command.Flags().BoolP("prune", "q", false, "remove all images that no container uses")
	command.Args = cobra.ArbitraryArgs
	command.RunE = func(self *cobra.Command, args []string) error {
		if *prune {
			unused, err := t.unused()
			if err != nil {
				return err
			}
			args = append(args, unused...)
		} else if len(args) == 0 {
			return fmt.Errorf("name an image, or say --prune")
		}
		return apply(self, args)
	}
	return command
}

// unused are the images without a container that are not pinned.
func (t *tool) unused() ([]string, error) {
	ctx, cancel := t.context()
	defer cancel()
	containers, err := t.runtime.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, container := range containers.Containers {
		used[container.ImageRef], used[container.ImageId] = true, true
	}
	images, err := t.images.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	var unused []string
	for _, image := range images.Images {
		if !image.Pinned && !used[image.Id] {
			unused = append(unused, image.Id)
		}
	}
	return unused, nil
}

func (t *tool) pull() *cobra.Command {
	return &cobra.Command{
		Use: "pull IMAGE", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			answer, err := t.images.PullImage(context.Background(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: args[0]}})
			if err != nil {
				return err
			}
			fmt.Println("Image is up to date for", answer.ImageRef)
			return nil
		},
	}
}
