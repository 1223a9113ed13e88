package payload

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func packed(t *testing.T, name, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	stream, err := zstd.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	entries := tar.NewWriter(stream)
	header := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}
	if err := entries.WriteHeader(header); err != nil {
		t.Fatal(err)
	}
	if _, err := entries.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(entries.Close(), stream.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestUnpackedOnceAndReplaced(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	first, err := unpack(packed(t, "bin/tool", "one"), data)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(first, "tool"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Fatal(info, err)
	}
	if again, err := unpack(packed(t, "bin/tool", "one"), data); err != nil || again != first {
		t.Fatal(again, err)
	}
	second, err := unpack(packed(t, "bin/tool", "two"), data)
	if err != nil || second == first {
		t.Fatal(second, err)
	}
	text, err := os.ReadFile(filepath.Join(data, "current", "bin", "tool"))
	if err != nil || string(text) != "two" {
		t.Fatal(string(text), err)
	}
	text, err = os.ReadFile(filepath.Join(data, "previous", "bin", "tool"))
	if err != nil || string(text) != "one" {
		t.Fatal(string(text), err)
	}
}

func TestNothingIsLeftOfABrokenArchive(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	whole := packed(t, "bin/tool", "a text that is long enough to be cut in two")
	if _, err := unpack(whole[:len(whole)-8], data); err == nil {
		t.Fatal("half an archive was taken")
	}
	if _, err := unpack(packed(t, "../tool", "x"), data); err == nil {
		t.Fatal("a name outside was taken")
	}
	entries, err := os.ReadDir(data)
	if err != nil || len(entries) != 0 {
		t.Fatal(entries, err)
	}
}

func TestWithoutAPayload(t *testing.T) {
	if _, err := unpack(nil, t.TempDir()); !errors.Is(err, ErrEmpty) {
		t.Fatal(err)
	}
}
