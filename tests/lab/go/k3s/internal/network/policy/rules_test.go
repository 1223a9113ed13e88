package policy

import (
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func pod(namespace, name, address string) *core.Pod {
	return &core.Pod{
		ObjectMeta: meta.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec: core.PodSpec{NodeName: "n1", Containers: []core.Container{{
			Ports: []core.ContainerPort{{Name: "web", ContainerPort: 8080}},
		}}},
		Status: core.PodStatus{PodIP: address, Phase: core.PodRunning},
	}
}

func app(name string) *meta.LabelSelector {
	return &meta.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

func world(spec networking.NetworkPolicySpec) World {
	elsewhere := pod("a", "far", "10.42.1.9")
	elsewhere.Spec.NodeName = "n2"
	done := pod("a", "done", "10.42.0.8")
	done.Status.Phase = core.PodSucceeded
	return World{
		Node:       "n1",
		Pods:       []*core.Pod{pod("a", "one", "10.42.0.1"), pod("a", "two", "10.42.0.2"), pod("b", "two", "10.42.0.3"), elsewhere, done},
		Namespaces: []*core.Namespace{{ObjectMeta: meta.ObjectMeta{Name: "a"}}, {ObjectMeta: meta.ObjectMeta{Name: "b", Labels: map[string]string{"open": "yes"}}}},
		Policies:   []*networking.NetworkPolicy{{ObjectMeta: meta.ObjectMeta{Namespace: "a", Name: "p"}, Spec: spec}},
	}
}

const reject = "-j REJECT --reject-with icmp-port-unreachable"

func TestPolicies(t *testing.T) {
	udp, last := core.ProtocolUDP, int32(90)
	port := func(value intstr.IntOrString) *intstr.IntOrString { return &value }
	for name, c := range map[string]struct {
		spec networking.NetworkPolicySpec
		into []string // of pod a/one
		out  []string
	}{
		"none selects": {spec: networking.NetworkPolicySpec{PodSelector: *app("other")}},
		"deny all": {
			spec: networking.NetworkPolicySpec{PolicyTypes: []networking.PolicyType{"Ingress", "Egress"}},
			into: []string{reject}, out: []string{reject},
		},
		"all may come": {
			spec: networking.NetworkPolicySpec{Ingress: []networking.NetworkPolicyIngressRule{{}}},
			into: []string{"-j RETURN", reject},
		},
		"pods of this namespace, named port": {
			spec: networking.NetworkPolicySpec{Ingress: []networking.NetworkPolicyIngressRule{{
				From:  []networking.NetworkPolicyPeer{{PodSelector: app("two")}},
				Ports: []networking.NetworkPolicyPort{{Port: port(intstr.FromString("web"))}, {Port: port(intstr.FromString("none"))}},
			}}},
			into: []string{"-s 10.42.0.2/32 -p tcp --dport 8080 -j RETURN", reject},
		},
		"pods of other namespaces, a range of ports": {
			spec: networking.NetworkPolicySpec{Ingress: []networking.NetworkPolicyIngressRule{{
				From: []networking.NetworkPolicyPeer{{
					NamespaceSelector: &meta.LabelSelector{MatchLabels: map[string]string{"open": "yes"}}, PodSelector: app("two"),
				}},
				Ports: []networking.NetworkPolicyPort{{Protocol: &udp, Port: port(intstr.FromInt32(80)), EndPort: &last}},
			}}},
			into: []string{"-s 10.42.0.3/32 -p udp --dport 80:90 -j RETURN", reject},
		},
		"a range of addresses with a hole": {
			spec: networking.NetworkPolicySpec{Egress: []networking.NetworkPolicyEgressRule{{
				To: []networking.NetworkPolicyPeer{{IPBlock: &networking.IPBlock{CIDR: "10.0.0.0/30", Except: []string{"10.0.0.1/32"}}}},
			}}},
			into: []string{reject},
			out:  []string{"-d 10.0.0.0/32 -j RETURN", "-d 10.0.0.2/31 -j RETURN", reject},
		},
	} {
		chains := world(c.spec).Chains()
		one := pod("a", "one", "")
		into, out := chains[prefixed(one, "Ingress")], chains[prefixed(one, "Egress")]
		if !slices.Equal(into, c.into) || !slices.Equal(out, c.out) {
			t.Errorf("%s:\n%v\n%v", name, into, out)
		}
		for _, rule := range chains[top] {
			if strings.Contains(rule, "10.42.1.9") || strings.Contains(rule, "10.42.0.8") || strings.Contains(rule, "10.42.0.3") {
				t.Errorf("%s: %s", name, rule)
			}
		}
	}
}

func prefixed(p *core.Pod, direction networking.PolicyType) string { return name(p, direction) }

func TestChainsOfBeforeGo(t *testing.T) {
	before := ":INPUT ACCEPT [0:0]\n:KUBE-NP-OLD - [0:0]\n:KUBE-NP-KEPT - [0:0]\n:KUBE-NODEPORTS - [0:0]\n"
	got := string(script(map[string][]string{top: {"-j RETURN"}, "KUBE-NP-KEPT": {reject}}, before))
	want := "*filter\n:KUBE-NETPOL - [0:0]\n:KUBE-NP-KEPT - [0:0]\n:KUBE-NP-OLD - [0:0]\n" +
		"-A KUBE-NETPOL -j RETURN\n-A KUBE-NP-KEPT " + reject + "\n-X KUBE-NP-OLD\nCOMMIT\n"
	if got != want {
		t.Fatal(got)
	}
}
