package child

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"
)

func TestAComponentThatEnds(t *testing.T) {
	c, err := Start("tool", []string{"/bin/sh", "-c", "exit 3"}, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(context.Background()); err == nil || !strings.Contains(err.Error(), "tool exited: exit status 3") {
		t.Fatal(err)
	}
	c.Stop()
}

func TestAComponentThatIsStopped(t *testing.T) {
	c, err := Start("tool", []string{"/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"}, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	if err := c.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Done():
	default:
		t.Fatal("it still runs")
	}
}

func TestAProgramThatIsNotThere(t *testing.T) {
	if _, err := Start("tool", []string{"/nowhere/tool"}, nil, io.Discard); err == nil {
		t.Fatal("started")
	}
}
