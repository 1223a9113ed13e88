// Package payload carries the programs that a node runs beside Kubernetes: containerd, its shim, ctr, runc and CNI plugins.
//
// The archive is put in place of the empty payload.tar.zst when the lab's bundle is built; without it everything
// compiles and runs that needs no containers.
package payload

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

//go:embed payload.tar.zst
var archive []byte

// ErrEmpty says that the program was built without its payload.
var ErrEmpty = errors.New("this build carries no containerd: build it with the lab's bundle")

// Ensure unpacks the payload to DATADIR/data/<hash> unless it is there and points DATADIR/data/current at it.
// It returns the directory of its programs. An interrupted call leaves nothing that a later one would take for whole.
func Ensure(dataDir string) (string, error) {
	return unpack(archive, filepath.Join(dataDir, "data"))
}

// Linked are programs that are part of this one rather than of the archive: a package adds its own here.
var Linked = map[string]func(args []string) error{}

// Exec becomes one of the node's programs: one that is linked in, or else the payload's, unpacked below dataDir or, for a
// user who may not write there, below ~/.rancher/k3s. It returns only an error.
func Exec(dataDir, name string, args, env []string) error {
	if run, ok := Linked[name]; ok {
		if err := run(args); err != nil {
			return err
		}
		os.Exit(0)
	}
	bin, err := Ensure(dataDir)
	if errors.Is(err, os.ErrPermission) {
		home, homeless := os.UserHomeDir()
		if homeless != nil {
			return err
		}
		bin, err = Ensure(filepath.Join(home, ".rancher", "k3s"))
	}
	if err != nil {
		return err
	}
	path := filepath.Join(bin, name)
	return fmt.Errorf("run %s: %w", path, syscall.Exec(path, append([]string{name}, args...), env))
}

func unpack(archive []byte, data string) (string, error) {
	if len(archive) == 0 {
		return "", ErrEmpty
	}
	sum := sha256.Sum256(archive)
	hash := hex.EncodeToString(sum[:])
	home := filepath.Join(data, hash)
	if _, err := os.Stat(home); errors.Is(err, os.ErrNotExist) {
		if err := place(archive, data, home); err != nil {
			return "", fmt.Errorf("unpack the payload to %s: %w", home, err)
		}
	} else if err != nil {
		return "", err
	}
	return filepath.Join(home, "bin"), point(filepath.Join(data, "current"), hash)
}

// place fills a directory beside home and renames it: home is either whole or absent.
func place(archive []byte, data, home string) error {
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	draft, err := os.MkdirTemp(data, ".unpacking-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(draft)
	if err := os.Chmod(draft, 0o755); err != nil {
		return err
	}
	if err := extract(archive, draft); err != nil {
		return err
	}
	err = os.Rename(draft, home)
	if errors.Is(err, os.ErrExist) { // another process was quicker, with the same files
		return nil
	}
	return err
}

func extract(archive []byte, to string) error {
	stream, err := zstd.NewReader(bytes.NewReader(archive), zstd.WithDecoderConcurrency(2))
	if err != nil {
		return err
	}
	defer stream.Close()
	entries := tar.NewReader(stream)
	for {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(entry.Name) {
			return fmt.Errorf("%q leads outside", entry.Name)
		}
		path := filepath.Join(to, entry.Name)
		switch entry.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeReg:
			err = write(path, entries, entry.FileInfo().Mode().Perm())
		default:
			err = fmt.Errorf("%s is neither file nor directory", entry.Name)
		}
		if err != nil {
			return err
		}
	}
}

func write(path string, from io.Reader, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	return errors.Join(err, file.Close())
}

// point makes link a symbolic link to target in one step; what it pointed at before stays reachable as `previous`.
func point(link, target string) error {
	before, err := os.Readlink(link)
	if err == nil && before == target {
		return nil
	}
	if err == nil && !strings.Contains(before, "/") {
		if err := swap(filepath.Join(filepath.Dir(link), "previous"), before); err != nil {
			return err
		}
	}
	return swap(link, target)
}

func swap(link, target string) error {
	draft := fmt.Sprintf("%s.%d", link, os.Getpid())
	if err := os.Symlink(target, draft); err != nil {
		return err
	}
	if err := os.Rename(draft, link); err != nil {
		return errors.Join(err, os.Remove(draft))
	}
	return nil
}
