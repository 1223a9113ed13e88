package node

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	log "github.com/sirupsen/logrus"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// uninitialized is what a kubelet with an outside cloud provider taints its node with; here the node lifts it itself.
const uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"

// describe is the part of k3s's cloud controller that concerns one node: its addresses, k3s's labels and annotations,
// and no taint left. It works until ctx ends, on every change of the node: a deleted node registers anew.
func describe(ctx context.Context, kube kubernetes.Interface, o Options) error {
	only := informers.WithTweakListOptions(func(options *meta.ListOptions) {
		options.FieldSelector = fields.OneTermEqualSelector("metadata.name", o.NodeName).String()
	})
	factory := informers.NewSharedInformerFactoryWithOptions(kube, time.Minute, only)
	set := func(found any) {
		node, ok := found.(*core.Node)
		if !ok {
			return
		}
		if err := o.correct(ctx, kube, node); err != nil && ctx.Err() == nil {
			log.Warnf("Node %s: %v; tried again at its next change", o.NodeName, err)
		}
	}
	_, err := factory.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: set, UpdateFunc: func(_, now any) { set(now) },
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	return nil
}

// addresses of the node, in the order that k3s has them.
func (o Options) addresses() []core.NodeAddress {
	list := []core.NodeAddress{{Type: core.NodeInternalIP, Address: o.NodeIP}}
	if o.NodeExternalIP != "" {
		list = append(list, core.NodeAddress{Type: core.NodeExternalIP, Address: o.NodeExternalIP})
	}
	return append(list, core.NodeAddress{Type: core.NodeHostName, Address: o.NodeName})
}

func (o Options) correct(ctx context.Context, kube kubernetes.Interface, node *core.Node) error {
	if addresses := o.addresses(); !equality.Semantic.DeepEqual(node.Status.Addresses, addresses) {
		patch, err := json.Marshal(map[string]any{"status": map[string]any{"addresses": addresses}})
		if err != nil {
			return err
		}
		_, err = kube.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, meta.PatchOptions{}, "status")
		if err != nil {
			return fmt.Errorf("set its addresses: %w", err)
		}
		log.Infof("Node %s has the addresses %v", node.Name, addresses)
	}
	taints := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t core.Taint) bool { return t.Key == uninitialized })
	labels := map[string]string{core.LabelInstanceTypeStable: "k3s"}
	notes := map[string]string{
		"k3s.io/hostname": o.NodeName, "k3s.io/internal-ip": o.NodeIP, "alpha.kubernetes.io/provided-node-ip": o.NodeIP,
	}
	if o.NodeExternalIP != "" {
		notes["k3s.io/external-ip"] = o.NodeExternalIP
	}
	if len(taints) == len(node.Spec.Taints) && within(labels, node.Labels) && within(notes, node.Annotations) {
		return nil
	}
	// With the version that was read: another's change of the taints in between makes this fail, and come again.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": node.ResourceVersion, "labels": labels, "annotations": notes},
		"spec":     map[string]any{"taints": taints},
	})
	if err != nil {
		return err
	}
	_, err = kube.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, meta.PatchOptions{})
	if err != nil {
		return fmt.Errorf("set its labels and taints: %w", err)
	}
	return nil
}

func within(some, all map[string]string) bool {
	for key, value := range some {
		if all[key] != value {
			return false
		}
	}
	return true
}
