package crictl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"
)

// print writes an answer in the form asked for; rows are the table's, the first its heading, ids what -q shows.
func (t *tool) print(answer protoadapt.MessageV1, ids []string, rows [][]string) error {
	if t.quiet {
		for _, id := range ids {
			fmt.Println(id)
		}
		return nil
	}
	if t.output != "table" {
		return t.document(answer)
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	return table.Flush()
}

func (t *tool) document(answer protoadapt.MessageV1) error {
	text, err := (protojson.MarshalOptions{EmitUnpopulated: true}).Marshal(message(answer))
	if err != nil {
		return err
	}
	return t.write(text)
}

func message(answer protoadapt.MessageV1) proto.Message { return protoadapt.MessageV2Of(answer) }

func (t *tool) write(text []byte) error {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	switch t.output {
	case "json":
		return encode(os.Stdout, value)
	case "yaml":
		text, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(text)
		return err
	}
	return fmt.Errorf("output %q: there are table, json and yaml", t.output)
}

func encode(to io.Writer, value any) error {
	encoder := json.NewEncoder(to)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(13, len(id))]
}

func ago(nanoseconds int64) string {
	return time.Since(time.Unix(0, nanoseconds)).Round(time.Second).String() + " ago"
}

func (t *tool) ps() *cobra.Command {
	var all bool
	var name, pod, state string
	command := &cobra.Command{Use: "ps", Short: "list containers", Args: cobra.NoArgs}
	flags := command.Flags()
	flags.BoolVarP(&all, "all", "a", false, "those that ended, too")
	flags.StringVar(&name, "name", "", "only containers whose name holds this")
	flags.StringVarP(&pod, "pod", "p", "", "only containers of this pod")
	flags.StringVarP(&state, "state", "s", "", "only created, running, exited or unknown ones")
	command.RunE = func(*cobra.Command, []string) error {
		ctx, cancel := t.context()
		defer cancel()
		answer, err := t.runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: pod}})
		if err != nil {
			return err
		}
		if state == "" && !all {
			state = "running"
		}
		ids, rows := []string{}, [][]string{{"CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD"}}
		kept := &cri.ListContainersResponse{}
		for _, each := range answer.Containers {
			is := word(each.State.String(), "CONTAINER_")
			if (state != "" && !strings.EqualFold(is, state)) || !strings.Contains(each.Metadata.Name, name) {
				continue
			}
			kept.Containers, ids = append(kept.Containers, each), append(ids, each.Id)
			rows = append(rows, []string{short(each.Id), short(each.Image.Image), ago(each.CreatedAt), is, each.Metadata.Name,
				fmt.Sprint(each.Metadata.Attempt), short(each.PodSandboxId), each.Labels["io.kubernetes.pod.name"]})
		}
		return t.print(kept, ids, rows)
	}
	return t.listing(command)
}

// word is CONTAINER_RUNNING as Running.
func word(state, prefix string) string {
	text := strings.ToLower(strings.TrimPrefix(state, prefix))
	return strings.ToUpper(text[:1]) + text[1:]
}

func (t *tool) pods() *cobra.Command {
	var name, namespace string
	command := &cobra.Command{Use: "pods", Short: "list pods", Args: cobra.NoArgs}
	command.Flags().StringVar(&name, "name", "", "only pods whose name holds this")
	command.Flags().StringVar(&namespace, "namespace", "", "only pods of this namespace")
	command.RunE = func(*cobra.Command, []string) error {
		ctx, cancel := t.context()
		defer cancel()
		answer, err := t.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		ids, rows := []string{}, [][]string{{"POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"}}
		kept := &cri.ListPodSandboxResponse{}
		for _, each := range answer.Items {
			if !strings.Contains(each.Metadata.Name, name) || (namespace != "" && each.Metadata.Namespace != namespace) {
				continue
			}
			kept.Items, ids = append(kept.Items, each), append(ids, each.Id)
			handler := each.RuntimeHandler
			if handler == "" {
				handler = "(default)"
			}
			rows = append(rows, []string{short(each.Id), ago(each.CreatedAt), word(each.State.String(), "SANDBOX_"),
				each.Metadata.Name, each.Metadata.Namespace, fmt.Sprint(each.Metadata.Attempt), handler})
		}
		return t.print(kept, ids, rows)
	}
	return t.listing(command)
}

func (t *tool) listImages() *cobra.Command {
	command := &cobra.Command{Use: "images [NAME]", Aliases: []string{"image", "img"}, Short: "list images", Args: cobra.MaximumNArgs(1)}
	command.RunE = func(_ *cobra.Command, args []string) error {
		ctx, cancel := t.context()
		defer cancel()
		filter := &cri.ImageFilter{}
		if len(args) == 1 {
			filter.Image = &cri.ImageSpec{Image: args[0]}
		}
		answer, err := t.images.ListImages(ctx, &cri.ListImagesRequest{Filter: filter})
		if err != nil {
			return err
		}
		ids, rows := []string{}, [][]string{{"IMAGE", "TAG", "IMAGE ID", "SIZE"}}
		for _, each := range answer.Images {
			ids = append(ids, each.Id)
			for _, tag := range append(each.RepoTags, untagged(each)...) {
				at := strings.LastIndex(tag, ":")
				size := fmt.Sprintf("%.3gMB", float64(each.Size)/1e6)
				rows = append(rows, []string{tag[:at], tag[at+1:], short(each.Id), size})
			}
		}
		return t.print(answer, ids, rows)
	}
	return t.listing(command)
}

func untagged(image *cri.Image) []string {
	if len(image.RepoTags) > 0 {
		return nil
	}
	return []string{"<none>:<none>"}
}

func (t *tool) info() *cobra.Command {
	return &cobra.Command{Use: "info", Short: "show the runtime's state and configuration", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx, cancel := t.context()
			defer cancel()
			answer, err := t.runtime.Status(ctx, &cri.StatusRequest{Verbose: true})
			if err != nil {
				return err
			}
			return merged(answer.Info, "status", answer.Status)
		}}
}

// merged prints a status and the runtime's own further information, which comes as JSON texts.
func merged(info map[string]string, name string, status protoadapt.MessageV1) error {
	text, err := (protojson.MarshalOptions{EmitUnpopulated: true}).Marshal(message(status))
	if err != nil {
		return err
	}
	all := map[string]any{name: json.RawMessage(text)}
	for key, value := range info {
		if json.Valid([]byte(value)) {
			all[key] = json.RawMessage(value)
		} else {
			all[key] = value
		}
	}
	return encode(os.Stdout, all)
}

func (t *tool) version() *cobra.Command {
	return &cobra.Command{Use: "version", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		ctx, cancel := t.context()
		defer cancel()
		answer, err := t.runtime.Version(ctx, &cri.VersionRequest{})
		if err != nil {
			return err
		}
		fmt.Printf("Version:  %s\nRuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n",
			answer.Version, answer.RuntimeName, answer.RuntimeVersion, answer.RuntimeApiVersion)
		return nil
	}}
}

func (t *tool) inspect(name, what string, show func(context.Context, string) error) *cobra.Command {
	command := &cobra.Command{Use: name + " " + what + "...", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, id := range args {
				ctx, cancel := t.context()
				err := show(ctx, id)
				cancel()
				if err != nil {
					return err
				}
			}
			return nil
		}}
	command.Flags().StringP("output", "o", "json", "json, there is no other")
	return command
}

func (t *tool) container(ctx context.Context, id string) error {
	answer, err := t.runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return err
	}
	return merged(answer.Info, "status", answer.Status)
}

func (t *tool) pod(ctx context.Context, id string) error {
	answer, err := t.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return err
	}
	return merged(answer.Info, "status", answer.Status)
}

func (t *tool) image(ctx context.Context, name string) error {
	answer, err := t.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}, Verbose: true})
	if err != nil {
		return err
	}
	if answer.Image == nil {
		return fmt.Errorf("no such image %q present", name)
	}
	return merged(answer.Info, "status", answer.Image)
}
