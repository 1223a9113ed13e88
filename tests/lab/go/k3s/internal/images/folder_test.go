package images

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

type store struct{ imported, pulled chan string }

func (s store) Import(_ context.Context, path string) ([]string, error) {
	s.imported <- filepath.Base(path)
	if filepath.Base(path) == "bad.tar" {
		return nil, errors.New("bad")
	}
	return []string{"image"}, nil
}

func (s store) Pull(_ context.Context, name string) error {
	s.pulled <- name
	return nil
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, from chan string) string {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
		return ""
	}
}

func TestWhatIsThereAndWhatIsAdded(t *testing.T) {
	s := store{make(chan string, 9), make(chan string, 9)}
	f := &Folder{Path: filepath.Join(t.TempDir(), "images"), Store: s}
	if err := os.Mkdir(f.Path, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(f.Path, "bad.tar"), "x")
	put(t, filepath.Join(f.Path, "notes.md"), "x")
	ctx, cancel := context.WithCancel(context.Background())
	if err := f.Load(ctx); err != nil {
		t.Fatal(err)
	}
	if got := next(t, s.imported); got != "bad.tar" {
		t.Fatal(got)
	}
	ended := make(chan error)
	go func() { ended <- f.Watch(ctx) }()

	put(t, filepath.Join(f.Path, "late.tar.zst"), "y")
	if got := next(t, s.imported); got != "late.tar.zst" {
		t.Fatal(got)
	}
	put(t, filepath.Join(f.Path, "list.txt"), "# ours\n\nlab.local/a:1  # one\n")
	if got := next(t, s.pulled); got != "lab.local/a:1" {
		t.Fatal(got)
	}
	put(t, filepath.Join(f.Path, "bad.tar"), "longer")
	if got := next(t, s.imported); got != "bad.tar" {
		t.Fatal(got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestAGrowingFileWaits(t *testing.T) {
	s := store{make(chan string, 9), make(chan string, 9)}
	f := &Folder{Store: s, seen: map[string]mark{}}
	now := time.Now()
	first, second := map[string]mark{"a.tar": {1, now}}, map[string]mark{"a.tar": {2, now}}
	if !f.settled(context.Background(), nil, first) || !f.settled(context.Background(), first, second) {
		t.Fatal("a file that changed counts as whole")
	}
	if f.settled(context.Background(), second, second) || next(t, s.imported) != "a.tar" {
		t.Fatal("a file that stayed was not taken")
	}
}
