// Package images brings the airgap folder's image archives into containerd, at the start and whenever a file is added.
package images

import (
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// opener makes a tar stream of a compressed one; the second result is closed after it.
type opener func(io.Reader) (io.Reader, func(), error)

// openers by the end of the file's name, as k3s has them.
var openers = []struct {
	suffixes []string
	open     opener
}{
	{[]string{".tar"}, func(r io.Reader) (io.Reader, func(), error) { return r, func() {}, nil }},
	{[]string{".tar.gz", ".tgz"}, func(r io.Reader) (io.Reader, func(), error) {
		stream, err := gzip.NewReader(r)
		return stream, func() {}, err
	}},
	{[]string{".tar.zst", ".tzst"}, func(r io.Reader) (io.Reader, func(), error) {
		stream, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		return stream, stream.Close, nil
	}},
	{[]string{".tar.bz2", ".tbz"}, func(r io.Reader) (io.Reader, func(), error) {
		return bzip2.NewReader(r), func() {}, nil
	}},
	{[]string{".tar.lz4"}, func(r io.Reader) (io.Reader, func(), error) {
		return lz4.NewReader(r), func() {}, nil
	}},
}

// decoder is nil for a name that is no image archive's.
func decoder(name string) opener {
	for _, each := range openers {
		for _, suffix := range each.suffixes {
			if strings.HasSuffix(name, suffix) {
				return each.open
			}
		}
	}
	return nil
}

// withArchive calls use with the tar stream of the file at path.
func withArchive(path string, use func(io.Reader) error) error {
	open := decoder(path)
	if open == nil {
		return fmt.Errorf("%s is no image archive", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	stream, done, err := open(bufio.NewReaderSize(file, 1<<20))
	if err != nil {
		return err
	}
	defer done()
	return use(stream)
}
