package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"qwex.lab/k3s/internal/config"
	"qwex.lab/k3s/internal/etcd"
	"qwex.lab/k3s/internal/token"
)

const (
	etcdNameAnnotation    = "etcd.k3s.cattle.io/node-name"
	etcdAddressAnnotation = "etcd.k3s.cattle.io/node-address"
)

// addresses are the API servers that are alive, as host:port: the endpoints of the service `kubernetes`.
func (s *supervisor) addresses(ctx context.Context) []string {
	own := []string{net.JoinHostPort(s.c.AdvertiseAddress, strconv.Itoa(s.c.Port))}
	kube := s.kube.Load()
	if kube == nil {
		return own
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	slice, err := kube.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		logrus.Warnf("Failed to list the API servers: %v", err)
		return own
	}
	var found []string
	for _, endpoint := range slice.Endpoints {
		for _, address := range endpoint.Addresses {
			for _, port := range slice.Ports {
				found = append(found, net.JoinHostPort(address, strconv.Itoa(int(*port.Port))))
			}
		}
	}
	slices.Sort(found)
	if len(found) == 0 {
		return own
	}
	return found
}

// bootstrapToken says whether a bootstrap token is good for joining; an error if that cannot be told now.
func (s *supervisor) bootstrapToken(ctx context.Context, given string) (bool, error) {
	id, secret, ok := token.SplitBootstrap(given)
	if !ok {
		return false, nil
	}
	kube := s.kube.Load()
	if kube == nil {
		return false, fmt.Errorf("starting: bootstrap tokens cannot be checked yet")
	}
	found, err := kube.CoreV1().Secrets("kube-system").Get(ctx, "bootstrap-token-"+id, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if end := string(found.Data["expiration"]); end != "" {
		at, err := time.Parse(time.RFC3339, end)
		if err != nil || time.Now().After(at) {
			return false, nil
		}
	}
	return same(secret, string(found.Data["token-secret"])) && string(found.Data["usage-bootstrap-authentication"]) == "true", nil
}

// nodes keeps in step with the Node objects until ctx ends: this server's role labels, the names that CoreDNS knows
// nodes by, etcd's members and the nodes' passwords, of which a deleted node's are removed.
func nodes(ctx context.Context, kube *kubernetes.Clientset, c *config.Config, member *etcd.Member) error {
	factory := informers.NewSharedInformerFactory(kube, 0)
	informer := factory.Core().V1().Nodes().Informer()
	if err := informer.SetTransform(lighten); err != nil {
		return err
	}
	lister := factory.Core().V1().Nodes().Lister()
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { poke() },
		UpdateFunc: func(any, any) { poke() },
		DeleteFunc: func(object any) {
			poke()
			if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = gone.Obj
			}
			node, ok := object.(*corev1.Node)
			if !ok {
				return
			}
			if err := disclaim(ctx, kube, node.Name); err != nil {
				logrus.Errorf("Failed to forget the password of node %s: %v", node.Name, err)
			}
			if node.Annotations[etcdNameAnnotation] == "" || !member.Leads() {
				return
			}
			if err := member.Remove(ctx, node.Annotations[etcdNameAnnotation]); err != nil {
				logrus.Errorf("Failed to remove the etcd member of node %s: %v", node.Name, err)
			}
		},
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		if own, err := lister.Get(c.NodeName); err == nil {
			if err := label(ctx, kube, c, own, member.Name()); err != nil && ctx.Err() == nil {
				logrus.Errorf("Failed to set the role labels of node %s: %v", c.NodeName, err)
				time.AfterFunc(retry, poke)
			}
		}
		all, err := lister.List(everything)
		if err == nil {
			err = hosts(ctx, kube, all)
		}
		if err != nil && ctx.Err() == nil {
			logrus.Errorf("Failed to write the nodes' names for CoreDNS: %v", err)
			time.AfterFunc(retry, poke)
		}
	}
}

// lighten drops of a Node what nobody here reads, images above all.
func lighten(object any) (any, error) {
	if node, ok := object.(*corev1.Node); ok {
		node.ManagedFields = nil
		node.Status = corev1.NodeStatus{Addresses: node.Status.Addresses}
	}
	return object, nil
}

func label(ctx context.Context, kube *kubernetes.Clientset, c *config.Config, node *corev1.Node, name string) error {
	labels := map[string]string{"node-role.kubernetes.io/control-plane": "true", "node-role.kubernetes.io/master": "true"}
	annotations := map[string]string{}
	if c.Clustered() {
		labels["node-role.kubernetes.io/etcd"] = "true"
		annotations[etcdNameAnnotation] = name
		annotations[etcdAddressAnnotation] = c.NodeIP[0]
	}
	if includes(node.Labels, labels) && includes(node.Annotations, annotations) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels, "annotations": annotations}})
	if err != nil {
		return err
	}
	_, err = kube.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func includes(all, some map[string]string) bool {
	for key, value := range some {
		if all[key] != value {
			return false
		}
	}
	return true
}

// hosts writes /etc/hosts lines of the nodes where CoreDNS reads them; no CoreDNS, nothing to do.
func hosts(ctx context.Context, kube *kubernetes.Clientset, all []*corev1.Node) error {
	var lines []string
	for _, node := range all {
		for _, address := range node.Status.Addresses {
			if address.Type == corev1.NodeInternalIP {
				lines = append(lines, address.Address+" "+node.Name+"\n")
			}
		}
	}
	slices.Sort(lines)
	text := strings.Join(lines, "")
	found, err := kube.CoreV1().ConfigMaps("kube-system").Get(ctx, "coredns", metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && found.Data["NodeHosts"] == text {
		return nil
	}
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"NodeHosts": text}})
	if err != nil {
		return err
	}
	_, err = kube.CoreV1().ConfigMaps("kube-system").Patch(ctx, "coredns", types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
