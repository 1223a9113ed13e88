// Package policy enforces network policies for the pods of one node, with iptables.
//
// The real k3s has kube-router's controller for it; this is a smaller one with the same result: what no policy selects
// talks freely, what one selects gets only what some policy allows, and a node always reaches its own pods.
package policy

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	top    = "KUBE-NETPOL" // FORWARD goes through it; killall takes all that starts with KUBE- away
	prefix = "KUBE-NP-"
)

// World is what the rules follow from.
type World struct {
	Node       string
	Pods       []*core.Pod
	Namespaces []*core.Namespace
	Policies   []*networking.NetworkPolicy
}

// Chains are the rules of the filter table, by chain, without the leading `-A <chain>`. Every chain but top starts with
// prefix.
func (w World) Chains() map[string][]string {
	chains := map[string][]string{top: {"-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"}}
	for _, pod := range w.Pods {
		if pod.Spec.NodeName != w.Node || !networked(pod) {
			continue
		}
		for _, direction := range []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress} {
			rules, isolated := w.rules(pod, direction)
			if !isolated {
				continue
			}
			chain := name(pod, direction)
			match := "-d"
			if direction == networking.PolicyTypeEgress {
				match = "-s"
			}
			chains[top] = append(chains[top], fmt.Sprintf("%s %s/32 -j %s", match, pod.Status.PodIP, chain))
			slices.Sort(rules)
			chains[chain] = append(slices.Compact(rules), "-j REJECT --reject-with icmp-port-unreachable")
		}
	}
	slices.Sort(chains[top][1:])
	return chains
}

// networked pods have an address of their own, and still use it.
func networked(pod *core.Pod) bool {
	address, err := netip.ParseAddr(pod.Status.PodIP)
	return err == nil && address.Is4() && !pod.Spec.HostNetwork && pod.Status.Phase != core.PodSucceeded && pod.Status.Phase != core.PodFailed
}

func name(pod *core.Pod, direction networking.PolicyType) string {
	sum := sha256.Sum256([]byte(pod.Namespace + "/" + pod.Name + "/" + string(direction)))
	return prefix + base32.StdEncoding.EncodeToString(sum[:])[:16]
}

// rules of all policies that select the pod, and whether there is one.
func (w World) rules(pod *core.Pod, direction networking.PolicyType) (rules []string, isolated bool) {
	for _, policy := range w.Policies {
		if policy.Namespace != pod.Namespace || !selects(&policy.Spec.PodSelector, pod.Labels) || !concerns(policy, direction) {
			continue
		}
		isolated = true
		if direction == networking.PolicyTypeIngress {
			for _, rule := range policy.Spec.Ingress {
				rules = append(rules, w.allow(pod, policy.Namespace, rule.From, rule.Ports, direction)...)
			}
			continue
		}
		for _, rule := range policy.Spec.Egress {
			rules = append(rules, w.allow(pod, policy.Namespace, rule.To, rule.Ports, direction)...)
		}
	}
	return rules, isolated
}

// concerns follows the API: without policyTypes a policy is for ingress, and for egress if it has such rules.
func concerns(policy *networking.NetworkPolicy, direction networking.PolicyType) bool {
	if len(policy.Spec.PolicyTypes) > 0 {
		return slices.Contains(policy.Spec.PolicyTypes, direction)
	}
	return direction == networking.PolicyTypeIngress || len(policy.Spec.Egress) > 0
}

// selects says no to a selector that the API should have refused.
func selects(selector *meta.LabelSelector, set map[string]string) bool {
	parsed, err := meta.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(set))
}

// peer is an address range, with the pod behind it where there is one.
type peer struct {
	match string
	pod   *core.Pod
}

func (w World) allow(pod *core.Pod, namespace string, from []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort,
	direction networking.PolicyType) []string {
	flag := "-s"
	if direction == networking.PolicyTypeEgress {
		flag = "-d"
	}
	peers := []peer{{}} // nobody named: everybody
	if len(from) > 0 {
		peers = nil
		for _, each := range from {
			peers = append(peers, w.peers(namespace, each, flag)...)
		}
	}
	var rules []string
	for _, other := range peers {
		target := pod
		if direction == networking.PolicyTypeEgress {
			target = other.pod
		}
		if len(ports) == 0 {
			rules = append(rules, strings.TrimSpace(other.match+" -j RETURN"))
		}
		for _, port := range ports {
			if match, ok := portMatch(port, target); ok {
				rules = append(rules, strings.TrimSpace(other.match+" "+match+" -j RETURN"))
			}
		}
	}
	return rules
}

func (w World) peers(namespace string, from networking.NetworkPolicyPeer, flag string) []peer {
	var found []peer
	if block := from.IPBlock; block != nil {
		for _, prefix := range without(block.CIDR, block.Except) {
			found = append(found, peer{match: flag + " " + prefix.String()})
		}
		return found
	}
	allowed := map[string]bool{namespace: from.NamespaceSelector == nil}
	if from.NamespaceSelector != nil {
		for _, each := range w.Namespaces {
			allowed[each.Name] = selects(from.NamespaceSelector, each.Labels)
		}
	}
	for _, pod := range w.Pods {
		if allowed[pod.Namespace] && networked(pod) && (from.PodSelector == nil || selects(from.PodSelector, pod.Labels)) {
			found = append(found, peer{flag + " " + pod.Status.PodIP + "/32", pod})
		}
	}
	return found
}

// portMatch is false for a named port that the target has not.
func portMatch(port networking.NetworkPolicyPort, target *core.Pod) (string, bool) {
	protocol := core.ProtocolTCP
	if port.Protocol != nil {
		protocol = *port.Protocol
	}
	match := "-p " + strings.ToLower(string(protocol))
	switch {
	case port.Port == nil:
		return match, true
	case port.Port.Type == intstr.Int && port.EndPort != nil:
		return fmt.Sprintf("%s --dport %d:%d", match, port.Port.IntValue(), *port.EndPort), true
	case port.Port.Type == intstr.Int:
		return fmt.Sprintf("%s --dport %d", match, port.Port.IntValue()), true
	case target == nil:
		return "", false
	}
	for _, container := range target.Spec.Containers {
		for _, each := range container.Ports {
			if each.Name == port.Port.StrVal && (each.Protocol == protocol || each.Protocol == "" && protocol == core.ProtocolTCP) {
				return fmt.Sprintf("%s --dport %d", match, each.ContainerPort), true
			}
		}
	}
	return "", false
}

// without is an IPv4 range less others, as ranges. Ranges that are none, or not IPv4, are nothing.
func without(cidr string, except []string) []netip.Prefix {
	whole, err := netip.ParsePrefix(cidr)
	if err != nil || !whole.Addr().Is4() {
		return nil
	}
	rest := []netip.Prefix{whole.Masked()}
	for _, each := range except {
		hole, err := netip.ParsePrefix(each)
		if err != nil {
			continue
		}
		var next []netip.Prefix
		for _, prefix := range rest {
			next = append(next, cut(prefix, hole.Masked())...)
		}
		rest = next
	}
	return rest
}

// cut halves a range until the hole is one of the halves.
func cut(prefix, hole netip.Prefix) []netip.Prefix {
	if !prefix.Overlaps(hole) {
		return []netip.Prefix{prefix}
	}
	if hole.Bits() <= prefix.Bits() {
		return nil
	}
	low := netip.PrefixFrom(prefix.Addr(), prefix.Bits()+1)
	raw := prefix.Addr().As4()
	raw[prefix.Bits()/8] |= 0x80 >> (prefix.Bits() % 8)
	high := netip.PrefixFrom(netip.AddrFrom4(raw), prefix.Bits()+1)
	return append(cut(low, hole), cut(high, hole)...)
}
