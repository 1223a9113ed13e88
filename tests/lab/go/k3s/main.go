// Command k3s stands in for the real k3s where that cannot be had: one file that keeps k3s's contract and runs the
// upstream Kubernetes components inside.
package main

import (
	_ "embed"
	"os"
	"strings"

	"qwex.lab/k3s/internal/addons"
	"qwex.lab/k3s/internal/cmd"
)

//go:embed images.txt
var images string

func main() {
	addons.Images = strings.Fields(images)
	os.Exit(cmd.Main(os.Args))
}
