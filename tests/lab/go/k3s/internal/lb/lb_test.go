package lb

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// server answers each connection with its name, and keeps it open.
func server(t *testing.T, name string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(connection, name)
		}
	}()
	return listener
}

func balancer(t *testing.T, fallback, file string) *Balancer {
	t.Helper()
	b, err := New("127.0.0.1:0", fallback, file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b
}

func ask(t *testing.T, b *Balancer) string {
	t.Helper()
	connection, err := net.Dial("tcp", b.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(connection, answer); err != nil {
		return ""
	}
	return string(answer)
}

func TestTheNextServerTakesOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list.json")
	one, two := server(t, "1"), server(t, "2")
	b := balancer(t, one.Addr().String(), file)
	if got := ask(t, b); got != "1" {
		t.Fatalf("joined through 1, got %q", got)
	}
	if err := b.Update([]string{one.Addr().String(), two.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	one.Close()
	if got := ask(t, b); got != "2" {
		t.Fatalf("1 is gone, got %q", got)
	}
	if got := b.candidates()[0]; got != two.Addr().String() {
		t.Fatalf("%s is not preferred", got)
	}

	again := balancer(t, one.Addr().String(), file)
	if got := ask(t, again); got != "2" {
		t.Fatalf("after a restart without 1, got %q", got)
	}
	elsewhere := balancer(t, "127.0.0.1:1", file)
	if got := ask(t, elsewhere); got != "" {
		t.Fatalf("another cluster's server answered: %q", got)
	}
}

func TestAnEmptyListChangesNothing(t *testing.T) {
	one := server(t, "1")
	b := balancer(t, one.Addr().String(), filepath.Join(t.TempDir(), "list.json"))
	if err := b.Update(nil); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, b); got != "1" {
		t.Fatal(got)
	}
}

func TestConnectionsToAFailedServerAreCut(t *testing.T) {
	one := server(t, "1")
	b := balancer(t, one.Addr().String(), filepath.Join(t.TempDir(), "list.json"))
	connection, err := net.Dial("tcp", b.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	answer := make([]byte, 1)
	if _, err := io.ReadFull(connection, answer); err != nil {
		t.Fatal(err)
	}
	one.Close() // the accepted connection stays open, as one to a machine without power does
	if err := connection.SetDeadline(time.Now().Add(4 * checkEvery)); err != nil {
		t.Fatal(err)
	}
	if _, err := connection.Read(answer); err != io.EOF {
		t.Fatalf("not cut: %v", err)
	}
}
