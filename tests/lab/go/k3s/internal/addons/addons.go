// Package addons applies what lies in server/manifests: the packaged components, put there at the start, and whatever the
// operator adds.
package addons

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/rest"

	"qwex.lab/k3s/internal/config"
	"qwex.lab/k3s/internal/pki"
)

const (
	pace   = 5 * time.Second // how often the directory is looked at
	hurry  = time.Second     // while something could not be applied
	suffix = ".skip"
)

//go:embed manifests
var packaged embed.FS

// Images are the lines of images.txt.
var Images []string

// component is the `disable` name that a packaged file belongs to; those not named here are always there.
var component = map[string]string{
	"coredns.yaml": "coredns", "local-storage.yaml": "local-storage", "metrics-server.yaml": "metrics-server", "runtimes.yaml": "runtimes",
}

// Run writes the packaged manifests and applies every file until ctx ends: at the start, when it changes, and again
// until it works. A file that is deleted leaves its objects; a disabled component's are removed.
func Run(ctx context.Context, c *config.Config, settings *rest.Config) error {
	client, err := newApplier(settings)
	if err != nil {
		return err
	}
	directory := c.Dir("server/manifests")
	unwanted, err := write(c, directory)
	if err != nil {
		return err
	}
	for _, name := range []string{"servicelb", "traefik"} {
		if !slices.Contains(c.Disable, name) {
			logrus.Infof("%s is not deployed: this k3s stands in for the real one and does not carry it", name)
		}
	}
	for name, text := range unwanted {
		if err := persist(ctx, func() error { return client.remove(ctx, text) }); err != nil {
			return err
		}
		logrus.Infof("%s is disabled and not deployed", strings.TrimSuffix(name, ".yaml"))
	}
	applied := map[string][sha256.Size]byte{}
	complained := map[string]string{}
	for {
		wait := pace
		if !round(ctx, client, directory, applied, complained) {
			wait = hurry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// persist tries until ctx ends.
func persist(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		logrus.Warnf("Packaged component: %v; trying again", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(hurry):
		}
	}
}

// round applies what changed since the last one; false when something is still to be done.
func round(ctx context.Context, client *applier, directory string, applied map[string][sha256.Size]byte, complained map[string]string) bool {
	entries, err := os.ReadDir(directory)
	if err != nil {
		logrus.Errorf("Manifests: %v", err)
		return false
	}
	done := true
	for _, entry := range entries {
		name := entry.Name()
		path := filepath.Join(directory, name)
		extension := filepath.Ext(name)
		if entry.IsDir() || extension != ".yaml" && extension != ".yml" && extension != ".json" {
			continue
		}
		if _, err := os.Stat(path + suffix); err == nil {
			continue
		}
		text, err := os.ReadFile(path)
		if err == nil {
			sum := sha256.Sum256(text)
			if applied[name] == sum {
				continue
			}
			if err = client.apply(ctx, text); err == nil {
				applied[name] = sum
				delete(complained, name)
				logrus.Infof("Applied manifest at %q", path)
				continue
			}
		}
		done = false
		if ctx.Err() == nil && complained[name] != err.Error() {
			complained[name] = err.Error()
			logrus.Errorf("Failed to apply manifest at %q: %v", path, err)
		}
	}
	return done
}

// write puts the packaged manifests in place, takes those of disabled components away, and returns the latter's texts.
func write(c *config.Config, directory string) (map[string][]byte, error) {
	values := map[string]any{
		"ClusterDNS": c.ClusterDNS, "ClusterDomain": c.ClusterDomain, "Storage": c.LocalStoragePath,
	}
	files, err := fs.ReadDir(packaged, "manifests")
	if err != nil {
		return nil, err
	}
	unwanted := map[string][]byte{}
	for _, file := range files {
		source, err := packaged.ReadFile("manifests/" + file.Name())
		if err != nil {
			return nil, err
		}
		filled, err := template.New(file.Name()).Option("missingkey=error").Funcs(template.FuncMap{"image": image}).Parse(string(source))
		if err != nil {
			return nil, err
		}
		var text strings.Builder
		if err := filled.Execute(&text, values); err != nil {
			return nil, err
		}
		path := filepath.Join(directory, file.Name())
		if slices.Contains(c.Disable, component[file.Name()]) {
			unwanted[file.Name()] = []byte(text.String())
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			continue
		}
		if err := pki.Write(path, []byte(text.String()), 0o600); err != nil {
			return nil, err
		}
	}
	return unwanted, nil
}

// image is the packaged image whose name contains a word.
func image(word string) (string, error) {
	for _, name := range Images {
		if strings.Contains(name, word) {
			return name, nil
		}
	}
	return "", fmt.Errorf("no packaged image is named %s", word)
}
