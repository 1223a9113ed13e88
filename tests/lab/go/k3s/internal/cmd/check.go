package cmd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
)

// checkConfig says what this machine lacks to be a node: of the kernel by what it can do, not by how it was built.
func checkConfig([]string) error {
	failures := 0
	report := func(what string, err error) {
		if err != nil {
			failures++
			fmt.Printf("- %s: missing (%v)\n", what, err)
			return
		}
		fmt.Printf("- %s: good\n", what)
	}
	fmt.Println("Verifying binaries and the machine:")
	_, err := exec.LookPath("iptables")
	report("iptables", err)
	_, err = os.Stat("/proc/self/ns/cgroup")
	report("cgroup namespaces", err)
	report("cgroup controllers cpu, cpuset, memory", controllers("cpu", "cpuset", "memory"))
	report("overlay file system", listed("/proc/filesystems", "overlay"))
	for _, name := range []string{"net/bridge/bridge-nf-call-iptables", "net/ipv4/ip_forward"} {
		_, err = os.Stat("/proc/sys/" + name)
		report("sysctl "+strings.ReplaceAll(name, "/", "."), err)
	}
	report("/dev/kmsg", readable("/dev/kmsg"))
	_, err = net.InterfaceByName("lo")
	report("loopback interface", err)
	report("no swap", unswapped())
	fmt.Printf("\nSTATUS: %d failures\n", failures)
	if failures > 0 {
		return errors.New("this machine lacks something")
	}
	return nil
}

func controllers(names ...string) error {
	text, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return err
	}
	on := map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) == 4 && fields[3] == "1" {
			on[fields[0]] = true
		}
	}
	for _, name := range names {
		if !on[name] {
			return fmt.Errorf("%s is off", name)
		}
	}
	return nil
}

func listed(path, word string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, each := range strings.Fields(string(text)) {
		if each == word {
			return nil
		}
	}
	return fmt.Errorf("%s does not list it", path)
}

func readable(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return file.Close()
}

func unswapped() error {
	text, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return err
	}
	if lines := strings.Split(strings.TrimSpace(string(text)), "\n"); len(lines) > 1 {
		return fmt.Errorf("%s is on", strings.Fields(lines[1])[0])
	}
	return nil
}
