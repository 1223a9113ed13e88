package config

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
)

// Address is the first IPv4 address of an interface; with no name given, of the one that holds the default route.
func Address(iface string) (string, error) {
	if iface == "" {
		found, err := defaultInterface()
		if err != nil {
			return "", err
		}
		iface = found
	}
	device, err := net.InterfaceByName(iface)
	if err != nil {
		return "", fmt.Errorf("interface %s: %w", iface, err)
	}
	addresses, err := device.Addrs()
	if err != nil {
		return "", fmt.Errorf("interface %s: %w", iface, err)
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.To4() != nil {
			return network.IP.String(), nil
		}
	}
	return "", fmt.Errorf("interface %s has no IPv4 address", iface)
}

func defaultInterface() (string, error) {
	file, err := os.Open("/proc/net/route")
	if err != nil {
		return "", err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 7 && fields[1] == "00000000" && fields[7] == "00000000" {
			return fields[0], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", fmt.Errorf("no default route: set node-ip, or add one")
}
