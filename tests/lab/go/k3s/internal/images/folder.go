package images

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	log "github.com/sirupsen/logrus"
)

// settle is how long a file must stay as it is before it counts as whole.
const settle = time.Second

// Store is what takes images: containerd.
type Store interface {
	// Import reads one archive and returns the names of its images, pinned against the kubelet's garbage collection.
	Import(ctx context.Context, path string) ([]string, error)
	// Pull fetches one image by name.
	Pull(ctx context.Context, name string) error
}

// Folder is agent/images of the data directory.
type Folder struct {
	Path  string
	Store Store
	seen  map[string]mark
}

// mark tells one version of a file from the next.
type mark struct {
	size  int64
	mtime time.Time
}

// Load imports all files that are there. A file that cannot be imported is logged and skipped, as k3s does: the node
// must come up without it.
func (f *Folder) Load(ctx context.Context) error {
	if err := os.MkdirAll(f.Path, 0o755); err != nil {
		return err
	}
	f.seen = map[string]mark{}
	for path, found := range f.scan() {
		f.take(ctx, path, found)
	}
	return ctx.Err()
}

// Watch imports what is added or changed, until ctx ends. Load must have been called.
func (f *Folder) Watch(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", f.Path, err)
	}
	defer watcher.Close()
	if err := watcher.Add(f.Path); err != nil {
		return fmt.Errorf("watch %s: %w", f.Path, err)
	}
	// What came between Load and here has no event, so look once.
	timer := time.NewTimer(settle)
	defer timer.Stop()
	before := map[string]mark{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watcher.Errors:
			log.Errorf("Watching %s: %v", f.Path, err)
			timer.Reset(settle)
		case <-watcher.Events:
			timer.Reset(settle)
		case <-timer.C:
			now := f.scan()
			if f.settled(ctx, before, now) {
				timer.Reset(settle)
			}
			before = now
		}
	}
}

// settled takes the files that are the same as at the last look, and says whether others must be looked at again.
func (f *Folder) settled(ctx context.Context, before, now map[string]mark) (again bool) {
	for path, found := range now {
		switch {
		case f.seen[path] == found:
		case before[path] == found:
			f.take(ctx, path, found)
		default:
			again = true
		}
	}
	for path := range f.seen {
		if _, there := now[path]; !there {
			delete(f.seen, path) // its images stay, as they do with k3s
		}
	}
	return again
}

func (f *Folder) scan() map[string]mark {
	found := map[string]mark{}
	entries, err := os.ReadDir(f.Path)
	if err != nil {
		log.Errorf("Reading %s: %v", f.Path, err)
		return found
	}
	for _, entry := range entries {
		path := filepath.Join(f.Path, entry.Name())
		info, err := os.Stat(path) // through links
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			log.Errorf("Reading %s: %v", path, err)
			continue
		}
		if info.Mode().IsRegular() && (decoder(path) != nil || strings.HasSuffix(path, ".txt")) {
			found[path] = mark{info.Size(), info.ModTime()}
		}
	}
	return found
}

func (f *Folder) take(ctx context.Context, path string, found mark) {
	f.seen[path] = found
	start := time.Now()
	if strings.HasSuffix(path, ".txt") {
		f.pull(ctx, path)
		return
	}
	log.Infof("Importing images from %s", path)
	names, err := f.Store.Import(ctx, path)
	if err != nil {
		log.Errorf("Error encountered while importing %s: failed to import images from %s: %v", path, path, err)
		return
	}
	log.Infof("Imported images from %s in %s: %s", path, time.Since(start).Round(time.Millisecond), strings.Join(names, ", "))
}

// pull fetches the images that a list names, one a line; `#` starts a comment.
func (f *Folder) pull(ctx context.Context, path string) {
	file, err := os.Open(path)
	if err != nil {
		log.Errorf("Reading %s: %v", path, err)
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		name, _, _ := strings.Cut(lines.Text(), "#")
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if err := f.Store.Pull(ctx, name); err != nil {
			log.Errorf("Pulling image %s named in %s: %v", name, path, err)
		}
	}
	if err := lines.Err(); err != nil {
		log.Errorf("Reading %s: %v", path, err)
	}
}
