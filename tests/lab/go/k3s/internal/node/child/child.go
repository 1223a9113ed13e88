// Package child runs the service's component processes: they end with it, whichever way it ends.
package child

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Grace is how long a component may take to end before it is killed.
const Grace = 10 * time.Second

// Child is one running component.
type Child struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start runs argv with extra environment variables; its output goes to log.
//
// The kernel sends it SIGTERM when this process dies, even of SIGKILL. What it starts in turn (containerd's shims) gets
// no such signal: the setting is not inherited.
func Start(name string, argv, env []string, log io.Writer) (*Child, error) {
	c := &Child{name: name, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	started := make(chan error)
	go func() {
		// The signal comes when the thread that started the child ends, so this one is kept for the child's whole life.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := c.cmd.Start(); err != nil {
			started <- fmt.Errorf("start %s: %w", name, err)
			return
		}
		started <- nil
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// Self is the path of this program, to start its own components with.
func Self() (string, error) { return os.Executable() }

// Done is closed when the component has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Wait returns an error when the component ends by itself, nil when ctx ended and it was stopped.
func (c *Child) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		c.Stop()
		return nil
	case <-c.done:
		if ctx.Err() != nil {
			return nil
		}
		if c.err != nil {
			return fmt.Errorf("%s exited: %w", c.name, c.err)
		}
		return fmt.Errorf("%s exited", c.name)
	}
}

// Stop asks the component to end, kills it after Grace, and returns when it has ended. A second call returns at once.
func (c *Child) Stop() {
	select {
	case <-c.done:
		return
	default:
	}
	// An error here means that it has just ended.
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(Grace):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
}
