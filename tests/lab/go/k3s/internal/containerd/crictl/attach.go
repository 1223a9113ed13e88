package crictl

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// exec runs a command in a container and ends with its exit status. It has no terminal and no standard input.
func (t *tool) exec() *cobra.Command {
	command := &cobra.Command{Use: "exec CONTAINER COMMAND [ARG...]", Args: cobra.MinimumNArgs(2)}
	command.Flags().SetInterspersed(false)
	patience := command.Flags().Int64("timeout", 0, "seconds after which the command is ended; 0 for none")
	// Accepted as scripts pass them; both are without effect where the command only writes.
	command.Flags().BoolP("sync", "s", true, "wait for the end")
	command.RunE = func(_ *cobra.Command, args []string) error {
		answer, err := t.runtime.ExecSync(context.Background(), &cri.ExecSyncRequest{
			ContainerId: args[0], Cmd: args[1:], Timeout: *patience,
		})
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(answer.Stdout); err != nil {
			return err
		}
		if _, err := os.Stderr.Write(answer.Stderr); err != nil {
			return err
		}
		if answer.ExitCode != 0 {
			os.Exit(int(answer.ExitCode))
		}
		return nil
	}
	return command
}

// logs prints what a container wrote, from the file that the runtime keeps: `time stream F|P text`.
func (t *tool) logs() *cobra.Command {
	command := &cobra.Command{Use: "logs CONTAINER", Args: cobra.ExactArgs(1)}
	follow := command.Flags().BoolP("follow", "f", false, "go on until the container ends")
	tail := command.Flags().Int("tail", -1, "only this many lines from the end")
	stamps := command.Flags().Bool("timestamps", false, "with the time of each line")
	command.RunE = func(_ *cobra.Command, args []string) error {
		status, err := t.status(args[0])
		if err != nil {
			return err
		}
		file, err := os.Open(status.LogPath)
		if err != nil {
			return err
		}
		defer file.Close()
		text, err := io.ReadAll(file)
		if err != nil {
			return err
		}
		lines := strings.SplitAfter(string(text), "\n")
		if *tail >= 0 {
			lines = lines[max(0, len(lines)-1-*tail):]
		}
		for _, line := range lines {
			show(line, *stamps)
		}
		if !*follow {
			return nil
		}
		return t.follow(args[0], file, *stamps)
	}
	return command
}

func (t *tool) status(id string) (*cri.ContainerStatus, error) {
	ctx, cancel := t.context()
	defer cancel()
	answer, err := t.runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return nil, err
	}
	return answer.Status, nil
}

func (t *tool) follow(id string, file *os.File, stamps bool) error {
	rest := bufio.NewReader(file)
	partial := ""
	for {
		status, err := t.status(id)
		if err != nil {
			return err
		}
		for {
			line, err := rest.ReadString('\n')
			partial += line
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			show(partial, stamps)
			partial = ""
		}
		if status.State != cri.ContainerState_CONTAINER_RUNNING {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func show(line string, stamps bool) {
	fields := strings.SplitN(line, " ", 4)
	if len(fields) < 4 {
		return
	}
	text := fields[3]
	if fields[2] == "P" { // the rest of the line follows
		text = strings.TrimSuffix(text, "\n")
	}
	if stamps {
		text = fields[0] + " " + text
	}
	to := os.Stdout
	if fields[1] == "stderr" {
		to = os.Stderr
	}
	fmt.Fprint(to, text)
}
