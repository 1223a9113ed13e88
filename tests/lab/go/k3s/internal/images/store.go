package images

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/platforms"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pinned keeps the kubelet's garbage collection away from an image that nothing could fetch again.
var pinned = map[string]string{"io.cri-containerd.pinned": "pinned", "io.cri-containerd.image": "managed"}

// pullPatience is how long a listed image may take; where there is no registry it ends much earlier.
const pullPatience = time.Minute

// Containerd is the node's runtime as a Store.
type Containerd struct {
	Client      *client.Client
	Snapshotter string
}

// Import reads and unpacks one archive, in Docker's or the OCI's form.
func (c Containerd) Import(ctx context.Context, path string) ([]string, error) {
	ctx, done, err := c.Client.WithLease(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }() // an expired lease only ends a little later
	var names []string
	err = withArchive(path, func(stream io.Reader) error {
		found, err := c.Client.Import(ctx, stream, client.WithImageLabels(pinned),
			client.WithImportPlatform(platforms.Default()), client.WithSkipMissing())
		if err != nil {
			return err
		}
		// What follows the last entry belongs to the compressed stream's own checksum.
		if _, err := io.Copy(io.Discard, stream); err != nil {
			return err
		}
		for _, each := range found {
			image := client.NewImageWithPlatform(c.Client, each, platforms.Default())
			if err := image.Unpack(ctx, c.Snapshotter); err != nil {
				return fmt.Errorf("unpack %s: %w", each.Name, err)
			}
			names = append(names, each.Name)
		}
		return nil
	})
	return names, err
}

// Pull fetches an image through the CRI, so that registries.yaml counts.
func (c Containerd) Pull(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, pullPatience)
	defer cancel()
	connection, ok := c.Client.Conn().(*grpc.ClientConn)
	if !ok {
		return fmt.Errorf("containerd's connection is a %T", c.Client.Conn())
	}
	request := &cri.PullImageRequest{Image: &cri.ImageSpec{Image: name}}
	_, err := cri.NewImageServiceClient(connection).PullImage(ctx, request)
	return err
}
